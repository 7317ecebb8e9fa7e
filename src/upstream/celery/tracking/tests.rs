use super::*;

fn ids(bytes: &[u8]) -> Vec<String> {
    let value = pickle::read(bytes).expect("a pickle");
    value.as_text_set().expect("a set").into_iter().map(str::to_owned).collect()
}

fn pickled(old: &[u8], id: &str) -> Vec<u8> {
    with_id(old, id, TrackFormat::Pickle)
}

fn listed(old: &[u8], id: &str) -> String {
    String::from_utf8(with_id(old, id, TrackFormat::Json)).expect("text")
}

#[test]
fn an_id_is_added_to_those_in_the_key() {
    let one = pickled(b"", "b");
    assert_eq!(ids(&one), ["b"]);
    assert_eq!(ids(&pickled(&one, "a")), ["a", "b"]);
    assert_eq!(ids(&pickled(&one, "b")), ["b"]);
    assert_eq!(ids(&pickled(b"no pickle", "a")), ["a"]);
    let many = pickle::write_text_set((0..MAX_IDS).map(|n| ["x", "y"][n % 2]).chain(["z"]));
    assert_eq!(ids(&pickled(&many, "a")), ["a", "x", "y", "z"]);
}

#[test]
fn a_cache_that_stores_json_has_a_list() {
    let one = listed(b"", "b");
    assert_eq!(one, r#"["b"]"#);
    assert_eq!(listed(one.as_bytes(), "a"), r#"["a","b"]"#);
    assert_eq!(listed(br#"["c"]"#, "c"), r#"["c"]"#);
    assert_eq!(listed(br#"["\u00e9"]"#, "b"), r#"["b","é"]"#);
    assert_eq!(listed(b"{}", "a"), r#"["a"]"#);
    let many: Vec<String> = (0..MAX_IDS).map(|number| format!("{number:03}")).collect();
    let many = listed(serde_json::to_string(&many).unwrap().as_bytes(), "x");
    let many: Vec<String> = serde_json::from_str(&many).unwrap();
    assert_eq!((many.len(), many[0].as_str()), (MAX_IDS, "001"));
}

#[test]
fn a_key_that_exists_keeps_its_format() {
    assert_eq!(pickled(br#"["b"]"#, "a"), br#"["a","b"]"#);
    assert_eq!(ids(&with_id(&pickled(b"", "b"), "a", TrackFormat::Json)), ["a", "b"]);
}
