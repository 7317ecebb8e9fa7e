//! `Forwarded` (RFC 7239) and `X-Forwarded-*` of trusted proxies: which of them names a client, and what upstreams get.

use crate::chat::{chat, open_to_all};
use crate::outcome::Outcome::{Closed, Connected, Http};
use crate::outcome::{attempt, outcome};
use crate::rig::{Gateway, Reply, Settings, Upstream, http};

const PATH: &str = "/ws/chat/1/";
const TRUSTED: &str = "trusted_proxies = [\"127.0.0.0/8\", \"198.51.100.0/24\"]";
const DISAGREEMENTS: &str = "tidegate_forwarding_disagreements_total";

fn trusting(settings: Settings, header: &str) -> Settings {
    settings.also("server", TRUSTED).also("server", &format!("forwarding_header = {header:?}"))
}

#[tokio::test]
async fn forwarded_names_the_client_in_limits_and_lists() {
    for header in ["auto", "forwarded"] {
        let settings = trusting(open_to_all(), header).also("server", "max_connections_per_ip = 2");
        let gateway = Gateway::start(settings).await;
        let mut held = Vec::new();
        for forwarded in [
            "for=\"[2001:db8::7]:4711\";proto=https",
            "for=6.6.6.6, for=203.0.113.7",
            "for=203.0.113.7, for=198.51.100.9;by=_edge",
        ] {
            let client = attempt(&gateway, PATH, &[("forwarded", forwarded)]).await;
            held.push(client.unwrap_or_else(|refused| panic!("{forwarded}: {refused:?}")));
        }
        let third = outcome(&gateway, PATH, &[("forwarded", "For=\"203.0.113.7\"")]).await;
        assert_eq!(third, Closed(4029));
        let other = outcome(&gateway, PATH, &[("forwarded", "for=203.0.113.8")]).await;
        assert_eq!(other, Connected);
        let key = [("authorization", "Bearer test-api-key")];
        let list = http::send(gateway.admin(), "GET", "/v1/connections", &key, "".into()).await;
        let text = list.text();
        assert!(text.contains("\"2001:db8::7\"") && text.contains("\"203.0.113.7\""), "{text}");
        assert_eq!(gateway.metric(DISAGREEMENTS, &[]).await, 0.0);
    }
}

/// A client behind a proxy that sets one of the headers writes the other. It is not believed, nor does it get out of the
/// limits of its address.
#[tokio::test]
async fn the_other_header_is_not_believed() {
    for (header, real, forged) in [
        ("x-forwarded-for", ("x-forwarded-for", "203.0.113.7"), "forwarded"),
        ("forwarded", ("forwarded", "for=203.0.113.7"), "x-forwarded-for"),
    ] {
        let settings = trusting(open_to_all(), header).also("server", "max_connections_per_ip = 1");
        let gateway = Gateway::start(settings).await;
        let _first = attempt(&gateway, PATH, &[real]).await.unwrap();
        for number in 1..4 {
            let value = match forged {
                "forwarded" => format!("for=6.6.6.{number}"),
                _ => format!("6.6.6.{number}"),
            };
            let second = outcome(&gateway, PATH, &[real, (forged, &value)]).await;
            assert_eq!(second, Closed(4029), "{header}: {value}");
        }
    }
}

#[tokio::test]
async fn headers_that_disagree_name_nobody() {
    let settings = trusting(open_to_all(), "auto").also("server", "max_connections_per_ip = 1");
    let gateway = Gateway::start(settings).await;
    let both = |forged: &'static str| [("x-forwarded-for", "203.0.113.7"), ("forwarded", forged)];
    let first = attempt(&gateway, PATH, &both("for=6.6.6.6")).await.unwrap();
    // It counts as the proxy's own connection.
    assert_eq!(outcome(&gateway, PATH, &both("for=6.6.6.7")).await, Closed(4029));
    assert_eq!(gateway.metric(DISAGREEMENTS, &[]).await, 2.0);
    let logged = gateway.wait_for_event("forwarding_disagreed").await;
    assert_eq!(logged["peer"], "127.0.0.1");
    // Neither is the client's own share used up.
    assert_eq!(outcome(&gateway, PATH, &both("for=203.0.113.7")).await, Connected);
    assert_eq!(gateway.metric(DISAGREEMENTS, &[]).await, 2.0);
    drop(first);
}

#[tokio::test]
async fn the_own_origin_is_what_the_outermost_proxy_was_asked_for() {
    let settings =
        chat("auth = [\"anonymous\"]\nreject = \"http\"").section("origins", "allow = [\"self\"]");
    let gateway = Gateway::start(trusting(settings, "auto")).await;
    for (forwarded, origin, expected) in [
        ("for=203.0.113.7;proto=https;host=app.test", "https://app.test", Connected),
        ("for=203.0.113.7;proto=https;host=app.test", "http://app.test", Http(403)),
        (
            "for=203.0.113.7;proto=https;host=\"app.test:8443\", for=198.51.100.9;host=inner",
            "https://app.test:8443",
            Connected,
        ),
        // The client's own element is in front of that of the proxy.
        (
            "for=a;proto=https;host=evil.test, for=203.0.113.7;host=app.test",
            "https://evil.test",
            Http(403),
        ),
        (
            "for=a;proto=https;host=evil.test, for=203.0.113.7;host=app.test",
            "http://app.test",
            Connected,
        ),
    ] {
        let headers = [("forwarded", forwarded), ("origin", origin)];
        assert_eq!(outcome(&gateway, PATH, &headers).await, expected, "{forwarded} {origin}");
    }
}

/// An upstream may read either.
#[tokio::test]
async fn an_upstream_gets_both_headers_with_this_hop() {
    let upstream = Upstream::start(|_| Reply::status(204)).await;
    let settings = open_to_all().section("proxy", &format!("upstream = {:?}", upstream.url("")));
    let hop = "for=127.0.0.1;host=\"inner.test\";proto=http";
    for (trusted, header, given, forwarded, chain, proto, host) in [
        (
            true,
            "auto",
            vec![("forwarded", "for=203.0.113.7;proto=https;host=app.test")],
            Some(format!("for=203.0.113.7;proto=https;host=app.test, {hop}")),
            "203.0.113.7, 127.0.0.1",
            "https",
            "app.test",
        ),
        (
            true,
            "x-forwarded-for",
            vec![("forwarded", "for=6.6.6.6;proto=https"), ("x-forwarded-for", "203.0.113.7")],
            None,
            "203.0.113.7, 127.0.0.1",
            "http",
            "inner.test",
        ),
        (
            true,
            "forwarded",
            vec![
                ("x-forwarded-for", "6.6.6.6"),
                ("x-forwarded-host", "evil.test"),
                ("x-forwarded-proto", "https"),
            ],
            None,
            "127.0.0.1",
            "http",
            "inner.test",
        ),
        (
            false,
            "auto",
            vec![("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "6.6.6.6")],
            None,
            "127.0.0.1",
            "http",
            "inner.test",
        ),
    ] {
        let settings = match trusted {
            true => trusting(settings.clone(), header),
            false => settings.clone(),
        };
        let gateway = Gateway::start(settings).await;
        let headers = [&[("host", "inner.test")][..], &given].concat();
        http::send(gateway.addr(), "GET", "/", &headers, "".into()).await;
        let request = upstream.next_request().await;
        assert_eq!(request.header("forwarded"), forwarded.as_deref(), "{given:?}");
        assert_eq!(request.header("x-forwarded-for"), Some(chain), "{given:?}");
        assert_eq!(request.header("x-forwarded-proto"), Some(proto), "{given:?}");
        assert_eq!(request.header("x-forwarded-host"), Some(host), "{given:?}");
    }
}
