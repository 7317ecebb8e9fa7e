use super::*;

#[test]
fn only_close_candidates_are_suggested() {
    for (word, expected) in [
        ("lisen", Some("listen")),
        ("lsiten", Some("listen")),
        ("time_out", Some("timeout")),
        ("compression", None),
        ("", None),
    ] {
        assert_eq!(nearest(word, ["timeout", "listen", "threads"]), expected, "{word}");
    }
    assert_eq!(nearest("listen", []), None);
}
