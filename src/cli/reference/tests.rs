use super::*;

#[test]
fn the_page_matches_the_definition() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
    let page = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(checked_in == page, "run the tests with UPDATE_DOCS=1 and review the changes");
}

#[test]
fn every_command_is_in_the_table_of_the_introduction() {
    let root = command_line();
    let rows: String = INTRODUCTION.lines().filter(|line| line.starts_with("| `")).collect();
    for command in root.get_subcommands() {
        assert!(rows.contains(&format!("`{}", command.get_name())), "{}", command.get_name());
    }
}
