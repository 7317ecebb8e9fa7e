use super::*;

#[test]
fn the_definition_is_valid() {
    Cli::command().debug_assert();
    let version = Cli::command().render_long_version();
    assert!(version.starts_with("tidegate ") && version.contains("(build "), "{version}");
}

#[test]
fn wrong_usage_is_exit_code_two() {
    for arguments in [
        &["tidegate"][..],
        &["tidegate", "serve"],
        &["tidegate", "serve", "--config", "a.toml", "extra"],
        &["tidegate", "nothing"],
        &["tidegate", "token", "--config", "a.toml"],
        &["tidegate", "token", "--config", "a.toml", "--user", ""],
        &["tidegate", "token", "--config", "a.toml", "--user", "1", "--expires", "soon"],
        &["tidegate", "token", "--config", "a.toml", "--user", "1", "--channel", "a b"],
    ] {
        assert_eq!(Cli::try_parse_from(arguments).unwrap_err().exit_code(), 2, "{arguments:?}");
    }
    assert_eq!(Cli::try_parse_from(["tidegate", "--help"]).unwrap_err().exit_code(), 0);
}
