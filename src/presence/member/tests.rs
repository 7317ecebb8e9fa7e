use super::*;

fn member(user_id: Option<UserId>, username: Option<&str>) -> Member {
    let username = username.map(Into::into);
    let connection_id = ConnectionId::random();
    Member { connection_id, user_id, username, connected_at: 1_764_000_000, events: true }
}

#[test]
fn members_convert_to_text_and_back() {
    for (user, name) in [
        (None, None),
        (Some(UserId::Integer(i64::MIN)), Some("ana")),
        (Some(UserId::Text("1".into())), Some("")),
        (Some(UserId::Text("a\nb\"\u{2028}".into())), Some("\n1\n")),
    ] {
        let member = member(user, name);
        let text = member.to_text();
        assert_eq!(Member::from_text(text.as_bytes()), Some(member), "{text:?}");
    }
}

#[test]
fn other_texts_are_rejected() {
    let text = member(Some(UserId::Integer(1)), Some("ana")).to_text();
    for end in 0..text.len() {
        // Some prefixes are valid members; none may panic.
        let _ = Member::from_text(&text.as_bytes()[..end]);
    }
    for other in [&b""[..], b"\xff", b"\n\n\n\n", b"zz\n1\n1\n\n", b"\xc3\xa9"] {
        assert_eq!(Member::from_text(other), None);
    }
}

#[test]
fn users_are_announced_by_name_and_anonymous_connections_by_id() {
    let event = |joined, member: &Member| {
        String::from_utf8(Change { joined, member: member.clone() }.event().to_vec()).unwrap()
    };
    let ana = member(Some(UserId::Integer(1)), Some("ana"));
    assert_eq!(event(true, &ana), r#"{"event":"join","user_id":1,"username":"ana"}"#);
    let nameless = member(Some(UserId::Text("1".into())), None);
    assert_eq!(event(false, &nameless), r#"{"event":"leave","user_id":"1","username":null}"#);
    let anonymous = member(None, None);
    let id = anonymous.connection_id;
    let expected =
        format!(r#"{{"event":"leave","user_id":null,"username":null,"connection_id":"{id}"}}"#);
    assert_eq!(event(false, &anonymous), expected);
}
