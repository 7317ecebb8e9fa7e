use super::*;

#[test]
fn an_admin_port_is_a_bare_url() {
    for (text, expected) in [
        ("http://127.0.0.1:9000", Some(("127.0.0.1:9000", false))),
        ("http://gateway.svc:9000/", Some(("gateway.svc:9000", false))),
        ("http://[::1]:9000", Some(("[::1]:9000", false))),
        ("http://gateway", Some(("gateway:80", false))),
        ("https://gateway", Some(("gateway:443", true))),
        ("https://gateway:9000", Some(("gateway:9000", true))),
        ("ftp://gateway", None),
        ("http://gateway/readyz", None),
        ("http://u:p@gateway", None),
        ("gateway:9000", None),
        ("", None),
    ] {
        let expected = expected.map(|(text, has_tls)| Authority { text: text.to_owned(), has_tls });
        assert_eq!(parse_authority(text).ok(), expected, "{text}");
    }
}

#[test]
fn deadlines_are_positive_and_short() {
    assert_eq!(parse_deadline("500ms"), Ok(Duration::from_millis(500)));
    for invalid in ["0s", "2h", "0d", "2", "soon", ""] {
        assert!(parse_deadline(invalid).is_err(), "{invalid}");
    }
}

#[test]
fn lifetimes_have_a_number_and_a_unit() {
    for (text, seconds) in [("1s", 1), ("15m", 900), ("2h", 7200), ("366d", 31_622_400)] {
        assert_eq!(parse_lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    for text in
        ["", "s", "15", "0m", "-1s", "1.5h", "1 m", "1w", "500ms", "367d", "99999999999999999d"]
    {
        assert!(parse_lifetime(text).is_err(), "{text}");
    }
}
