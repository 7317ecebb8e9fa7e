use super::*;

#[test]
fn tokens_are_well_formed_and_differ() {
    let (one, other) = (generate().unwrap(), generate().unwrap());
    assert!(is_well_formed(&one) && is_well_formed(&other));
    assert_ne!(one, other);
}

#[test]
fn nothing_else_is_a_token() {
    let good = "A".repeat(43);
    assert!(is_well_formed(&good));
    let wrong = [
        String::new(),
        "A".repeat(42),
        "A".repeat(44),
        "A".repeat(10_000),
        "A".repeat(42) + "=",
        "A".repeat(42) + "+",
        "A".repeat(42) + "\n",
        "A".repeat(42) + "*",
        "A".repeat(41) + "é",
    ];
    for token in wrong {
        assert!(!is_well_formed(&token), "{token}");
    }
}

#[test]
fn log_ids_are_the_head_of_the_sha256() {
    // `printf abc | sha256sum` begins with ba7816bf.
    assert_eq!(log_id("abc"), "ba7816bf");
}
