use super::*;

fn headers(given: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

#[test]
fn hop_by_hop_headers_are_removed() {
    let mut given = headers(&[
        ("connection", "keep-alive, x-secret, host"),
        ("connection", "X-Other"),
        ("x-secret", "1"),
        ("x-other", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "Basic x"),
        ("host", "api.test"),
        ("accept", "*/*"),
    ]);
    remove_hop_by_hop(&mut given);
    let mut left: Vec<_> = given.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["accept", "host"]);

    let mut trailers = headers(&[("te", "gzip, Trailers")]);
    remove_hop_by_hop(&mut trailers);
    assert_eq!(trailers["te"], "trailers");
    assert_eq!(trailers["connection"], "TE");
}

#[test]
fn only_a_trusted_peer_may_set_forwarding_headers() {
    let peer = "10.0.0.1".parse().unwrap();
    for (through_proxy, chain, host, proto, real_ip) in [
        (false, "10.0.0.1", "api.test", "http", None),
        (true, "6.6.6.6, 1.2.3.4, 10.0.0.1", "outer.test", "https", Some("1.2.3.4")),
    ] {
        let mut given = headers(&[
            ("host", "api.test"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "outer.test"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
        ]);
        set_forwarded(&mut given, ClientAddress { ip: peer, peer, through_proxy, has_tls: false });
        assert_eq!(given["x-forwarded-for"], chain);
        assert_eq!(given["x-forwarded-host"], host);
        assert_eq!(given["x-forwarded-proto"], proto);
        assert_eq!(given.get("x-real-ip").map(|ip| ip.to_str().unwrap()), real_ip);
        for name in ["x-forwarded-prefix", "forwarded"] {
            assert_eq!(given.contains_key(name), through_proxy, "{name}");
        }
    }
}

#[test]
fn connection_does_not_take_away_who_the_client_is() {
    let peer = "10.0.0.1".parse().unwrap();
    let mut given = headers(&[
        ("connection", "x-forwarded-for, x-real-ip, x-request-id, x-secret"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("x-request-id", "req-1"),
        ("x-secret", "1"),
    ]);
    remove_hop_by_hop(&mut given);
    set_forwarded(
        &mut given,
        ClientAddress { ip: peer, peer, through_proxy: true, has_tls: false },
    );
    assert_eq!(given["x-forwarded-for"], "6.6.6.6, 10.0.0.1");
    assert_eq!(given["x-real-ip"], "6.6.6.6");
    assert_eq!(given["x-request-id"], "req-1");
    assert!(!given.contains_key("x-secret"));
}

#[test]
fn a_request_has_one_valid_id() {
    let peer = "10.0.0.1".parse().unwrap();
    let (longest, too_long) = ("x".repeat(128), "x".repeat(129));
    for (given, is_valid) in
        [("req-1", true), (&*longest, true), ("", false), ("two words", false), (&*too_long, false)]
    {
        for through_proxy in [true, false] {
            let mut headers = headers(&[("x-request-id", given)]);
            set_forwarded(
                &mut headers,
                ClientAddress { ip: peer, peer, through_proxy, has_tls: false },
            );
            let is_kept = is_valid && through_proxy;
            assert_eq!(headers["x-request-id"] == given, is_kept, "{given}");
            assert!(is_kept || headers["x-request-id"].len() == 32);
        }
    }
}

#[test]
fn the_gateway_is_one_of_the_intermediaries() {
    let mut given = headers(&[("via", "1.0 edge"), ("max-forwards", "3")]);
    add_via(&mut given, Version::HTTP_11);
    let via: Vec<_> = given.get_all("via").iter().collect();
    assert_eq!(via, ["1.0 edge", "1.1 tidegate"]);
    count_forward(&Method::GET, &mut given);
    assert_eq!(given["max-forwards"], "3");
    count_forward(&Method::OPTIONS, &mut given);
    assert_eq!(given["max-forwards"], "2");
}
