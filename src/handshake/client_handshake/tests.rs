use super::*;
use crate::handshake::tests::handshake;

fn forward(
    auth: &str,
    path: &str,
    headers: &[(&str, &str)],
    through_proxy: bool,
) -> ClientHandshake {
    let route = format!(
        "[[route]]\npath = \"/app/{{name}}\"\nauth = [{auth}]\nprotocol = \"pass\"\nupstream = \"app\"\n\
         [upstream.app]\nkind = \"websocket\"\nurl = \"ws://127.0.0.1:1\"\n"
    );
    let handshake = handshake("", &route);
    let mut request = Request::builder().uri(path).header("host", "example.com");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).unwrap();
    let peer = [192, 0, 2, 1].into();
    let address = ClientAddress { ip: peer, peer, through_proxy, has_tls: false };
    let Some(crate::handshake::Found::Route(route, _)) = handshake.find_route("/app/x") else {
        panic!("no route")
    };
    handshake.for_upstream(&route, &request, address)
}

fn values<'h>(handshake: &'h ClientHandshake, name: &str) -> Vec<&'h str> {
    handshake.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn end_to_end_headers_pass() {
    let headers = [
        ("origin", "https://app.example.com"),
        ("user-agent", "browser"),
        ("cookie", "sessionid=1; theme=\"dark\""),
        ("cookie", "second=2"),
        ("authorization", "Basic dTpw"),
        ("accept-language", "de"),
        ("sec-websocket-protocol", "mqtt, soap"),
        ("sec-websocket-protocol", "wamp"),
    ];
    let passed = forward("\"anonymous\"", "/app/x?a=1&b=%20&c", &headers, false);
    assert_eq!(passed.path, "/app/x");
    assert_eq!(passed.query.as_deref(), Some("a=1&b=%20&c"));
    assert_eq!(values(&passed, "host"), ["example.com"]);
    assert_eq!(values(&passed, "origin"), ["https://app.example.com"]);
    assert_eq!(values(&passed, "cookie"), ["sessionid=1; theme=\"dark\"", "second=2"]);
    assert_eq!(values(&passed, "authorization"), ["Basic dTpw"]);
    assert_eq!(values(&passed, "accept-language"), ["de"]);
    assert_eq!(values(&passed, "sec-websocket-protocol"), ["mqtt, soap, wamp"]);
}

#[test]
fn headers_of_the_connection_and_of_strangers_do_not_pass() {
    let headers = [
        ("connection", "Upgrade, X-Hop"),
        ("upgrade", "websocket"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("content-length", "0"),
        ("sec-websocket-key", "AQIDBAUGBwgJCgsMDQ4PEC=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("x-tidegate-user-id", "1"),
        ("X_Tidegate_User_Id", "1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-user", "root"),
        ("forwarded", "for=10.0.0.1"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let passed = forward("\"anonymous\"", "/app/x", &headers, false);
    let mut names: Vec<_> = passed.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let set =
        ["forwarded", "host", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    assert_eq!(names, [&set[..], &["x-request-id"]].concat());
    assert_eq!(values(&passed, "x-forwarded-for"), ["192.0.2.1"]);
    assert_eq!(values(&passed, "forwarded"), ["for=192.0.2.1;host=\"example.com\";proto=http"]);
}

#[test]
fn a_trusted_proxy_is_believed() {
    let headers = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=203.0.113.9;proto=https"),
        ("x-tidegate-user-id", "1"),
    ];
    let passed = forward("\"anonymous\"", "/app/x", &headers, true);
    assert_eq!(values(&passed, "x-forwarded-for"), ["203.0.113.9, 192.0.2.1"]);
    assert_eq!(values(&passed, "x-forwarded-proto"), ["https"]);
    let expected = "for=203.0.113.9;proto=https, for=192.0.2.1;host=\"example.com\";proto=http";
    assert_eq!(values(&passed, "forwarded"), [expected]);
    assert!(values(&passed, "x-tidegate-user-id").is_empty());
}

#[test]
fn connection_tokens_never_pass() {
    for auth in ["\"connection_token\"", "\"anonymous\"", "\"cookie\""] {
        for (query, expected) in [
            ("?connection_token=secret", None),
            ("?a=1&connection_token=secret&b=2", Some("a=1&b=2")),
            ("?connection_token=secret&connection_token=secret", None),
            ("?connection%5Ftoken=secret&x", Some("x")),
            ("?connection_tok%65n=secret", None),
            ("?xconnection_token=mine", Some("xconnection_token=mine")),
        ] {
            let headers = [(
                "sec-websocket-protocol",
                "tidegate.v1, mqtt, tidegate.token.secret, TideGate.Token.secret, tidegate.tokensecret",
            )];
            let passed = forward(auth, &format!("/app/x{query}"), &headers, false);
            assert_eq!(passed.query.as_deref(), expected, "{query}");
            assert_eq!(values(&passed, "sec-websocket-protocol"), ["mqtt"]);
        }
        let only = [("sec-websocket-protocol", "tidegate.v1, tidegate.token.secret")];
        let passed = forward(auth, "/app/x", &only, false);
        assert!(!passed.headers.contains_key("sec-websocket-protocol"));
    }
}

#[test]
fn jwts_do_not_pass_where_the_route_takes_them() {
    let headers = [
        ("cookie", "a=1; access_token=secret;b=2"),
        ("cookie", "access_token = secret"),
        ("cookie", "c=3;  d=4"),
        ("authorization", "Bearer secret"),
        ("authorization", "bEARER\tsecret"),
        ("authorization", "Basic dTpw"),
    ];
    let path = "/app/x?token=secret&t=1";
    let passed = forward("\"cookie\", \"bearer\", \"query\"", path, &headers, false);
    assert_eq!(values(&passed, "cookie"), ["a=1; b=2", "c=3;  d=4"]);
    assert_eq!(values(&passed, "authorization"), ["Basic dTpw"]);
    assert_eq!(passed.query.as_deref(), Some("t=1"));
    // They are the application's where the route does not take them.
    let passed = forward("\"connection_token\"", path, &headers, false);
    assert_eq!(values(&passed, "cookie")[0], "a=1; access_token=secret;b=2");
    assert_eq!(values(&passed, "authorization").len(), 3);
    assert_eq!(passed.query.as_deref(), Some("token=secret&t=1"));
}

#[test]
fn a_token_in_a_url_that_a_header_repeats_is_removed() {
    let headers = [
        ("referer", "https://example.com/app/?%74oken=secret&a=1"),
        ("x-original-url", "/app/x?connection_token=secret"),
        ("x-forwarded-uri", "/app/x?b=2&token=secret"),
    ];
    let passed = forward("\"query\"", "/app/x?token=secret", &headers, true);
    assert_eq!(passed.query, None);
    assert_eq!(values(&passed, "referer"), ["https://example.com/app/?a=1"]);
    assert_eq!(values(&passed, "x-original-url"), ["/app/x"]);
    assert_eq!(values(&passed, "x-forwarded-uri"), ["/app/x?b=2"]);
    // Where the gateway takes no JWT from the query, `token` is the application's.
    let passed = forward("\"cookie\"", "/app/x", &headers[..1], false);
    assert_eq!(values(&passed, "referer"), [headers[0].1]);
}
