//! The table of all events in docs/logs.md, made from the code that logs them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str = "<!-- The table is made by `UPDATE_DOCS=1 cargo test --lib telemetry` -->\n";
const END: &str = "<!-- end of the table -->\n";

/// The fields that [`super::connection_event`] and [`super::message_event`] add.
const CONNECTION: [&str; 4] = ["connection", "request", "user", "channel"];
const MESSAGE: [&str; 2] = ["message_id", "task_id"];

/// Marks the arguments of a `message_event!`.
const MESSAGE_EVENT: &str = "message_event, ";

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

#[derive(Default)]
struct Described {
    levels: BTreeSet<usize>,
    audit: bool,
    fields: Vec<String>,
    text: String,
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "reference.rs" {
            found.push(path);
        }
    }
}

/// The arguments of the macro call that begins at `text`, behind its parenthesis.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    let mut found = vec![String::new()];
    for c in text.chars() {
        let in_text = quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' if !quoted && depth == 0 => break,
            ')' | ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        // A call that rustfmt has broken becomes one line.
        if in_text || !c.is_whitespace() || !found.last().unwrap().ends_with(' ') {
            found.last_mut().unwrap().push(if c == '\n' { ' ' } else { c });
        }
    }
    let found = found.into_iter().map(|argument| argument.trim().to_owned());
    found.filter(|argument| !argument.is_empty()).collect()
}

/// A string literal's value; one that only names a constant of the file has that one's.
fn literal(argument: &str, source: &str) -> Option<String> {
    let text = argument.strip_prefix('"')?.strip_suffix('"')?.replace("\\\"", "\"");
    let Some(name) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
        return Some(text);
    };
    let constant = format!("const {name}: &str = \"");
    let value = source.split(&constant).nth(1).unwrap_or_else(|| panic!("no {constant}"));
    Some(value.split_once("\";").unwrap().0.to_owned())
}

fn describe(call: &str, level: usize, source: &str, events: &mut BTreeMap<String, Described>) {
    let arguments = arguments(call);
    let value = |name: &str| {
        let given = arguments.iter().find_map(|a| a.strip_prefix(name)?.strip_prefix(" = "));
        given.map(|given| match given.strip_prefix('"') {
            Some(text) => text.trim_end_matches('"').to_owned(),
            None => source
                .split(&format!("const {given}: &str = \""))
                .nth(1)
                .and_then(|rest| Some(rest.split_once('"')?.0.to_owned()))
                .unwrap_or_else(|| panic!("{given} is not a text")),
        })
    };
    let name = value("event").unwrap_or_else(|| panic!("a line without an event: {arguments:?}"));
    let is_word = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    assert!(is_word, "{name}");
    let described = events.entry(name.clone()).or_default();
    described.levels.insert(level);
    let mut add = |field: &str| {
        if !described.fields.iter().any(|known| known == field) {
            described.fields.push(field.to_owned());
        }
    };
    let is_message = call.starts_with(MESSAGE_EVENT);
    if is_message || arguments.iter().any(|argument| argument == "fields") {
        CONNECTION.into_iter().for_each(&mut add);
    }
    if is_message {
        MESSAGE.into_iter().for_each(&mut add);
    }
    let mut text = None;
    for argument in &arguments {
        if let Some(literal) = literal(argument, source) {
            text = Some(literal);
        } else if let Some((field, _)) = argument.split_once(" = ") {
            if field != "event" {
                add(field);
            }
        } else if !argument.contains(':') && !argument.contains(' ') && argument != "fields" {
            add(argument.trim_start_matches(['%', '?']));
        }
    }
    described.audit |= arguments.iter().any(|argument| argument.starts_with("target: AUDIT"));
    let text = text.unwrap_or_else(|| panic!("{name} has no text"));
    assert!(
        described.text.is_empty() || described.text == text,
        "{name}: {text:?}, {:?}",
        described.text
    );
    described.text = text;
}

fn events() -> BTreeMap<String, Described> {
    let mut files = Vec::new();
    sources(&repository("src"), &mut files);
    let mut events = BTreeMap::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        for (level, word) in LEVELS.into_iter().enumerate() {
            let is_inside_a_word = |before: &str| before.ends_with(|c: char| c.is_alphanumeric());
            for (at, _) in source.match_indices(&format!("{word}!(")) {
                if !is_inside_a_word(&source[..at]) {
                    describe(&source[at + word.len() + 2..], level, &source, &mut events);
                }
            }
        }
        if file.ends_with("log/context.rs") {
            continue;
        }
        for (at, _) in source.match_indices("_event!(") {
            let (is_message, call) =
                (source[..at].ends_with("message"), source[at + 8..].trim_start());
            let (audit, call) = match call.strip_prefix("audit ") {
                Some(call) => (true, call),
                None => (false, call),
            };
            let (level, call) = call.split_once(',').unwrap();
            let level = LEVELS.iter().position(|known| *known == level).unwrap();
            let marker = if is_message { MESSAGE_EVENT } else { "" };
            let target = if audit { "target: AUDIT, " } else { "" };
            describe(&format!("{marker}{target}{call}"), level, &source, &mut events);
        }
    }
    events
}

fn table() -> String {
    let mut table = String::from("| event | level | fields | text |\n|---|---|---|---|\n");
    for (name, described) in events() {
        let levels: Vec<_> = described.levels.iter().map(|level| LEVELS[*level]).collect();
        let audit = if described.audit { ", audit" } else { "" };
        let fields: Vec<_> = described
            .fields
            .iter()
            .filter(|field| *field != "message_event")
            .map(|field| format!("`{field}`"))
            .collect();
        let (levels, fields) = (levels.join(", "), fields.join(", "));
        let text = &described.text;
        table += &format!("| `{name}` | {levels}{audit} | {fields} | {text} |\n");
    }
    table
}

#[test]
fn the_page_lists_the_events_of_the_code() {
    let path = repository("docs/logs.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the table begins");
    let (_, after) = rest.split_once(END).expect("the table ends");
    let made = format!("{before}{BEGIN}\n{}\n{END}{after}", table());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &made).unwrap();
    } else {
        assert!(made == page, "run the tests with UPDATE_DOCS=1 and look at what changed");
    }
}
