use super::*;

#[test]
fn types_are_bounded_in_number_and_length() {
    let channel = ChannelName::new("chat_1").unwrap();
    let mut types = OtherTypes::default();
    types.record(None, &channel);
    types.record(Some(&"ä".repeat(10_000)), &channel);
    for number in 0..2 * MAX_TYPES {
        types.record(Some(&number.to_string()), &channel);
    }
    assert_eq!(types.0.len(), MAX_TYPES);
    assert!(types.0.iter().all(|name| name.chars().count() <= MAX_CHARS));
}
