use super::*;

#[test]
fn the_minimal_file_is_a_config() {
    let text = minimal(DEFAULT);
    assert!(!text.contains('#') && text.lines().count() < 40, "{text}");
    let config = Config::from_toml(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!((config.routes.len(), config.upstreams.len()), (1, 1));
}

#[test]
fn tables_get_their_headings() {
    for (table, expected) in [
        ("server", "[server]"),
        ("engine.redis", "[engine.redis]"),
        ("route[12]", "[[route]]"),
        ("route[0].limits", "[route.limits]"),
        ("jwt.keys[1]", "[[jwt.keys]]"),
        ("upstream.a.tasks[0]", "[[upstream.a.tasks]]"),
    ] {
        assert_eq!(heading(table), expected);
    }
}

#[test]
fn tables_precede_their_sub_tables() {
    let tables = vec!["jwt.keys[0]", "jwt.keys[1]", "jwt", "route[0]", "route[0].limits"];
    let ordered = ["jwt", "jwt.keys[0]", "jwt.keys[1]", "route[0]", "route[0].limits"];
    assert_eq!(in_toml_order(tables), ordered);
}
