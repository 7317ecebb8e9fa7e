use super::*;

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn is_own(origin: &str, through_proxy: bool, list: &[(&'static str, &str)]) -> bool {
    let origin = Origin::parse(origin).unwrap_or_else(|| panic!("{origin}"));
    own_origins(&headers(list), through_proxy, "http").any(|own| own == origin)
}

#[test]
fn without_a_proxy_it_is_http_and_the_host_header() {
    for (host, origin, expected) in [
        ("app.test", "http://app.test", true),
        ("app.test", "http://app.test:80", true),
        ("app.test:80", "http://app.test", true),
        ("app.test:", "http://app.test", true),
        ("APP.test", "http://app.TEST", true),
        ("app.test:8000", "http://app.test:8000", true),
        ("[::1]:8000", "http://[::1]:8000", true),
        ("[0:0:0:0:0:0:0:1]", "http://[::1]", true),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", true),
        ("app.test", "https://app.test", false),
        ("app.test", "http://app.test:8000", false),
        ("app.test:8000", "http://app.test", false),
        ("app.test:443", "https://app.test", false),
        ("app.test", "http://sub.app.test", false),
        ("sub.app.test", "http://app.test", false),
        ("app.test", "http://app.test.evil.test", false),
        ("app.test", "capacitor://app.test", false),
        ("[::1]:8000", "http://[::1]", false),
        ("localhost", "http://127.0.0.1", false),
    ] {
        assert_eq!(is_own(origin, false, &[("host", host)]), expected, "{origin} at {host}");
    }
    assert!(!is_own("http://app.test", false, &[]));
    assert!(!is_own("http://app.test", false, &[("host", "user@app.test")]));
}

#[test]
fn only_a_trusted_proxy_says_what_the_client_asked_for() {
    let host = ("host", "10.0.0.1:8000");
    for (list, origin) in [
        (vec![("x-forwarded-host", "app.test")], "http://app.test"),
        (
            vec![("x-forwarded-host", "app.test"), ("x-forwarded-proto", "https")],
            "https://app.test",
        ),
        (vec![("x-forwarded-host", "a.test"), ("x-forwarded-proto", "wss")], "https://a.test"),
        (
            vec![("x-forwarded-host", "a.test, b"), ("x-forwarded-proto", "HTTPS,http")],
            "https://a.test",
        ),
        (
            vec![("x-forwarded-host", "a.test:8443"), ("x-forwarded-proto", "https")],
            "https://a.test:8443",
        ),
        (
            vec![
                ("x-forwarded-host", "a.test"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-port", "8443"),
            ],
            "https://a.test:8443",
        ),
        // A proxy behind another one may report its own port.
        (
            vec![
                ("x-forwarded-host", "a.test"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-port", "80"),
            ],
            "https://a.test",
        ),
        (vec![("x-forwarded-host", "[2001:db8::1]")], "http://[2001:db8::1]"),
    ] {
        let list = [&[host][..], &list].concat();
        assert!(is_own(origin, true, &list), "{origin} with {list:?}");
        assert!(!is_own(origin, false, &list), "{origin} with {list:?} of a stranger");
        assert!(is_own("http://10.0.0.1:8000", false, &list), "{list:?}");
        assert!(!is_own("http://evil.test", true, &list), "{list:?}");
    }
    let https = [("host", "app.test"), ("x-forwarded-proto", "https")];
    assert!(is_own("https://app.test", true, &https) && !is_own("http://app.test", true, &https));
    assert!(!is_own(
        "http://app.test",
        true,
        &[("host", "app.test"), ("x-forwarded-proto", "gopher")]
    ));
}
