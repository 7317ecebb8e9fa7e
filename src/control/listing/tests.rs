use super::*;

#[test]
fn long_names_are_truncated_at_a_character() {
    assert_eq!(truncate(&"ä".repeat(400)).len(), MAX_TEXT_BYTES);
    assert_eq!(&*truncate("ana"), "ana");
}
