//! Modules of `src` import lower ranks only: never a higher rank, never a sibling of the same rank.
//!
//! The ranks are those of the table in `docs/architecture.md`. Unit tests inside `src` keep to the same
//! rule as the code beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The rank of each top-level module.
type Ranks = BTreeMap<String, u32>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust file of the library, relative to the repository. `main.rs` is the binary, a crate of its
/// own that sees the library's public modules only; `lib.rs` declares the modules and has no rank.
fn library_files() -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::from("src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.retain(|path| path != Path::new("src/main.rs") && path != Path::new("src/lib.rs"));
    files.sort();
    files
}

/// Reads the rows `| 4 | `hub`, `leases` | … |` of the section "Modules and ranks".
fn ranks(page: &str) -> Ranks {
    let (_, section) = page.split_once("\n## Modules and ranks\n").expect("a section on ranks");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut ranks = Ranks::new();
    for line in section.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, rank, modules, ..] = cells[..] else { continue };
        let Ok(rank) = rank.parse() else { continue };
        for module in modules.split('`').skip(1).step_by(2) {
            let previous = ranks.insert(module.to_owned(), rank);
            assert_eq!(previous, None, "the table names `{module}` twice");
        }
    }
    ranks
}

/// The path of a file's module: `src/broker/history/mod.rs` is `broker`, `history`.
fn module_path(file: &Path) -> Vec<String> {
    let file = file.strip_prefix("src").expect("a file of src").with_extension("");
    let mut path: Vec<_> =
        file.iter().map(|part| part.to_str().expect("a name in UTF-8").to_owned()).collect();
    if path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    path
}

/// An identifier, `::` or a single other character, with the number of its line.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Token<'a> {
    line: usize,
    text: &'a str,
}

impl Token<'_> {
    fn is_identifier(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

/// Splits Rust source into tokens, without comments, lifetimes and the contents of literals.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut line, mut rest) = (Vec::new(), 1, source);
    while !rest.is_empty() {
        let length = skipped_length(rest);
        if length == 0 {
            let length = token_length(rest);
            tokens.push(Token { line, text: &rest[..length] });
            rest = &rest[length..];
        } else {
            line += rest[..length].matches('\n').count();
            rest = &rest[length..];
        }
    }
    tokens
}

fn identifier_length(text: &str) -> usize {
    text.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(text.len())
}

fn token_length(text: &str) -> usize {
    if text.starts_with("::") {
        return 2;
    }
    let first = text.chars().next().map_or(0, char::len_utf8);
    identifier_length(text).max(first)
}

/// The length of the white space, comment or literal that `text` starts with; 0 where it is a token.
fn skipped_length(text: &str) -> usize {
    let end_of = |end: &str, from: usize| {
        text[from..].find(end).map_or(text.len(), |found| from + found + end.len())
    };
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment_length(text);
    }
    if let Some(raw) = ["r", "br", "cr"].iter().find_map(|prefix| text.strip_prefix(prefix)) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let opened = text.len() - raw.len() + hashes + 1;
            return end_of(&format!("\"{}", "#".repeat(hashes)), opened);
        }
    }
    let literal = text.strip_prefix('b').or_else(|| text.strip_prefix('c')).unwrap_or(text);
    let prefix = text.len() - literal.len();
    if literal.starts_with('"') {
        return prefix + quoted_length(literal, '"');
    }
    if let Some(inner) = literal.strip_prefix('\'') {
        let mut characters = inner.chars();
        let (first, second) = (characters.next(), characters.next());
        return match first == Some('\\') || second == Some('\'') {
            true => prefix + quoted_length(literal, '\''),
            false => prefix + 1 + identifier_length(inner),
        };
    }
    text.len() - text.trim_start().len()
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Block comments nest.
fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// A top-level module that a path names, and the line where it does.
#[derive(Debug, PartialEq)]
struct Import {
    line: usize,
    module: String,
}

/// Every top-level module that the paths of a file name, its own included: those that start with
/// `crate`, and those that reach the root of the crate with `super`.
struct Imports<'a> {
    tokens: Vec<Token<'a>>,
    found: Vec<Import>,
}

impl<'a> Imports<'a> {
    /// Reads `source`, the file of the module at `module`.
    fn read(source: &'a str, module: &[String]) -> Vec<Import> {
        let mut imports = Self { tokens: tokens(source), found: Vec::new() };
        let mut module = module.to_vec();
        // For each open brace, whether it is the body of an inline module.
        let mut braces = Vec::new();
        let mut at = 0;
        while at < imports.tokens.len() {
            let previous = at.checked_sub(1).map(|at| imports.text(at)).unwrap_or_default();
            match imports.text(at) {
                "{" => {
                    let is_module = at > 1 && imports.text(at - 2) == "mod";
                    if is_module {
                        module.push(previous.to_owned());
                    }
                    braces.push(is_module);
                }
                "}" if braces.pop() == Some(true) => {
                    module.pop();
                }
                "crate" | "super" if previous != "::" && imports.text(at + 1) == "::" => {
                    at = imports.follow(at, module.clone());
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        imports.found
    }

    fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    /// Follows the path or `use` tree at `at`, seen from the module `base`, to its end.
    fn follow(&mut self, mut at: usize, mut base: Vec<String>) -> usize {
        loop {
            match self.text(at) {
                "crate" => base.clear(),
                "super" => drop(base.pop()),
                "self" if !base.is_empty() => {}
                "{" => return self.follow_group(at + 1, &base),
                name => {
                    if base.is_empty() {
                        self.found.extend(
                            self.tokens
                                .get(at)
                                .map(|token| Import { line: token.line, module: name.to_owned() }),
                        );
                    }
                    if !self.tokens.get(at).is_some_and(Token::is_identifier) {
                        return at + 1;
                    }
                    base.push(name.to_owned());
                }
            }
            if self.text(at + 1) != "::" {
                return at + 1;
            }
            at += 2;
        }
    }

    /// Follows each branch of the group whose first token is at `at`, to behind its closing brace.
    fn follow_group(&mut self, mut at: usize, base: &[String]) -> usize {
        loop {
            match self.text(at) {
                "" => return at,
                "}" => return at + 1,
                "," => at += 1,
                // `as name`
                "as" => at += 2,
                _ => at = self.follow(at, base.to_vec()),
            }
        }
    }
}

/// What is wrong with the imports of the module at `module`, whose file reads `source`.
fn mistakes(file: &Path, source: &str, module: &[String], ranks: &Ranks) -> Vec<String> {
    let own = &module[0];
    let mut mistakes = Vec::new();
    for Import { line, module: imported } in Imports::read(source, module) {
        let why = match (ranks.get(own), ranks.get(&imported)) {
            _ if *own == imported => continue,
            (Some(own), Some(imported)) if own > imported => continue,
            (Some(own), Some(imported)) if own == imported => format!("both have rank {own}"),
            (Some(own), Some(imported)) => format!("rank {own} must not import rank {imported}"),
            (None, _) => format!("`{own}` has no rank"),
            (_, None) => format!("`{imported}` has no rank"),
        };
        mistakes.push(format!("{}:{line}: `{own}` imports `{imported}`: {why}", file.display()));
    }
    mistakes
}

fn ranks_of_the_architecture() -> Ranks {
    ranks(&read(Path::new("docs/architecture.md")))
}

#[test]
fn modules_import_lower_ranks_only() {
    let ranks = ranks_of_the_architecture();
    let files = library_files();
    assert!(files.len() > 100, "only {} files in src", files.len());
    let mistakes: Vec<String> = files
        .iter()
        .flat_map(|file| mistakes(file, &read(file), &module_path(file), &ranks))
        .collect();
    assert!(mistakes.is_empty(), "{} forbidden imports:\n{}", mistakes.len(), mistakes.join("\n"));
}

#[test]
fn the_table_of_ranks_names_the_modules_of_the_library() {
    let source = read(Path::new("src/lib.rs"));
    let tokens = tokens(&source);
    let mut modules: Vec<&str> = tokens
        .windows(3)
        .filter(|three| three[0].text == "mod" && three[2].text == ";")
        .map(|three| three[1].text)
        .chain(["main"])
        .collect();
    modules.sort_unstable();
    let ranks = ranks_of_the_architecture();
    let ranked: Vec<&str> = ranks.keys().map(String::as_str).collect();
    assert_eq!(ranked, modules, "docs/architecture.md (left), src/lib.rs and main (right)");
}

mod the_parser {
    use super::*;

    /// The top-level modules that `source` names, as the file of the module `broker::history`.
    fn imports(source: &str) -> Vec<(usize, String)> {
        let module = ["broker".to_owned(), "history".to_owned()];
        let imports = Imports::read(source, &module);
        imports.into_iter().map(|import| (import.line, import.module)).collect()
    }

    fn names(source: &str) -> Vec<String> {
        imports(source).into_iter().map(|(_, module)| module).collect()
    }

    #[test]
    fn reads_the_table() {
        let page = "# A\n## Modules and ranks\n\n| rank | module | owns |\n|---|---|---|\n\
                    | 10 | `main`, `cli` | the `args` |\n| 1 | `protocol` | ids |\n\n## Next\n| 3 | `x` |\n";
        let expected = [("cli", 10), ("main", 10), ("protocol", 1)];
        assert_eq!(ranks(page), expected.map(|(name, rank)| (name.to_owned(), rank)).into());
    }

    #[test]
    fn knows_the_module_of_a_file() {
        assert_eq!(module_path(Path::new("src/leases.rs")), ["leases"]);
        assert_eq!(module_path(Path::new("src/broker/mod.rs")), ["broker"]);
        assert_eq!(
            module_path(Path::new("src/broker/history/redis.rs")),
            ["broker", "history", "redis"]
        );
    }

    #[test]
    fn finds_imports_and_paths_in_code() {
        assert_eq!(names("use crate::hub::Hub;"), ["hub"]);
        assert_eq!(names("pub(crate) use crate::hub;"), ["hub"]);
        assert_eq!(
            names("fn f(hub: &crate::hub::Hub) -> crate::socket::Size { todo!() }"),
            ["hub", "socket"]
        );
        assert_eq!(names("crate::hub::Hub { size: crate::socket::SIZE }"), ["hub", "socket"]);
        assert_eq!(names("macro_rules! m { () => { $crate::telemetry::count() } }"), ["telemetry"]);
        assert_eq!(names("use crate::*; use crate::{self as root};"), ["*", "self"]);
    }

    #[test]
    fn finds_each_branch_of_a_group_with_its_line() {
        let source =
            "use crate::{\n    hub::{Hub, part::{self, Part}},\n    leases as l, socket,\n};\n";
        let expected = [(2, "hub"), (3, "leases"), (3, "socket")];
        assert_eq!(imports(source), expected.map(|(line, name)| (line, name.to_owned())));
    }

    #[test]
    fn finds_supers_that_leave_their_module() {
        assert_eq!(names("use super::Broker; use super::{core, redis};"), [] as [&str; 0]);
        assert_eq!(names("use super::super::hub::Hub;"), ["hub"]);
        assert_eq!(names("use super::{super::hub::Hub, core};"), ["hub"]);
        assert_eq!(names("mod tests { use super::super::core; }"), [] as [&str; 0]);
        assert_eq!(
            names("mod tests { use super::super::super::hub; } use super::super::socket;"),
            ["hub", "socket"]
        );
    }

    #[test]
    fn ignores_comments_literals_and_visibility() {
        assert_eq!(
            names(
                "// crate::a::A\n/* crate::b /* crate::c */ crate::d */ pub(crate) fn f<'a>() {}\n\
                 const A: &str = \"crate::e \\\" crate::f\"; const B: &str = r#\"crate::g \" crate::h\"#;\n\
                 const C: [char; 3] = ['\"', '\\'', '{']; const D: &[u8] = b\"crate::i\";\n\
                 use crate::hub::Hub;"
            ),
            ["hub"]
        );
    }

    #[test]
    fn forbidden_imports_are_named_with_file_line_and_modules() {
        let ranks: Ranks = [("hub", 4), ("leases", 4), ("broker", 5), ("socket", 3)]
            .map(|(name, rank)| (name.to_owned(), rank))
            .into();
        let source = "use crate::broker::Broker;\nuse crate::{leases, socket};\nuse crate::hub::Part;\n\
                      fn f() { crate::unknown::g() }\n";
        let file = Path::new("src/hub/part.rs");
        assert_eq!(
            mistakes(file, source, &module_path(file), &ranks),
            [
                "src/hub/part.rs:1: `hub` imports `broker`: rank 4 must not import rank 5",
                "src/hub/part.rs:2: `hub` imports `leases`: both have rank 4",
                "src/hub/part.rs:4: `hub` imports `unknown`: `unknown` has no rank",
            ]
        );
    }
}
/// Unit tests of the module `a::b` stand in `src/a/b/tests.rs`, so that a file of code holds code only
/// and everybody knows where its tests are. (For tests/structure.rs; it uses `root`, `tokens` and `library_files`.)
#[test]
fn unit_tests_stand_in_files_of_their_own() {
    let mut mistakes = Vec::new();
    for file in library_files() {
        let source = read(&file);
        let tokens = tokens(&source);
        for three in tokens.windows(3) {
            let [first, second, third] = [0, 1, 2].map(|at| three[at].text);
            let is_inline = first == "mod" && second.contains("test") && third == "{";
            let is_path = first == "#" && second == "[" && third == "path";
            if is_inline || is_path {
                mistakes.push(format!("{}:{}", file.display(), three[0].line));
            }
        }
        let is_named_otherwise = file.to_str().is_some_and(|name| name.ends_with("_tests.rs"));
        if is_named_otherwise {
            mistakes.push(file.display().to_string());
        }
    }
    assert!(mistakes.is_empty(), "tests belong in MODULE/tests.rs:\n{}", mistakes.join("\n"));
}
