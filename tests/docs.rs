//! The documentation agrees with the code: every code has an entry, links have targets, every page can be
//! found from the index, and blocks of TOML, JSON and commands are valid. What is shown as executed is
//! executed by `tests/docs/run.py`.
//!
//! Marks follow the language of a fence, where readers do not see them: a `toml` block is a complete config
//! unless it is a `toml fragment`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate::internals::{ClientAction, CloseReason, Config, ErrorCode};

/// A new variant does not compile here until it is added, as it must be in [`CloseReason::ALL`].
fn is_listed(reason: CloseReason) -> bool {
    use CloseReason::*;
    match reason {
        Normal | ProtocolError | BinaryRefused | InvalidUtf8 | InvalidCompression | Flooding
        | MessageTooBig | InternalError | Restarting | BrokerGap | Overloaded | BadGateway
        | Unauthenticated | Disconnected | Forbidden | TooSlow | PongTimeout
        | TooManyConnections => CloseReason::ALL.contains(&reason),
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file of the repository with this extension, except in build and hidden folders.
fn files(extension: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = folder.join(&name);
            if entry.file_type().unwrap().is_dir() {
                if !name.starts_with('.') && !matches!(&*name, "target" | "node_modules") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|kind| kind == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// All Markdown pages. Files in `src` are parts of pages.
fn pages() -> Vec<PathBuf> {
    files("md").into_iter().filter(|path| !path.starts_with("src")).collect()
}

/// A code block of a page.
struct Block {
    /// The page and line, such as `docs/page.md:12`.
    location: String,
    /// What follows the fence: the language, then marks.
    marks: Vec<String>,
    text: String,
}

impl Block {
    fn is(&self, language: &str) -> bool {
        self.marks.first().is_some_and(|first| first == language)
    }

    fn has(&self, mark: &str) -> bool {
        self.marks.iter().skip(1).any(|other| other.split('=').next() == Some(mark))
    }
}

/// The code blocks of a page, and its other lines with their numbers.
fn split(page: &Path) -> (Vec<Block>, Vec<(usize, String)>) {
    let (mut blocks, mut prose) = (Vec::new(), Vec::new());
    let mut open: Option<(usize, Block)> = None;
    for (number, line) in (1..).zip(read(page).lines()) {
        let (stripped, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        match (&mut open, stripped.strip_prefix("```")) {
            (None, Some(marks)) => {
                let location = format!("{}:{number}", page.display());
                let marks = marks.split_whitespace().map(str::to_owned).collect();
                open = Some((indent, Block { location, marks, text: String::new() }));
            }
            (Some(_), Some("")) => blocks.extend(open.take().map(|(_, block)| block)),
            (Some((indent, block)), _) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => prose.push((number, line.to_owned())),
        }
    }
    assert!(open.is_none(), "{}: a block of code has no end", page.display());
    (blocks, prose)
}

fn blocks() -> Vec<Block> {
    pages().iter().flat_map(|page| split(page).0).collect()
}

/// The section of a page below the heading `## {heading}`.
fn section(page: &str, heading: &str) -> String {
    let text = read(page);
    let found = text.split("\n## ").find(|part| part.lines().next() == Some(heading));
    found.unwrap_or_else(|| panic!("{page}: no section {heading}")).to_owned()
}

/// The first cells of a section's table rows.
fn first_cells(page: &str, heading: &str) -> Vec<String> {
    let section = section(page, heading);
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.split('|').nth(1).unwrap_or_default().trim().replace('`', "")).collect()
}

/// The headings within a section.
fn entries(page: &str, heading: &str) -> BTreeSet<String> {
    let section = section(page, heading);
    let lines = section.lines().filter_map(|line| line.strip_prefix("### "));
    lines.map(|line| line.replace('`', "")).collect()
}

#[test]
fn every_close_code_is_in_the_protocol_page_and_no_other() {
    assert!(CloseReason::ALL.iter().all(|reason| is_listed(*reason)));
    let mut codes: Vec<String> = CloseReason::ALL.iter().map(|r| r.code().to_string()).collect();
    codes.dedup();
    assert_eq!(first_cells("docs/protocol.md", "Close codes"), codes);
}

const TABLE_BEGIN: &str =
    "<!-- The table is made by `UPDATE_DOCS=1 cargo test --test docs close` -->\n";
const TABLE_END: &str = "<!-- end of the table -->\n";

/// The table of close codes and the list of what clients should do. The meaning of a code is the text that `page` has
/// for it.
fn close_codes(page: &str) -> String {
    let mut table = "| code | meaning | client should |\n|---|---|---|\n".to_owned();
    let mut last = None;
    for reason in CloseReason::ALL {
        let code = reason.code();
        if last.replace(code) == Some(code) {
            continue;
        }
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {code} | ")));
        let meaning = row.and_then(|row| row.split(" | ").next()).unwrap_or("TODO");
        table += &format!("| {code} | {meaning} | `{}` |\n", reason.action());
    }
    table += "\n";
    for action in ClientAction::ALL {
        table += &format!("- `{action}`: {}.\n", action.description());
    }
    table
}

#[test]
fn the_protocol_page_says_what_clients_should_do_after_a_close() {
    let page = read("docs/protocol.md");
    let (before, rest) = page.split_once(TABLE_BEGIN).expect("the table begins");
    let (table, after) = rest.split_once(TABLE_END).expect("the table ends");
    let made = format!("{before}{TABLE_BEGIN}\n{}\n{TABLE_END}{after}", close_codes(table));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join("docs/protocol.md"), &made).unwrap();
    }
    assert!(read("docs/protocol.md") == made, "run the tests with UPDATE_DOCS=1");
    assert!(!made.contains("TODO"), "each code has a meaning");
}

#[test]
fn every_error_code_is_in_the_protocol_page_and_no_other() {
    let mut documented = first_cells("docs/protocol.md", "Errors");
    let mut codes = ErrorCode::ALL.map(|code| code.label().to_owned()).to_vec();
    documented.sort();
    codes.sort();
    assert_eq!(documented, codes);
}

#[test]
fn every_close_reason_is_in_the_runbook_and_no_other() {
    let reasons = CloseReason::ALL.map(|reason| format!("{} {}", reason.code(), reason.label()));
    assert_eq!(entries("docs/runbook.md", "Close codes"), BTreeSet::from(reasons));
}

#[test]
fn every_error_code_is_in_the_runbook_and_no_other() {
    let codes = ErrorCode::ALL.map(|code| code.label().to_owned());
    assert_eq!(entries("docs/runbook.md", "Error codes"), BTreeSet::from(codes));
}

/// A config of a gateway that has every readiness check and whose Redis is unavailable.
const WITH_EVERY_CHECK: &str = r#"
[server]
listen = "127.0.0.1:0"
threads = 1
[admin]
listen = "127.0.0.1:0"
[engine]
kind = "redis"
[engine.redis]
url = "redis://127.0.0.1:1/0"
tokens_url = "redis://127.0.0.1:1/1"
limits_url = "redis://127.0.0.1:1/2"
wire = "channels-core"
[jwt]
session_version = { key = "session:{user_id}", redis_url = "redis://127.0.0.1:1/3" }
[[route]]
path = "/ws/{room}/"
channel = "room_{room}"
[log]
format = "json"
"#;

#[test]
fn every_readiness_check_is_in_the_runbook_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, WITH_EVERY_CHECK).unwrap();
    let arguments = ["serve", "--config", file.to_str().unwrap()];
    let mut gateway = Killed(tidegate(&arguments).stderr(Stdio::piped()).spawn().unwrap());
    // Standard error stays open until the end, so that the gateway can log.
    let mut log = BufReader::new(gateway.0.stderr.take().unwrap()).lines();
    let listening = log
        .by_ref()
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
        .find(|line| line["event"] == "listening")
        .expect("the gateway listens");
    let answer = get(listening["admin"].as_str().unwrap(), "/readyz");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let checks: BTreeSet<String> = body["checks"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(entries("docs/runbook.md", "Readiness reasons"), checks);
}

/// A process that is killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tidegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The complete answer of an HTTP server.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn log_events_of_the_runbook_are_logged() {
    let sources: String =
        files("rs").iter().filter(|path| path.starts_with("src")).map(read).collect();
    let runbook = read("docs/runbook.md");
    let events: BTreeSet<&str> =
        runbook.split("event `").skip(1).filter_map(|rest| rest.split('`').next()).collect();
    assert!(events.len() > 10, "{events:?}");
    let logged = |event: &&str| sources.contains(&format!("\"{event}\""));
    assert_eq!(events.into_iter().find(|event| !logged(event)), None);
}

/// Removes the suffix that Prometheus adds to a series (such as `_bucket`), since the reference names metrics
/// without it.
#[test]
fn metrics_are_those_of_the_reference() {
    let reference = read("docs/metrics.md");
    let mut unknown = BTreeSet::new();
    for page in pages().iter().filter(|page| !page.ends_with("metrics.md")) {
        let text = read(page);
        for (at, _) in text.match_indices("tidegate_") {
            let rest = &text[at..];
            let end =
                rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
            let name = rest[..end].trim_end_matches("_bucket").trim_end_matches("_count");
            // `tidegate_` alone and `tidegate_redis_*` stand for several metrics.
            let is_prefix = name.ends_with('_');
            if !is_prefix && !reference.contains(&format!("`{name}`")) {
                unknown.insert(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_module_is_in_the_architecture_and_no_other() {
    let library = read("src/lib.rs");
    let modules = library.lines().filter_map(|line| {
        line.trim_start_matches("pub ").strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'))
    });
    let section = section("docs/architecture.md", "Modules and ranks");
    let cells = section.lines().filter_map(|line| line.split('|').nth(2));
    let named = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let main = std::iter::once("main");
    assert_eq!(named.collect::<BTreeSet<_>>(), modules.chain(main).collect::<BTreeSet<_>>());
}

/// The keys of each section of the configuration reference.
fn settings() -> BTreeMap<String, BTreeSet<String>> {
    let mut settings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in read("docs/configuration.md").lines() {
        if let Some(heading) = line.strip_prefix("## `[") {
            section = heading.split(']').next().unwrap_or_default().trim_matches('[').to_owned();
        } else if let Some(row) = line.strip_prefix("| `") {
            let key = row.split(['`', '.']).next().unwrap_or_default();
            settings.entry(section.clone()).or_default().insert(key.to_owned());
        }
    }
    settings
}

/// `[section] key` in running text names a key that exists.
#[test]
fn settings_are_those_of_the_reference() {
    let settings = settings();
    let (mut named, mut unknown) = (0, BTreeSet::new());
    for page in pages() {
        for (line, text) in split(&page).1 {
            for quoted in text.split('`').skip(1).step_by(2) {
                let Some((section, rest)) =
                    quoted.strip_prefix('[').and_then(|rest| rest.split_once("] "))
                else {
                    continue;
                };
                let key = rest.split([' ', '.', '=']).next().unwrap_or_default();
                if let Some(keys) = settings.get(section) {
                    named += 1;
                    if !keys.contains(key) {
                        unknown.insert(format!("{}:{line}: {quoted}", page.display()));
                    }
                }
            }
        }
    }
    assert!(named > 50, "only {named} were found");
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// The targets of a page's links, with their lines. Text between backticks is not a link.
fn links(page: &Path) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in split(page).1 {
        let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        let inline = outside.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let bare = outside.split("<http").skip(1).filter_map(|rest| rest.split('>').next());
        let bare = bare.map(|rest| format!("http{rest}"));
        found.extend(inline.map(str::to_owned).chain(bare).map(|target| (number, target)));
    }
    found
}

fn is_external(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

/// Normalizes a path: `a/../b` becomes `b`.
fn normal(path: &Path) -> PathBuf {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(name) => parts.push(name),
            _ => {}
        }
    }
    parts.into_iter().collect()
}

/// The page or file that a relative link of `page` names, and the heading in it.
fn resolve<'a>(page: &Path, target: &'a str) -> (PathBuf, &'a str) {
    let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
    match path {
        "" => (page.to_owned(), fragment),
        path => (normal(&page.parent().unwrap_or(Path::new("")).join(path)), fragment),
    }
}

/// The anchors that code hosts generate for the headings of a page.
fn anchors(page: &Path) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for (_, line) in split(page).1 {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor = kept.collect::<String>().replace(' ', "-");
        let times = seen.entry(anchor.clone()).or_default();
        anchors.insert(if *times == 0 { anchor } else { format!("{anchor}-{times}") });
        *times += 1;
    }
    anchors
}

#[test]
fn relative_links_lead_somewhere() {
    let (mut followed, mut broken) = (0, Vec::new());
    for page in pages() {
        for (line, target) in links(&page) {
            if is_external(&target) {
                continue;
            }
            followed += 1;
            let (linked, fragment) = resolve(&page, &target);
            let exists = root().join(&linked).exists();
            let is_page = linked.extension().is_some_and(|kind| kind == "md");
            if !exists || is_page && !fragment.is_empty() && !anchors(&linked).contains(fragment) {
                broken.push(format!("{}:{line}: {target}", page.display()));
            }
        }
    }
    assert!(followed > 50, "only {followed} links were found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// External links are only checked for their form, without the network.
#[test]
fn external_links_are_https_and_well_formed() {
    let mut wrong = Vec::new();
    for page in pages() {
        for (line, target) in links(&page).into_iter().filter(|(_, target)| is_external(target)) {
            let parsed = url::Url::parse(&target);
            let good = parsed.is_ok_and(|url| {
                url.scheme() == "https" && url.domain().is_some_and(|host| host.contains('.'))
            });
            if !good || target.contains(char::is_whitespace) {
                wrong.push(format!("{}:{line}: {target}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_is_found_from_the_index() {
    let index = PathBuf::from("docs/README.md");
    let (mut reached, mut next) = (BTreeSet::from([index.clone()]), vec![index]);
    while let Some(page) = next.pop() {
        for (_, target) in links(&page) {
            let (linked, _) = resolve(&page, &target);
            let is_page = linked.extension().is_some_and(|kind| kind == "md");
            if !is_external(&target) && is_page && reached.insert(linked.clone()) {
                next.push(linked);
            }
        }
    }
    let mut all = pages().into_iter().filter(|page| page.starts_with("docs"));
    assert_eq!(all.find(|page| !reached.contains(page)), None);
}

/// What a fragment of a config needs to be a complete config, unless the fragment has it.
const REST_OF_A_CONFIG: &str = r#"
[[route]]
path = "/the/rest/"
channel = "rest"
"#;

/// Replaces each variable with a long text that is a valid address as well.
fn with_variables(toml: &str) -> String {
    let mut parts = toml.split("${");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("0123456789abcdef0123456789abcdef");
        text.push_str(part.split_once('}').map_or("", |(_, rest)| rest));
    }
    text
}

/// Files of certificates that a reader has, and those of the tests in their place.
const FILES: [(&str, &str); 5] = [
    ("/etc/tidegate/tls/fullchain.pem", "localhost.pem"),
    ("/etc/tidegate/tls/privkey.pem", "localhost.key"),
    ("/etc/tidegate/tls/admin.pem", "localhost.pem"),
    ("/etc/tidegate/tls/admin.key", "localhost.key"),
    ("/etc/tidegate/tls/operators-ca.pem", "ca.pem"),
];

fn with_files(toml: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/server_tls");
    FILES
        .iter()
        .fold(toml.to_owned(), |text, (path, file)| text.replace(path, &format!("{folder}/{file}")))
}

#[test]
fn blocks_of_toml_are_accepted() {
    let (mut wrong, mut complete) = (Vec::new(), 0);
    for block in blocks().iter().filter(|block| block.is("toml")) {
        let text = with_files(&with_variables(&block.text));
        let mistakes = if block.has("fragment") || block.has("append") {
            // Tables may come in any order, so what is missing can follow.
            let rest = if text.contains("[[route]]") { "" } else { REST_OF_A_CONFIG };
            Config::from_toml(&format!("{text}{rest}")).err()
        } else {
            complete += 1;
            Config::from_toml(&text).err()
        };
        wrong.extend(mistakes.map(|mistakes| format!("{}:\n{mistakes}", block.location)));
    }
    assert!(complete >= 4, "only {complete} complete configs");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn blocks_of_json_parse() {
    let mut values = 0;
    for block in blocks().iter().filter(|block| block.is("json")) {
        for value in serde_json::Deserializer::from_str(&block.text).into_iter() {
            let _value: serde_json::Value =
                value.unwrap_or_else(|error| panic!("{}: {error}\n{}", block.location, block.text));
            values += 1;
        }
    }
    assert!(values > 5, "only {values} values");
}

/// The commands of a console block, or of a block without a language whose lines start with a command.
fn commands(block: &Block) -> Vec<String> {
    let joined = block.text.replace("\\\n", " ");
    let lines = joined.lines();
    match block.marks.first().map(String::as_str) {
        Some("console") => {
            lines.filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect()
        }
        None | Some("sh" | "bash") => lines.map(str::to_owned).collect(),
        Some(_) => Vec::new(),
    }
}

/// The words of each simple command of a line; enough of the shell for what documentation shows.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let (mut found, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut characters = line.chars().peekable();
    let mut quote = None;
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '$') if characters.next_if_eq(&'(').is_some() => {
                word = None;
                found.push(std::mem::take(&mut words));
            }
            (None, '|' | ';' | '&' | '<' | '>' | ')') => {
                words.extend(word.take());
                found.push(std::mem::take(&mut words));
            }
            (None, ' ') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    found.push(words);
    found
}

/// The arguments of a call of this program, however it is called.
fn arguments(mut words: Vec<String>) -> Option<Vec<String>> {
    let is_setting = |word: &String| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        })
    };
    words.drain(..words.iter().take_while(|word| is_setting(word)).count());
    let cargo = ["cargo", "run", "--release", "--"];
    if words.starts_with(&cargo.map(str::to_owned)) {
        return Some(words.split_off(cargo.len()));
    }
    let program = words.first()?;
    (program == "tidegate" || program.ends_with("/tidegate")).then(|| words.split_off(1))
}

/// Calls the program as shown, but so that it does nothing: with a config that does not exist, or for
/// its help. Exit code 2 means wrong usage.
fn is_accepted(mut arguments: Vec<String>) -> Result<(), String> {
    match arguments.iter().position(|argument| argument == "--config") {
        Some(at) if at + 1 < arguments.len() => {
            arguments[at + 1] = "/nonexistent/gateway.toml".to_owned()
        }
        _ => arguments.push("--help".to_owned()),
    }
    let shown: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut child = tidegate(&shown)
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map(Killed)
        .map_err(|error| error.to_string())?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        match child.0.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => return Err(format!("{shown:?} does not end")),
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let mut stderr = String::new();
    let _ = child.0.stderr.take().unwrap().read_to_string(&mut stderr);
    if status.code() == Some(2) { Err(format!("{shown:?}:\n{stderr}")) } else { Ok(()) }
}

#[test]
fn commands_are_accepted() {
    let (mut wrong, mut tried) = (Vec::new(), BTreeSet::new());
    for block in blocks() {
        let lines = commands(&block);
        let calls = lines.iter().flat_map(|line| simple_commands(line)).filter_map(arguments);
        for call in calls {
            if tried.insert(call.clone()) {
                wrong.extend(
                    is_accepted(call).err().map(|why| format!("{}: {why}", block.location)),
                );
            }
        }
    }
    assert!(tried.len() > 5, "{tried:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A script that a page tells readers to run exists in the repository.
#[test]
fn scripts_are_there() {
    let mut missing = Vec::new();
    for block in blocks() {
        for line in commands(&block) {
            for words in simple_commands(&line) {
                let program =
                    words.iter().find(|word| !word.contains('=')).cloned().unwrap_or_default();
                let folder = program.split('/').next().unwrap_or_default();
                let ours = program.contains('/')
                    && matches!(folder, "scripts" | "bench" | "fuzz" | "examples" | ".ci");
                if ours && !root().join(&program).exists() {
                    missing.push(format!("{}: {program}", block.location));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// A file that a page names exists, so that a walk through the code leads somewhere. `src/a` is an example.
#[test]
fn files_that_pages_name_are_there() {
    let mut missing = Vec::new();
    for page in pages() {
        for (number, line) in split(&page).1 {
            for name in line.split('`').skip(1).step_by(2) {
                let named = name.starts_with("src/") && !name.contains([' ', '*', '{']);
                if named && !name.starts_with("src/a/") && !root().join(name).exists() {
                    missing.push(format!("{}:{number}: {name}", page.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// No page was committed in the middle of a merge.
#[test]
fn pages_hold_no_marks_of_a_merge() {
    let marks = ["<<<<<<< ", "||||||| ", ">>>>>>> "];
    let is_mark = |line: &str| line == "=======" || marks.iter().any(|mark| line.starts_with(mark));
    for page in pages() {
        let found = read(&page).lines().position(is_mark);
        assert_eq!(found, None, "{}: a mark of a merge", page.display());
    }
}

#[test]
fn a_line_of_a_shell_is_taken_apart() {
    let line = r#"token=$(tidegate token --config a.toml --name 'An A') | A_B=1 x/tidegate serve # not this"#;
    let calls: Vec<_> = simple_commands(line).into_iter().filter_map(arguments).collect();
    assert_eq!(calls, [vec!["token", "--config", "a.toml", "--name", "An A"], vec!["serve"]]);
}

/// The names of all functions in the tests: Rust's and Python's.
fn test_functions() -> BTreeSet<String> {
    let mut files = files("rs");
    files.extend(self::files("py"));
    let is_test = |path: &PathBuf| {
        path.components()
            .any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")))
    };
    let lines = files
        .iter()
        .filter(|path| is_test(path))
        .flat_map(|path| read(path).lines().map(str::to_owned).collect::<Vec<String>>());
    lines
        .filter_map(|line| {
            let (_, rest) = line.split_once("fn ").or_else(|| line.split_once("def "))?;
            Some(rest.split(['(', '<']).next()?.to_owned())
        })
        .collect()
}

#[test]
fn the_lists_of_owasp_name_tests_that_exist() {
    let functions = test_functions();
    for heading in ["OWASP ASVS 5.0, V4", "OWASP WebSocket Security Cheat Sheet"] {
        let section = section("docs/security.md", heading);
        let rows: Vec<&str> =
            section.lines().filter(|line| line.starts_with('|')).skip(2).collect();
        assert!(rows.len() > 10, "{heading}");
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [_, text, shown_by] = cells[..] else { panic!("{row}") };
            let names: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
            assert!(!names.is_empty() || text.starts_with("Not applicable"), "{row}");
            for name in names {
                let exists = match name.contains('/') {
                    true => root().join(name).is_file(),
                    false => functions.contains(name),
                };
                assert!(exists, "no test {name}: {row}");
            }
        }
    }
}

/// Each row of the tables of faults names tests, alerts and events that exist.
#[test]
fn the_tables_of_faults_name_what_exists() {
    let functions = test_functions();
    let (alerts, events) = (read("deploy/prometheus/alerts.yml"), read("docs/logs.md"));
    let page = read("docs/reliability.md");
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|---"))
        .filter(|line| !line.starts_with("| fault |"))
        .collect();
    assert!(rows.len() > 25, "{} rows", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, _, said, _, shown_by] = cells[..] else { panic!("{row}") };
        let in_code = |cell: &str| -> Vec<String> {
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let tests = in_code(shown_by);
        assert!(!tests.is_empty(), "{row}");
        for name in tests {
            assert!(functions.contains(&name), "no test {name}: {row}");
        }
        for name in in_code(said) {
            let exists = match name.starts_with("Tidegate") {
                true => alerts.contains(&format!("alert: {name}\n")),
                false => events.contains(&format!("`{name}`")),
            };
            assert!(exists, "no alert or event {name}: {row}");
        }
    }
}
