//! The documentation keeps to the code: the protocol page has every code, and links lead somewhere.

use std::path::{Path, PathBuf};

use tidegate::protocol::{CloseReason, ErrorCode};

/// Every variant; a new one fails to compile in [`is_listed`] until it is here as well.
const CLOSE_REASONS: [CloseReason; 16] = [
    CloseReason::Normal,
    CloseReason::ProtocolError,
    CloseReason::BinaryRefused,
    CloseReason::InvalidUtf8,
    CloseReason::Flooding,
    CloseReason::MessageTooBig,
    CloseReason::InternalError,
    CloseReason::Restarting,
    CloseReason::BrokerGap,
    CloseReason::Overloaded,
    CloseReason::Unauthenticated,
    CloseReason::Disconnected,
    CloseReason::Forbidden,
    CloseReason::TooSlow,
    CloseReason::PongTimeout,
    CloseReason::TooManyConnections,
];

fn is_listed(reason: CloseReason) -> bool {
    use CloseReason::*;
    match reason {
        Normal | ProtocolError | BinaryRefused | InvalidUtf8 | Flooding | MessageTooBig
        | InternalError | Restarting | BrokerGap | Overloaded | Unauthenticated | Disconnected
        | Forbidden | TooSlow | PongTimeout | TooManyConnections => CLOSE_REASONS.contains(&reason),
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The first cells of the table rows below the heading `## {heading}`.
fn first_cells(page: &str, heading: &str) -> Vec<String> {
    let section = page
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.split('|').nth(1).unwrap_or_default().trim().replace('`', "")).collect()
}

#[test]
fn every_close_code_is_in_the_protocol_page_and_no_other() {
    assert!(CLOSE_REASONS.iter().all(|reason| is_listed(*reason)));
    let mut codes: Vec<String> = CLOSE_REASONS.iter().map(|r| r.code().to_string()).collect();
    codes.dedup();
    assert_eq!(first_cells(&read("docs/protocol.md"), "Close codes"), codes);
}

#[test]
fn every_error_code_is_in_the_protocol_page_and_no_other() {
    let mut documented = first_cells(&read("docs/protocol.md"), "Errors");
    let mut codes = ErrorCode::ALL.map(|code| code.label().to_owned()).to_vec();
    documented.sort();
    codes.sort();
    assert_eq!(documented, codes);
}

/// README.md, CHANGELOG.md and all of docs/.
fn pages() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| Path::new("docs").join(entry.unwrap().file_name()));
    docs.filter(|path| path.extension().is_some_and(|kind| kind == "md"))
        .chain(["README.md".into(), "CHANGELOG.md".into()])
        .collect()
}

/// The anchor that a forge gives to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().replace(' ', "-")
}

#[test]
fn relative_links_lead_somewhere() {
    let mut followed = 0;
    for page in pages() {
        let text = read(&page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let linked = match path {
                "" => page.clone(),
                path => page.parent().unwrap_or(Path::new("")).join(path),
            };
            assert!(root().join(&linked).exists(), "{}: {target}", page.display());
            if !fragment.is_empty() {
                let linked = read(&linked);
                let headings =
                    linked.lines().filter_map(|l| l.trim_start_matches('#').strip_prefix(' '));
                let found = headings.map(anchor).any(|anchor| anchor == fragment);
                assert!(found, "{}: {target}", page.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 10, "only {followed} links were found");
}

#[test]
fn the_config_in_the_readme_is_accepted() {
    let readme = read("README.md");
    let toml = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let toml = toml.replace("${JWT_SECRET}", "0123456789abcdef0123456789abcdef");
    let config =
        tidegate::config::Config::from_toml(&toml).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!((config.routes.len(), config.upstreams.len()), (1, 1));
}
