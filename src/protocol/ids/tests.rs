use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use super::*;

#[test]
fn a_user_id_is_the_same_as_a_number_and_as_a_text() {
    let hash = |user: &UserId| BuildHasherDefault::<DefaultHasher>::new().hash_one(user);
    for id in [7, 0, -7, 70_000, i64::MAX, i64::MIN] {
        let (number, text) = (UserId::Integer(id), UserId::Text(id.to_string().into()));
        for (one, other) in [(&number, &text), (&text, &number), (&text, &text.clone())] {
            assert_eq!(one, other);
            assert_eq!(hash(one), hash(other));
        }
    }
    for other in
        ["70", "07", "+7", "-7", " 7", "7.0", "x", "", "-", "-0", "00", "9223372036854775808"]
    {
        let other = UserId::Text(other.into());
        for number in [UserId::Integer(7), UserId::Integer(0)] {
            assert_ne!(number, other);
            assert_ne!(other, number);
        }
    }
}

#[test]
fn a_written_user_id_is_a_number_in_its_usual_form_only() {
    for (text, expected) in [("7", 7), ("-7", -7), ("0", 0)] {
        assert!(matches!(UserId::from_text(text), Some(UserId::Integer(id)) if id == expected));
    }
    for text in ["007", "+7", "-0", "7.0", "ana", "9223372036854775808"] {
        assert!(matches!(UserId::from_text(text), Some(UserId::Text(id)) if *id == *text));
    }
    assert!(UserId::from_text("").is_none());
    assert!(UserId::from_text(UserId::ANONYMOUS).is_none());
}

#[test]
fn a_connection_id_is_parsed_as_it_is_written() {
    let id = ConnectionId::random();
    assert_eq!(ConnectionId::parse(&id.to_string()), Some(id));
    assert_eq!(ConnectionId::parse(&"0".repeat(31)), None);
    assert_eq!(ConnectionId::parse(&"0".repeat(33)), None);
    assert_eq!(ConnectionId::parse(&format!("+{}", "0".repeat(31))), None);
    assert_eq!(ConnectionId::parse("c3d4"), None);
}
