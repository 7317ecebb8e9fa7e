use super::*;

fn allows(pattern: &str, origin: &str) -> bool {
    Origin::parse(origin)
        .is_some_and(|origin| OriginPattern::parse(pattern).unwrap().matches(&origin))
}

const EXTENSION: &str = "chrome-extension://abcdefghijklmnopabcdefghijklmnop";

#[test]
fn look_alikes_are_refused() {
    for (pattern, origin, fits) in [
        ("https://app.example.com", "https://app.example.com", true),
        ("https://app.example.com", "https://APP.example.com:443", true),
        ("https://app.example.com", "http://app.example.com", false),
        ("https://app.example.com", "https://app.example.com:8443", false),
        ("https://app.example.com", "https://app.example.com.evil.test", false),
        ("https://app.example.com", "https://appXexample.com", false),
        ("https://app.example.com", "https://app.example.com@evil.test", false),
        ("https://app.example.com", "https://app.example.com/", false),
        ("https://app.example.com", "null", false),
        ("https://app.example.com", "", false),
        ("https://*.example.com", "https://a.b.example.com", true),
        ("https://*.example.com", "https://example.com", false),
        ("https://*.example.com", "https://evilexample.com", false),
        ("https://*.example.com", "https://.example.com", false),
        ("https://*.example.com", "https://..example.com", false),
        ("https://*.example.com", "https://a..example.com", false),
        ("https://*.example.com", "https://a.example.com.", false),
        ("http://localhost:*", "http://localhost:5173", true),
        ("http://localhost:*", "http://localhost", true),
        ("http://localhost:*", "http://localhost.evil.test:80", false),
        ("*://app.example.com", "https://app.example.com", true),
        ("*://app.example.com", "http://app.example.com", true),
        ("*://app.example.com", "http://app.example.com:80", true),
        ("*://app.example.com", "http://app.example.com:443", false),
        ("*://app.example.com", "https://app.example.com:80", false),
        ("*://app.example.com", "https://app.example.com:8443", false),
        ("*://app.example.com", "ftp://app.example.com", false),
        ("*://app.example.com", "chrome-extension://app.example.com", false),
        ("*://app.example.com", "*://app.example.com", false),
        ("*://app.example.com", "https://www.app.example.com", false),
        ("*://app.example.com", "https://app.example.com.evil.test", false),
        ("*://app.example.com", "null", false),
        ("*://app.example.com:80", "https://app.example.com:80", true),
        ("*://app.example.com:80", "http://app.example.com", true),
        ("*://app.example.com:80", "https://app.example.com", false),
        ("*://app.example.com:*", "https://app.example.com:8443", true),
        ("*://*.example.com", "http://a.b.example.com", true),
        ("*://*.example.com", "https://a.example.com:8443", false),
        ("*://*.example.com", "https://example.com", false),
        ("*://*.example.com", "https://evilexample.com", false),
        ("*://*.example.com:*", "http://a.example.com:3000", true),
        ("*://[::1]", "http://[::1]", true),
        ("*://[::1]", "http://[::1]:3000", false),
        ("*://[::1]:3000", "https://[::1]:3000", true),
        ("capacitor://localhost", "capacitor://localhost", true),
        ("capacitor://localhost", "ionic://localhost", false),
        ("capacitor://localhost", "http://localhost", false),
        ("capacitor://localhost", "capacitor://localhost:80", false),
        ("capacitor://localhost", "capacitor://localhost/", false),
        ("capacitor://localhost", "capacitor://localhost.evil.test", false),
        ("http://localhost", "capacitor://localhost", false),
        ("*://localhost", "capacitor://localhost", false),
        ("*://localhost:*", "tauri://localhost", false),
        ("tauri://localhost", "TAURI://LocalHost", true),
        ("app://localhost:3000", "app://localhost:3000", true),
        ("app://localhost:3000", "app://localhost", false),
        (EXTENSION, EXTENSION, true),
        (EXTENSION, "chrome-extension://bbcdefghijklmnopabcdefghijklmnop", false),
        (EXTENSION, "moz-extension://abcdefghijklmnopabcdefghijklmnop", false),
        (
            "moz-extension://c6e4b5a0-7d2f-4a41-9a50-0d6ac7a0f1d2",
            "moz-extension://c6e4b5a0-7d2f-4a41-9a50-0d6ac7a0f1d2",
            true,
        ),
    ] {
        assert_eq!(allows(pattern, origin), fits, "{pattern} {origin}");
    }
}

#[test]
fn tags_are_equal_where_origins_are() {
    let app = OriginTag::parse("https://app.example.com").unwrap();
    for (origin, same) in [
        ("https://APP.example.com:443", true),
        ("http://app.example.com", false),
        ("https://app.example.com:8443", false),
        ("https://app.example.com.evil.test", false),
        ("https://app.example.com/", false),
        ("null", false),
    ] {
        assert_eq!(OriginTag::parse(origin) == Some(app), same, "{origin}");
    }
}

#[test]
fn patterns_that_say_too_much_are_refused() {
    for text in [
        "*",
        "https://*",
        "https://*.com",
        "example.com",
        "https://a/b",
        "ftp://a.b",
        "*://*",
        "*://*:*",
        "*://*.com",
        "*://",
        "*://*.*.example.com",
        "http*://app.example.com",
        "*.example.com",
        "*://app.*",
    ] {
        assert!(OriginPattern::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_wrong_entry_is_explained() {
    for (text, why) in [
        ("null", "sandboxed"),
        ("example.com", "the scheme is missing"),
        ("https://app.example.com/", "without \"/\""),
        ("https://app.example.com/chat?x", "without \"/chat?x\""),
        ("ftp://app.example.com", "of the scheme \"ftp\""),
        ("wss://app.example.com", "of the scheme \"wss\""),
        ("file://home", "of the scheme \"file\""),
        ("my app://localhost", "of the scheme"),
        ("https://me@app.example.com", "user name"),
        ("https://", "the host is missing"),
        ("capacitor://", "the host is missing"),
        ("chrome-extension://*", "every app or extension"),
        ("moz-extension://*.a.b", "every app or extension"),
        ("capacitor://localhost:*", "every app or extension"),
        ("capacitor://local host", "malformed"),
        ("capacitor://localhost:port", "malformed"),
        ("capacitor://localhost:", "malformed"),
        ("capacitor://localhost:70000", "malformed"),
        ("https://app.*", "stands for the scheme"),
    ] {
        let error = OriginPattern::parse(text).expect_err(text);
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn an_origin_is_well_formed_to_the_last_byte() {
    let allowed = ["https://app.example.com", "http://127.0.0.1", "http://localhost:*"];
    let allowed = allowed.map(|pattern| OriginPattern::parse(pattern).unwrap());
    let is_allowed = |header: &str| {
        Origin::parse(header)
            .is_some_and(|origin| allowed.iter().any(|pattern| pattern.matches(&origin)))
    };
    for header in [
        "https://app.example.com",
        "https://app.example.com:443",
        "HTTPS://APP.example.com",
        "http://127.0.0.1:80",
        "http://localhost:3000",
    ] {
        assert!(is_allowed(header), "{header:?}");
    }
    for header in [
        "https://app.exa\tmple.com",
        "https://app.example.com\t",
        "\thttps://app.example.com",
        "https://app.example.com:",
        "https://app.example.com:0443",
        "https://app.example.com:443:443",
        "http://127.1",
        "http://0x7f.0.0.1",
        "http://2130706433",
        "http://0177.0.0.1",
        "http://localhost:\t3000",
        "http://localhost:03000",
        "https:app.example.com",
    ] {
        assert!(!is_allowed(header), "{header:?}");
    }
}
