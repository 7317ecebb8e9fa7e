use hyper::header::HeaderValue;

use super::*;

#[test]
fn only_trusted_hops_are_followed() {
    let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
    for (peer, forwarded, client) in [
        ("203.0.113.9", vec!["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", vec![], "10.0.0.1"),
        ("10.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", vec!["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", vec!["6.6.6.6, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", vec!["6.6.6.6", "198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", vec!["[2001:db8::1]:80"], "2001:db8::1"),
        ("10.0.0.1", vec!["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", vec!["198.51.100.1, garbage"], "10.0.0.1"),
        ("10.0.0.1", vec!["198.51.100.1, garbage, 10.0.0.2"], "10.0.0.2"),
        ("::ffff:10.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
    ] {
        let mut headers = HeaderMap::new();
        for value in &forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let resolved = ClientAddress::resolve(peer.parse().unwrap(), &headers, &trusted);
        assert_eq!(resolved.ip, client.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
    }
}

/// Regression test: proxies add the address to what the client sent. If that was not text, its requests counted as the
/// proxy's own.
#[test]
fn what_a_client_sends_does_not_hide_the_address_that_its_proxy_adds() {
    let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
    for sent in [&b"\xff"[..], b"\xff, \xc3\xa4", b",,", b"6.6.6.6, \x80"] {
        let value = [sent, b", 198.51.100.1"].concat();
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_bytes(&value).unwrap());
        let resolved = ClientAddress::resolve("10.0.0.1".parse().unwrap(), &headers, &trusted);
        assert_eq!(resolved.ip, "198.51.100.1".parse::<IpAddr>().unwrap(), "{value:?}");
    }
}
