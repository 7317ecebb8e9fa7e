use super::*;

#[test]
fn frames_are_checked() {
    for (text, wrong) in [
        ("", InvalidFrame::NotJson),
        ("hello", InvalidFrame::NotJson),
        ("{\"message\":\"a\"} x", InvalidFrame::NotJson),
        ("[]", InvalidFrame::NotAnObject),
        ("\"message\"", InvalidFrame::NotAnObject),
        ("null", InvalidFrame::NotAnObject),
        (r#"{"message":"a","id":7}"#, InvalidFrame::BadId),
        (r#"{"message":"a","id":""}"#, InvalidFrame::BadId),
        (r#"{"type":"cancel"}"#, InvalidFrame::BadTaskId),
        (r#"{"type":"cancel","task_id":7}"#, InvalidFrame::BadTaskId),
        (r#"{"type":"cancel","task_id":""}"#, InvalidFrame::BadTaskId),
        (r#"{"message":"\ud83d"}"#, InvalidFrame::LoneSurrogate),
        (r#"{"message":"a","id":"\udc00"}"#, InvalidFrame::LoneSurrogate),
        (r#"{"message":"a","x":{"y":["\ud83d\ud83d\ude80"]}}"#, InvalidFrame::LoneSurrogate),
        (r#"{"message":"a","\ud83d":1}"#, InvalidFrame::LoneSurrogate),
        (r#"{"message":"a","x":{"\ud83d":1}}"#, InvalidFrame::LoneSurrogate),
        (r#"{"type":"\ud83d","message":"a"}"#, InvalidFrame::LoneSurrogate),
        (r#"{"type":"ping","x":"\ud83d"}"#, InvalidFrame::LoneSurrogate),
        (r#"{"type":"cancel","task_id":"\ud83d"}"#, InvalidFrame::LoneSurrogate),
        (r#"{"type":"refresh","token":"\ud83d"}"#, InvalidFrame::LoneSurrogate),
        (r#"{"type":"resume","since":8,"epoch":"\ud83d"}"#, InvalidFrame::LoneSurrogate),
    ] {
        assert_eq!(ClientFrame::parse(text).err(), Some(wrong), "{text}");
    }
    assert_eq!(InvalidFrame::LoneSurrogate.code(), ErrorCode::InvalidJson);
    assert!(ClientFrame::parse(r#"{"message":"\ud83d\ude80 \\ud83d"}"#).is_ok());
    let nested = "[".repeat(100_000);
    assert_eq!(ClientFrame::parse(&nested).err(), Some(InvalidFrame::NotJson));
}

#[test]
fn the_object_is_passed_on_unchanged() {
    let text = r#" {"message":" hi ", "n":1e40, "nested":{"a":[1,  2]},"id":"m-1"} "#;
    let Ok(ClientFrame::Message { text: message, id, data }) = ClientFrame::parse(text) else {
        panic!("not a message");
    };
    assert_eq!(message.as_deref(), Some("hi"));
    assert_eq!(id.as_deref(), Some("m-1"));
    assert_eq!(data.get(), text.trim());
}

/// Whether a message needs a text depends on its upstream.
#[test]
fn an_object_without_a_text_is_a_message_without_one() {
    for text in ["{}", r#"{"message":" \u00a0\n"}"#, r#"{"message":7}"#, r#"{"message":null}"#] {
        let frame = ClientFrame::parse(text);
        assert!(matches!(frame, Ok(ClientFrame::Message { text: None, .. })), "{text}: {frame:?}");
    }
}

#[test]
fn a_ping_is_a_ping_whatever_else_it_contains() {
    assert!(matches!(
        ClientFrame::parse(r#"{"message":"x","type":"ping"}"#),
        Ok(ClientFrame::Ping)
    ));
}

#[test]
fn a_refresh_is_read_before_any_message() {
    let long = "x".repeat(60_000);
    let long_refresh = format!(r#"{{"type":"refresh","token":"{long}"}}"#);
    for (text, token, jwt) in [
        (r#"{"type":"refresh","connection_token":"abc"}"#, Some("abc"), None),
        (r#"{"message":"m","token":"a.b.c","type":"refresh"}"#, None, Some("a.b.c")),
        (r#"{"type":"refresh","token":null,"connection_token":""}"#, Some(""), None),
        (r#"{"type":"refresh","token":"\u0061","id":7}"#, None, Some("a")),
        (&long_refresh, None, Some(long.as_str())),
    ] {
        let found = match ClientFrame::parse(text) {
            Ok(ClientFrame::Refresh(Renewal::ConnectionToken(token))) => (Some(token), None),
            Ok(ClientFrame::Refresh(Renewal::Jwt(jwt))) => (None, Some(jwt)),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!((found.0.as_deref(), found.1.as_deref()), (token, jwt), "{text}");
    }
    for text in [
        r#"{"type":"refresh"}"#,
        r#"{"type":"refresh","message":"m"}"#,
        r#"{"type":"refresh","token":7}"#,
        r#"{"type":"refresh","token":null}"#,
        r#"{"type":"refresh","token":["a"]}"#,
        r#"{"type":"refresh","token":"a","token":"b"}"#,
        r#"{"type":"refresh","token":"a","connection_token":"b"}"#,
    ] {
        assert_eq!(ClientFrame::parse(text).err(), Some(InvalidFrame::BadRefresh), "{text}");
    }
}

#[test]
fn credentials_are_not_shown() {
    for text in [
        r#"{"type":"refresh","connection_token":"sesame"}"#,
        r#"{"type":"refresh","token":"sesame"}"#,
    ] {
        let debug = format!("{:?}", ClientFrame::parse(text));
        assert!(debug.contains('…') && !debug.contains("sesame"), "{debug}");
    }
}
