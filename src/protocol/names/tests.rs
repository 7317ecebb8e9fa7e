use super::*;

#[test]
fn patterns_match_complete_names() {
    for (pattern, name, fits) in [
        ("chat_42", "chat_42", true),
        ("chat_42", "chat_421", false),
        ("chat_*", "chat_", true),
        ("chat_*", "chat_a_b", true),
        ("*", "", true),
        ("*-7", "ava-chat-7", true),
        ("*-7", "ava-chat-77", false),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
    ] {
        assert_eq!(ChannelPattern::new(pattern).matches(name), fits, "{pattern} {name}");
    }
}

#[test]
fn names_are_bounded_and_printable() {
    assert!(ChannelName::new("chat_42").is_ok());
    assert_eq!(ChannelName::new(""), Err(InvalidChannel::Empty));
    assert_eq!(ChannelName::new(&"x".repeat(256)), Err(InvalidChannel::TooLong));
    assert_eq!(ChannelName::new("a\nb"), Err(InvalidChannel::BadCharacter));
    assert_eq!(ChannelName::new("a b"), Err(InvalidChannel::BadCharacter));
    let name = serde_json::from_str::<ChannelName>("\"chat_42\"").unwrap();
    assert_eq!(serde_json::to_string(&name).unwrap(), "\"chat_42\"");
    assert!(serde_json::from_str::<ChannelName>("\"a b\"").is_err());
}

#[test]
fn group_names_are_those_that_a_channel_layer_accepts() {
    let longest = "x".repeat(99);
    for (name, fits) in [
        ("chat_42", true),
        ("a.B-9_", true),
        (longest.as_str(), true),
        (&"x".repeat(100), false),
        ("chat:42", false),
        ("chat_é", false),
        ("chat!42", false),
    ] {
        assert_eq!(ChannelName::new(name).unwrap().is_group_name(), fits, "{name}");
    }
}

#[test]
fn names_of_other_systems_are_reserved() {
    let reserved = ReservedChannels::new(["tg:".to_owned(), String::new()]);
    for (name, is_reserved, always) in [
        ("tg:control", true, false),
        ("tg:cancel", true, false),
        ("tg", false, false),
        ("__keyevent@0__:set", true, true),
        ("__keyspace@0__:ws_conn_token:x", true, true),
        ("__sentinel__:hello", true, true),
        ("asgi:group:chat_1", true, true),
        ("asgi__group__chat_1", true, true),
        ("asgispecific.x!y", true, true),
        ("celery-task-meta-1", true, true),
        ("/0.celery.pidbox", true, true),
        ("_kombu.binding.celery", true, true),
        ("asgi_news", false, false),
        ("_x", false, false),
        ("/x", false, false),
        ("chat___x", false, false),
    ] {
        let name = ChannelName::new(name).unwrap();
        assert_eq!(reserved.contains(&name), is_reserved, "{name}");
        assert_eq!(ReservedChannels::default().contains(&name), always, "{name}");
    }
}
