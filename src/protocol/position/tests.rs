use super::*;

fn position(epoch: u64, offset: u64) -> Position {
    Position { epoch: Epoch::new(epoch).unwrap(), offset }
}

fn positioned(json: &str, position: Position) -> String {
    let (head, tail) = with_position(json, position);
    format!("{head}{tail}")
}

#[test]
fn only_payloads_of_the_script_have_a_position() {
    assert_eq!(Position::split(b"@1f:7:{}"), Some((position(0x1f, 7), &b"{}"[..])));
    assert_eq!(Position::split(b"@1f:7:a:b"), Some((position(0x1f, 7), &b"a:b"[..])));
    for plain in [
        &b"{\"event\":\"x\"}"[..],
        b"",
        b"@",
        b"@1f",
        b"@1f:7",
        b"@1f:0:{}",
        b"@0:1:{}",
        b"@:1:{}",
        b"@xyz:1:{}",
        b"@1f:-1:{}",
        b"@1f:9007199254740992:{}",
        b"@1f:99999999999999999999:{}",
        b"@11111111111111111:1:{}",
        b"@\xff:1:{}",
    ] {
        assert_eq!(Position::split(plain), None, "{}", String::from_utf8_lossy(plain));
    }
}

#[test]
fn the_offset_is_the_last_member_of_an_object() {
    for (json, expected) in [
        (r#"{"event":"x"}"#, r#"{"event":"x","offset":7}"#),
        (r#"{"offset":1, "a":{}}"#, r#"{"offset":1, "a":{},"offset":7}"#),
        ("{}", r#"{"offset":7}"#),
        ("{ }", r#"{ "offset":7}"#),
    ] {
        assert_eq!(positioned(json, position(1, 7)), expected);
    }
    let first = positioned(r#"{"a":1}"#, position(0xab, 1));
    assert_eq!(first, r#"{"a":1,"offset":1,"epoch":"ab"}"#);
}

#[test]
fn an_invalid_resume_point_is_unknown() {
    let at = Some(ResumePoint::At(position(0xab, 3)));
    assert_eq!(ResumePoint::read(Some("3"), Some("ab")), at);
    assert_eq!(ResumePoint::read(None, None), None);
    for (since, epoch) in [
        (Some("3"), None),
        (None, Some("ab")),
        (Some("x"), Some("ab")),
        (Some("-1"), Some("ab")),
        (Some("3"), Some("")),
        (Some("3"), Some("0")),
    ] {
        assert_eq!(ResumePoint::read(since, epoch), Some(ResumePoint::Unknown));
    }
}
