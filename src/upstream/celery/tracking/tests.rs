use super::*;

fn ids(bytes: &[u8]) -> Vec<String> {
    let value = pickle::read(bytes).expect("a pickle");
    value.as_text_set().expect("a set").into_iter().map(str::to_owned).collect()
}

#[test]
fn an_id_is_added_to_those_in_the_key() {
    let one = with_id(b"", "b");
    assert_eq!(ids(&one), ["b"]);
    assert_eq!(ids(&with_id(&one, "a")), ["a", "b"]);
    assert_eq!(ids(&with_id(&one, "b")), ["b"]);
    assert_eq!(ids(&with_id(b"no pickle", "a")), ["a"]);
    let many = pickle::write_text_set((0..MAX_IDS).map(|n| ["x", "y"][n % 2]).chain(["z"]));
    assert_eq!(ids(&with_id(&many, "a")), ["a", "x", "y", "z"]);
}
