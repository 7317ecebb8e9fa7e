use super::*;

fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, value.as_bytes());
    }
    request.body(()).unwrap()
}

#[test]
fn connection_tokens_come_by_query_or_subprotocol() {
    let with_token = [("sec-websocket-protocol", "tidegate.v1, tidegate.token.abc")];
    let in_two_headers = [
        ("sec-websocket-protocol", "tidegate.token.abc"),
        ("sec-websocket-protocol", "tidegate.v1"),
    ];
    const V1: Option<&str> = Some("tidegate.v1");
    for (uri, headers, token, selected) in [
        ("/ws/", &[] as &[_], None, None),
        ("/ws/?token=abc", &[], None, None),
        ("/ws/?a=b&connection_token=tok%2Den", &[], Some("tok-en"), None),
        ("/ws/?connection%5Ftoken=abc", &[], Some("abc"), None),
        ("/ws/?connection_token=", &[], Some(""), None),
        ("/ws/?connection_token", &[], Some(""), None),
        ("/ws/", &with_token, Some("abc"), Some("tidegate.v1")),
        ("/ws/", &in_two_headers, Some("abc"), Some("tidegate.v1")),
        ("/ws/", &[("sec-websocket-protocol", "tidegate.token.")], Some(""), None),
        ("/ws/", &[("sec-websocket-protocol", "chat")], None, None),
        ("/ws/?connection_token=abc", &with_token, Some("abc"), Some("tidegate.v1")),
        // What looks like a token is one, and malformed.
        ("/ws/", &[("sec-websocket-protocol", "tidegate.v1, tidegate.token")], Some(""), V1),
        ("/ws/", &[("sec-websocket-protocol", "Tidegate.Token.abc")], Some(""), None),
        ("/ws/", &[("sec-websocket-protocol", "tidegate.token:abc")], Some(""), None),
        (
            "/ws/",
            &[("sec-websocket-protocol", "tidegate.v1, \"tidegate.token.abc\"")],
            Some(""),
            V1,
        ),
        ("/ws/", &[("sec-websocket-protocol", "tidegate.v1; tidegate.token.abc")], Some(""), None),
        ("/ws/", &[("sec-websocket-protocol", "tidegate.v1, x tidegate.token.abc")], Some(""), V1),
        ("/ws/", &[("sec-websocket-protocol", "tidegate.token.a b")], Some("a b"), None),
        ("/ws/", &[("sec-websocket-protocol", "tidegate.token.é")], Some(""), None),
        ("/ws/", &[("sec-websocket-protocol", "é")], Some(""), None),
        // Two different tokens are refused.
        ("/ws/?connection_token=other", &with_token, Some(""), Some("tidegate.v1")),
        ("/ws/?connection_token=a&connection_token=b", &[], Some(""), None),
        ("/ws/?connection_token=a&connection_token=", &[], Some(""), None),
    ] {
        let request = request(uri, headers);
        let offered = OfferedCredentials::read(&request);
        assert_eq!(offered.connection_token().as_deref(), token, "{uri} {headers:?}");
        assert_eq!(offered.selected_subprotocol().as_deref(), selected, "{uri} {headers:?}");
    }
}

#[test]
fn malformed_bearers_are_returned() {
    for (values, found) in [
        (&[] as &[&str], None),
        (&["Basic dGVzdA=="], None),
        (&["bearer  tok"], Some("tok")),
        (&["Bearer"], Some("")),
        (&["Bearer é"], Some("é")),
        (&["Bearer\ttok"], Some("")),
        (&["Bearer=tok"], Some("")),
        (&["bearer:tok"], Some("")),
        (&["Bearer, Basic dGVzdA=="], Some("")),
        (&["Bearers tok"], None),
        (&[""], None),
        (&["a.b.c"], Some("")),
        (&["\"Bearer tok\""], Some("")),
        (&["=tok"], Some("")),
        (&["Basic dGVzdA==", "Bearer tok"], Some("tok")),
        (&["Bearer a", "Bearer a"], Some("")),
        // Only spaces stand between the scheme and the token.
        (&["Bearer tok\u{a0}"], Some("tok\u{a0}")),
        (&["Bearer \u{2003}tok"], Some("\u{2003}tok")),
    ] {
        let headers: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
        assert_eq!(bearer(request("/", &headers).headers()), found, "{values:?}");
    }
}

#[test]
fn cookies_are_found_by_their_whole_name() {
    for (header, found) in [
        ("access_token=jwt", Some("jwt")),
        ("a=1; access_token=jwt; b=2", Some("jwt")),
        ("a=1;access_token=\"jwt\"", Some("jwt")),
        ("access_token=\"jwt", Some("\"jwt")),
        ("access_token=jwt\"", Some("jwt\"")),
        ("access_token=\"\"jwt\"\"", Some("\"jwt\"")),
        ("access_token=\"", Some("\"")),
        ("access_token=\"\"", Some("")),
        ("city=Köln; access_token=a=b", Some("a=b")),
        ("access_token=; access_token=jwt", Some("jwt")),
        ("access_token = jwt ; a=1", Some("jwt")),
        ("access_token=", None),
        ("access_token", None),
        ("xaccess_token=jwt; Access_Token=jwt", None),
    ] {
        let request = request("/", &[("cookie", header)]);
        assert_eq!(cookie(request.headers(), "access_token"), found, "{header}");
    }
    let request = request("/", &[("cookie", "a=1"), ("cookie", "access_token=jwt")]);
    assert_eq!(cookie(request.headers(), "access_token"), Some("jwt"));
}

#[test]
fn two_different_jwts_in_the_query_are_refused() {
    for (query, found) in
        [("token=a", Some("a")), ("token=a&token=a", Some("a")), ("token=a&token=b", Some(""))]
    {
        let request = request(&format!("/?{query}"), &[]);
        assert_eq!(OfferedCredentials::read(&request).query_token().as_deref(), found, "{query}");
    }
}
