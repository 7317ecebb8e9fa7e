use super::*;
use crate::tls::Certificate;

fn certificates() -> ServerCertificates {
    let load = |name: &str| {
        let file = |extension: &str| {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/server_tls");
            std::fs::read_to_string(format!("{folder}/{name}.{extension}")).expect("a file")
        };
        Certificate::load(&file("pem"), &file("key"), 1_800_000_000).expect("a certificate")
    };
    ServerCertificates::new(vec![load("localhost"), load("wildcard")])
}

fn located(head: &str, port: u16) -> Result<String, Refusal> {
    answer(head.as_bytes(), &certificates(), port)
}

#[test]
fn requests_for_a_name_go_to_the_same_url_with_https() {
    let get = |target: &str, host: &str| {
        located(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"), 443)
    };
    for (target, host, expected) in [
        ("/", "first.test", "https://first.test/"),
        ("/a/b?c=d&e", "first.test:80", "https://first.test/a/b?c=d&e"),
        ("//evil.example/", "first.test", "https://first.test//evil.example/"),
        ("/", "FIRST.test", "https://first.test/"),
        ("/", "any.second.test", "https://any.second.test/"),
        ("http://second.test/x", "first.test", "https://second.test/x"),
        ("http://second.test", "first.test", "https://second.test/"),
        ("http://second.test?x", "first.test", "https://second.test/?x"),
    ] {
        assert_eq!(get(target, host).as_deref(), Ok(expected), "{target} at {host}");
    }
    let other_port = located("POST /x HTTP/1.1\r\nhost: first.test\r\n\r\n", 8443);
    assert_eq!(other_port.as_deref(), Ok("https://first.test:8443/x"));
}

#[test]
fn nobody_is_redirected_to_another_host() {
    for host in [
        "",
        "evil.example",
        "first.test.evil.example",
        "evil.example/.second.test",
        "evil/.second.test",
        "evil?.second.test",
        "evil#.second.test",
        "evil\\.second.test",
        "user@first.test",
        "@.second.test",
        "x y.second.test",
        "a.b.second.test",
        "127.0.0.1",
        "[::1]",
        ".second.test.",
        "first.test:80:80",
        "first.test:x",
    ] {
        let answered = located(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), 443);
        match host {
            // An empty label is the resolver's problem, and the domain is that of the certificate.
            ".second.test." => {}
            _ => assert!(answered.is_err(), "{host}: {answered:?}"),
        }
    }
    let target = "GET http://evil.example/ HTTP/1.1\r\nHost: first.test\r\n\r\n";
    assert_eq!(located(target, 443), Err(Refusal::UnknownHost));
}

#[test]
fn what_is_no_request_is_refused() {
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\nHost: first.test\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "CONNECT first.test:443 HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "GET https://first.test/ HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\nx: \x01\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\n",
    ] {
        assert_eq!(located(head, 443), Err(Refusal::Malformed), "{head:?}");
    }
    let too_many = format!("GET / HTTP/1.1\r\nHost: first.test\r\n{}\r\n", "x: 1\r\n".repeat(64));
    assert_eq!(located(&too_many, 443), Err(Refusal::Malformed));
}
