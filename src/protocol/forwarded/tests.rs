use proptest::prelude::*;

use super::*;

const PROXY: &str = "10.0.0.1";

fn trusted() -> Vec<IpNet> {
    vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()]
}

fn headers(list: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().unwrap();
    assert!(values.next().is_none(), "{name} has several values");
    Some(first)
}

/// The client, scheme and host of a request of the proxy with these headers.
fn seen(
    list: &[(&'static str, &[u8])],
    header: ForwardingHeader,
) -> (Result<(), Disagreement>, String, Option<String>, Option<String>) {
    let (mut headers, peer) = (headers(list), PROXY.parse().unwrap());
    let unified = unify_forwarding(&mut headers, peer, &trusted(), header);
    let ip = ClientAddress::resolve(peer, &headers, &trusted()).ip.to_string();
    let owned = |name| text(&headers, name).map(str::to_owned);
    (unified, ip, owned("x-forwarded-proto"), owned("x-forwarded-host"))
}

/// The same of a `Forwarded` in these fields.
fn client(fields: &[&str]) -> (String, Option<String>, Option<String>) {
    let list: Vec<_> = fields.iter().map(|field| ("forwarded", field.as_bytes())).collect();
    let (unified, ip, proto, host) = seen(&list, ForwardingHeader::Auto);
    assert_eq!(unified, Ok(()));
    (ip, proto, host)
}

#[test]
fn elements_name_the_client() {
    for (field, ip) in [
        ("for=203.0.113.7", "203.0.113.7"),
        ("For=203.0.113.7", "203.0.113.7"),
        ("for=\"203.0.113.7\"", "203.0.113.7"),
        ("for=\"203.0.113.7:47011\"", "203.0.113.7"),
        ("for=203.0.113.7:47011", "203.0.113.7"),
        ("for=\"203.0.113.7:_port\"", "203.0.113.7"),
        ("for=\"[2001:db8::7]\"", "2001:db8::7"),
        ("for=\"[2001:db8::7]:47011\"", "2001:db8::7"),
        ("for=\"[2001:DB8::7]:_x\"", "2001:db8::7"),
        ("for=\"[::ffff:203.0.113.7]\"", "203.0.113.7"),
        ("for=\"\\203.0.113.7\"", "203.0.113.7"),
        ("by=10.0.0.1;for=203.0.113.7;proto=http", "203.0.113.7"),
        ("secret=\"a,b;c=d\\\"\";for=203.0.113.7", "203.0.113.7"),
        ("for=203.0.113.7;", "203.0.113.7"),
        (" for=203.0.113.7 ; proto=http ", "203.0.113.7"),
        ("for=6.6.6.6, for=203.0.113.7", "203.0.113.7"),
        ("for=6.6.6.6, for=203.0.113.7, for=10.0.0.9", "203.0.113.7"),
        ("for=203.0.113.7,, ,for=10.0.0.9,", "203.0.113.7"),
        ("for=203.0.113.7, for=\"[2001:db8:1::9]\"", "203.0.113.7"),
        // Nobody to believe, up to the nearest proxy.
        ("for=unknown", PROXY),
        ("for=Unknown", PROXY),
        ("for=_hidden", PROXY),
        ("for=\"_hidden:80\"", PROXY),
        ("for=203.0.113.7, for=unknown, for=10.0.0.9", "10.0.0.9"),
        ("for=203.0.113.7, for=_a, for=10.0.0.9", "10.0.0.9"),
        ("proto=https", PROXY),
        // Malformed.
        ("for=", PROXY),
        ("for", PROXY),
        ("203.0.113.7", PROXY),
        ("for=203.0.113.7;for=203.0.113.7", PROXY),
        ("for=\"203.0.113.7", PROXY),
        ("for=2001:db8::7", PROXY),
        ("for=\"2001:db8::7\"", PROXY),
        ("for=\"[2001:db8::7\"", PROXY),
        ("for=\"[203.0.113.7]\"", PROXY),
        ("for=\"[2001:db8::7]x\"", PROXY),
        ("for=203.0.113.7:", PROXY),
        ("for=203.0.113.7:123456", PROXY),
        ("for=203.0.113.256", PROXY),
        ("for=_", PROXY),
        ("for=_a b", PROXY),
        ("for =203.0.113.7", PROXY),
        ("for=203.0.113.7, for=nonsense, for=10.0.0.9", "10.0.0.9"),
        ("host=\"a b\";for=203.0.113.7", PROXY),
    ] {
        assert_eq!(client(&[field]).0, ip, "{field}");
    }
    assert_eq!(client(&["for=6.6.6.6", "for=203.0.113.7"]).0, "203.0.113.7");
    assert_eq!(client(&["for=203.0.113.7", "for=10.0.0.9"]).0, "203.0.113.7");
}

/// The proxy that the client has reached says what it was asked for, whatever other elements say.
#[test]
fn scheme_and_host_are_those_of_the_outermost_proxy() {
    let some = |text: &str| Some(text.to_owned());
    for (field, proto, host) in [
        ("for=203.0.113.7;proto=https;host=a.test", some("https"), some("a.test")),
        ("for=203.0.113.7;Proto=HTTPS;Host=\"a.test:8443\"", some("https"), some("a.test:8443")),
        ("for=6.6.6.6;proto=https;host=evil.test, for=203.0.113.7;proto=http", some("http"), None),
        (
            "for=203.0.113.7;proto=https;host=a.test, for=10.0.0.9;proto=http",
            some("https"),
            some("a.test"),
        ),
        ("for=203.0.113.7;proto=gopher", None, None),
        ("for=unknown;proto=https", some("https"), None),
    ] {
        let (_, found_proto, found_host) = client(&[field]);
        assert_eq!((found_proto, found_host), (proto, host), "{field}");
    }
}

/// What a client writes is in front of what its proxy adds, in the same field or in one of its own.
#[test]
fn what_a_client_sends_does_not_hide_the_element_that_its_proxy_adds() {
    for sent in [
        &b"for=\"6.6.6.6"[..],
        b"\"",
        b"\\",
        b"\"\\",
        b"for=\"\\\\\"",
        b"for=\"a\\\"",
        b",;=",
        b"\xff",
        b"for=6.6.6.6",
        b"for=6.6.6.6;proto=https;host=evil.test",
        b"secret=\"",
        b"for=\"[",
    ] {
        for added in [&b"for=203.0.113.7;proto=http"[..], b"for=\"203.0.113.7:1\";proto=http"] {
            let joined = [sent, b", ", added].concat();
            for list in [vec![joined.as_slice()], vec![sent, added]] {
                let list: Vec<_> = list.into_iter().map(|value| ("forwarded", value)).collect();
                let expected = ("203.0.113.7".to_owned(), Some("http".to_owned()), None);
                let (_, ip, proto, host) = seen(&list, ForwardingHeader::Auto);
                assert_eq!((ip, proto, host), expected, "{list:?}");
            }
        }
    }
}

/// A proxy that sets one of the headers passes on what a client wrote in the other.
#[test]
fn one_header_cannot_be_forged_through_a_proxy_that_sets_the_other() {
    use ForwardingHeader::{Auto, Forwarded, XForwardedFor};
    let real = b"203.0.113.7";
    for (forwarded, x_forwarded_for, header, expected, is_agreed) in [
        // The proxy sets X-Forwarded-For.
        (&b"for=6.6.6.6;proto=https"[..], &real[..], XForwardedFor, "203.0.113.7", true),
        (b"for=6.6.6.6;proto=https", real, Auto, PROXY, false),
        (b"for=10.0.0.9", real, Auto, PROXY, false),
        (b"nonsense", real, Auto, PROXY, false),
        (b"for=unknown", real, Auto, PROXY, false),
        (b"for=203.0.113.7;proto=https", real, Auto, "203.0.113.7", true),
        (b"proto=https", real, Auto, "203.0.113.7", true),
        // The proxy sets Forwarded.
        (b"for=203.0.113.7", b"6.6.6.6", Forwarded, "203.0.113.7", true),
        (b"for=203.0.113.7", b"6.6.6.6", Auto, PROXY, false),
        (b"for=203.0.113.7", b"", Auto, PROXY, false),
        (b"for=unknown", b"6.6.6.6", Forwarded, PROXY, true),
    ] {
        let list = [("forwarded", forwarded), ("x-forwarded-for", x_forwarded_for)];
        let (unified, ip, ..) = seen(&list, header);
        assert_eq!((unified.is_ok(), ip.as_str()), (is_agreed, expected), "{list:?} {header:?}");
    }
    // A request with neither, or with only the other one.
    let forged = [("x-forwarded-for", &b"6.6.6.6"[..]), ("x-forwarded-host", b"evil.test")];
    assert_eq!(seen(&forged, Forwarded), (Ok(()), PROXY.to_owned(), None, None));
    let forged = [("forwarded", &b"for=6.6.6.6;proto=https;host=evil.test"[..])];
    assert_eq!(seen(&forged, XForwardedFor), (Ok(()), PROXY.to_owned(), None, None));
    // Scheme and host belong to the header that is believed.
    let mixed = [
        ("forwarded", &b"for=203.0.113.7;proto=https;host=a.test"[..]),
        ("x-forwarded-host", b"evil.test"),
        ("x-forwarded-port", b"1"),
    ];
    let expected = (Ok(()), "203.0.113.7".to_owned(), Some("https".into()), Some("a.test".into()));
    assert_eq!(seen(&mixed, Auto), expected);
    for (name, value) in [("x-forwarded-host", "evil.test"), ("x-forwarded-proto", "http")] {
        let both = [&mixed[..1], &[("x-forwarded-for", real), (name, value.as_bytes())]].concat();
        assert_eq!(seen(&both, Auto), (Err(Disagreement), PROXY.to_owned(), None, None), "{name}");
    }
}

#[test]
fn a_stranger_is_not_believed_and_its_headers_are_left_to_others() {
    let list = [("forwarded", &b"for=203.0.113.7"[..]), ("x-forwarded-for", b"203.0.113.8")];
    let (mut given, stranger) = (headers(&list), "198.51.100.1".parse().unwrap());
    unify_forwarding(&mut given, stranger, &trusted(), ForwardingHeader::Auto).unwrap();
    assert_eq!(given, headers(&list));
    assert_eq!(ClientAddress::resolve(stranger, &given, &trusted()).ip, stranger);
}

#[test]
fn an_upstream_gets_the_chain_with_this_hop() {
    let hop = "for=10.0.0.1;host=\"app.test\";proto=http";
    for (list, expected) in [
        (vec![], hop.to_owned()),
        (
            vec![("forwarded", "for=203.0.113.7;proto=https")],
            format!("for=203.0.113.7;proto=https, {hop}"),
        ),
        (
            vec![
                ("x-forwarded-for", "203.0.113.7"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "a.test"),
            ],
            format!("for=203.0.113.7;host=\"a.test\";proto=https, {hop}"),
        ),
        (vec![("x-forwarded-for", "2001:db8::7")], format!("for=\"[2001:db8::7]\", {hop}")),
        (
            vec![("forwarded", "for=203.0.113.7;x=y"), ("x-forwarded-for", "203.0.113.7")],
            format!("for=203.0.113.7, {hop}"),
        ),
    ] {
        let list: Vec<_> = list.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let (mut headers, peer) = (headers(&list), PROXY.parse().unwrap());
        headers.insert(HOST, HeaderValue::from_static("app.test"));
        unify_forwarding(&mut headers, peer, &trusted(), ForwardingHeader::Auto).unwrap();
        let client = ClientAddress::resolve(peer, &headers, &trusted());
        append_forwarded(&mut headers, client);
        assert_eq!(text(&headers, "forwarded"), Some(expected.as_str()), "{list:?}");
    }
}

proptest! {
    #[test]
    fn whatever_a_client_writes_its_proxy_is_heard(sent in "[ -~\u{80}-\u{ff}]{0,40}") {
        let value = [sent.as_bytes(), b", for=\"203.0.113.7:1\""].concat();
        let list = [("forwarded", value.as_slice())];
        prop_assert_eq!(seen(&list, ForwardingHeader::Auto).1, "203.0.113.7");
    }
}
