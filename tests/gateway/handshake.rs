//! Who may connect: origin, credentials, the backend's decision and limits, checked in this order.

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::chat::{APP, chat, open_to_all, session};
use crate::engine::Engine;
use crate::outcome::Outcome::{Closed, Connected, Http};
use crate::outcome::{attempt, outcome};
use crate::rig::raw::{Received, handshake};
use crate::rig::{
    Client, Gateway, RawClient, Reply, Upstream, frame, free_address, http, until, within,
};

#[tokio::test]
async fn the_101_and_connected_arrive_together() {
    let gateway = Gateway::start(open_to_all()).await;
    // On a busy machine the 101 may leave by itself, because the subscription takes its time.
    let mut received = String::new();
    for _ in 0..50 {
        let mut stream = RawClient::connect(gateway.addr()).await.into_stream();
        stream.write_all(handshake("/ws/chat/42/", &[APP]).as_bytes()).await.unwrap();
        let mut first = [0; 4096];
        let length = within("a response", stream.read(&mut first)).await.unwrap();
        received = String::from_utf8_lossy(&first[..length]).into_owned();
        assert!(received.starts_with("HTTP/1.1 101"), "{received}");
        if received.contains("\"connected\"") {
            return;
        }
    }
    panic!("the 101 is alone: {received}");
}

#[tokio::test]
async fn the_101_does_not_wait_long_for_a_subscription() {
    let engine = Engine::redis().await;
    let gateway = engine.start(open_to_all()).await;
    let redis = engine.server().unwrap();
    redis.pause();
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(handshake("/ws/chat/42/", &[APP]).as_bytes()).await;
    assert_eq!(client.read_head().await.status, 101);
    redis.resume();
    client.expect_text("\"connected\"").await;
}

#[tokio::test]
async fn only_origins_of_the_list_get_in() {
    let gateway = Gateway::start(open_to_all()).await;
    for (origin, expected) in [
        ("https://app.example.com", Connected),
        ("https://app.example.com:443", Connected),
        ("https://a.wild.example", Connected),
        ("https://app.example.com.evil.test", Closed(4003)),
        ("https://appXexample.com", Closed(4003)),
        ("https://evil.test/https://app.example.com", Closed(4003)),
        ("https://app.example.com@evil.test", Closed(4003)),
        ("https://app.example.com:8443", Closed(4003)),
        ("https://app.example.com/", Closed(4003)),
        ("http://app.example.com", Closed(4003)),
        ("https://sub.app.example.com", Closed(4003)),
        ("https://wild.example", Closed(4003)),
        ("https://evilwild.example", Closed(4003)),
        ("https://a.wild.example.evil.test", Closed(4003)),
        ("https://app.example.com, https://app.example.com", Closed(4003)),
        ("app.example.com", Closed(4003)),
        ("*", Closed(4003)),
        ("null", Closed(4003)),
        ("", Closed(4003)),
    ] {
        let found = outcome(&gateway, "/ws/chat/42/", &[("origin", origin)]).await;
        assert_eq!(found, expected, "Origin: {origin}");
    }
    let twice = outcome(&gateway, "/ws/chat/42/", &[APP, APP]).await;
    assert_eq!(twice, Closed(4003), "Origin given twice");
    let (first_good, second_bad) = (APP, ("origin", "https://evil.test"));
    let mixed = outcome(&gateway, "/ws/chat/42/", &[first_good, second_bad]).await;
    assert_eq!(mixed, Closed(4003), "two Origins");
}

/// A page may connect to the server that it comes from, as its browser names it.
#[tokio::test]
async fn the_gateways_own_origin_can_be_allowed() {
    let own =
        |more: &str| open_to_all().section("origins", "allow = [\"self\"]").also("server", more);
    let direct = Gateway::start(own("")).await;
    let proxied = Gateway::start(own("trusted_proxies = [\"127.0.0.0/8\"]")).await;
    let https = vec![("x-forwarded-host", "app.test"), ("x-forwarded-proto", "https")];
    let elements = vec![("forwarded", "for=192.0.2.1;host=app.test;proto=https, for=127.0.0.2")];
    for (gateway, headers, origin, is_own) in [
        (&direct, vec![], format!("http://{}", direct.addr()), true),
        (&direct, vec![], format!("HTTP://{}", direct.addr()), true),
        (&direct, vec![], format!("https://{}", direct.addr()), false),
        (&direct, vec![], format!("http://localhost:{}", direct.addr().port()), false),
        (&direct, vec![], "http://127.0.0.1".to_owned(), false),
        (&direct, vec![], "null".to_owned(), false),
        (&direct, https.clone(), "https://app.test".to_owned(), false),
        (&direct, elements.clone(), "https://app.test".to_owned(), false),
        (&direct, https.clone(), format!("http://{}", direct.addr()), true),
        (&proxied, vec![], format!("http://{}", proxied.addr()), true),
        (&proxied, https.clone(), "https://app.test".to_owned(), true),
        (&proxied, https.clone(), "https://app.test:443".to_owned(), true),
        (&proxied, https.clone(), "http://app.test".to_owned(), false),
        (&proxied, https.clone(), format!("http://{}", proxied.addr()), false),
        (&proxied, elements.clone(), "https://app.test".to_owned(), true),
    ] {
        let all = [&headers[..], &[("origin", origin.as_str())]].concat();
        let expected = if is_own { Connected } else { Closed(4003) };
        assert_eq!(outcome(gateway, "/ws/chat/42/", &all).await, expected, "{all:?}");
    }
    // The same holds for pages that get a connection token.
    let origin = format!("http://{}", direct.addr());
    for (origin, allowed) in [(&*origin, true), ("http://evil.test", false)] {
        let path = "/api/v1/auth/ws-connection-token/";
        let answer =
            http::send(direct.addr(), "OPTIONS", path, &[("origin", origin)], "".into()).await;
        let status = if allowed { 204 } else { 403 };
        assert_eq!(answer.status, status, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin").is_some(), allowed, "{origin}");
    }
}

#[tokio::test]
async fn a_missing_origin_is_treated_as_configured() {
    for (missing, expected) in [("allow", Connected), ("reject", Closed(4003))] {
        let settings = open_to_all().also("origins", &format!("missing = \"{missing}\""));
        let gateway = Gateway::start(settings).await;
        assert_eq!(outcome(&gateway, "/ws/chat/42/", &[]).await, expected, "{missing}");
    }
}

async fn a_bad_origin_does_not_burn_the_token(engine: Engine) {
    let gateway = engine.start(chat("")).await;
    let token = gateway.token(json!({"user_id": 1, "username": "ana"})).await;
    let path = format!("/ws/chat/42/?connection_token={token}");
    let evil = [("origin", "https://evil.test")];
    assert_eq!(outcome(&gateway, &path, &evil).await, Closed(4003));
    assert_eq!(outcome(&gateway, &path, &[APP]).await, Connected);
    assert_eq!(outcome(&gateway, &path, &[APP]).await, Closed(4001), "used twice");
}

async fn a_token_may_be_in_the_query_or_a_subprotocol(engine: Engine) {
    let gateway = engine.start(chat("")).await;
    let token = gateway.token(json!({"user_id": 1})).await;
    let path = format!("/ws/chat/42/?a=b&connection_token={token}");
    let mut client = Client::open(gateway.addr(), &path, &[]).await;
    assert_eq!(client.headers.get("sec-websocket-protocol"), None);
    assert_eq!(client.next_event("connected").await["user_id"], 1);

    let token = gateway.token(json!({"user_id": 2})).await;
    let offered = format!("tidegate.v1, tidegate.token.{token}");
    let protocols = [("sec-websocket-protocol", offered.as_str())];
    let mut client = Client::open(gateway.addr(), "/ws/chat/42/", &protocols).await;
    assert_eq!(client.headers["sec-websocket-protocol"], "tidegate.v1");
    assert_eq!(client.next_event("connected").await["user_id"], 2);

    // A used token is refused by accepting and closing the socket, so that a browser can read the code.
    let mut client = Client::open(gateway.addr(), "/ws/chat/42/", &protocols).await;
    assert_eq!(client.headers["sec-websocket-protocol"], "tidegate.v1");
    assert_eq!(client.closed().await, Some(4001));
    assert!(!gateway.stderr_contains(&token), "a token in the log");
}

async fn a_bad_token_never_falls_through(engine: Engine) {
    let gateway = engine.start(chat("")).await;
    let cookie = format!("access_token={}", session());
    let bearer = format!("Bearer {}", session());
    let good = [("cookie", cookie.as_str()), ("authorization", bearer.as_str())];
    assert_eq!(outcome(&gateway, "/ws/chat/42/", &good).await, Connected);
    for bad in ["", "nonsense", "0123456789012345678901234567890123456789012"] {
        let path = format!("/ws/chat/42/?connection_token={bad}&token={}", session());
        assert_eq!(outcome(&gateway, &path, &good).await, Closed(4001), "{bad:?}");
    }
    let protocols = [good[0], ("sec-websocket-protocol", "tidegate.v1, tidegate.token.bad")];
    assert_eq!(outcome(&gateway, "/ws/chat/42/", &protocols).await, Closed(4001));
    let (a, b) = (gateway.token(json!({"user_id": 1})).await, "b");
    let two = format!("/ws/chat/42/?connection_token={a}&connection_token={b}");
    assert_eq!(outcome(&gateway, &two, &good).await, Closed(4001), "two tokens");
}

#[tokio::test]
async fn a_jwt_may_be_in_a_cookie_the_authorization_header_or_the_query() {
    let gateway = Gateway::start(chat("")).await;
    let cookie = format!("a=b; access_token={}; c=d", session());
    let bearer = format!("Bearer {}", session());
    let query = format!("/ws/chat/42/?token={}", session());
    for (path, headers) in [
        ("/ws/chat/42/", vec![("cookie", cookie.as_str())]),
        ("/ws/chat/42/", vec![("authorization", bearer.as_str())]),
        (query.as_str(), vec![]),
    ] {
        let mut client = Client::open(gateway.addr(), path, &headers).await;
        let connected = client.next_event("connected").await;
        assert_eq!(connected["user_id"], 7, "{connected}");
    }
    assert_eq!(outcome(&gateway, "/ws/chat/42/", &[]).await, Closed(4001));
    let bad = [("cookie", "access_token=bad"), ("authorization", bearer.as_str())];
    assert_eq!(outcome(&gateway, "/ws/chat/42/", &bad).await, Closed(4001), "a bad cookie decides");
}

#[tokio::test]
async fn a_route_reads_only_the_credentials_that_it_names() {
    let gateway = Gateway::start(chat("auth = [\"cookie\"]")).await;
    let (cookie, bearer) = (format!("access_token={}", session()), format!("Bearer {}", session()));
    let query = format!("/ws/chat/42/?token={}", session());
    assert_eq!(outcome(&gateway, &query, &[]).await, Closed(4001));
    let bearer = [("authorization", bearer.as_str())];
    assert_eq!(outcome(&gateway, "/ws/chat/42/", &bearer).await, Closed(4001));
    let token = gateway.token(json!({"user_id": 1})).await;
    let by_token = format!("/ws/chat/42/?connection_token={token}");
    assert_eq!(outcome(&gateway, &by_token, &[]).await, Closed(4001));
    assert_eq!(outcome(&gateway, "/ws/chat/42/", &[("cookie", &cookie)]).await, Connected);
}

#[tokio::test]
async fn refusals_are_close_codes_or_http_statuses() {
    let limits = "\n[route.limits]\nconnects_per_user = \"1/1h\"";
    let cookie = format!("access_token={}", session());
    let cookie = [("cookie", cookie.as_str())];
    let evil = [("origin", "https://evil.test")];

    let gateway = Gateway::start(chat(&format!("reject = \"close\"{limits}"))).await;
    assert_eq!(outcome(&gateway, "/ws/chat/1/", &[]).await, Closed(4001));
    assert_eq!(outcome(&gateway, "/ws/chat/1/", &evil).await, Closed(4003));
    assert_eq!(outcome(&gateway, "/ws/chat/1/", &cookie).await, Connected);
    let mut refused = Client::open(gateway.addr(), "/ws/chat/1/", &cookie).await;
    let error = refused.next_event("error").await;
    assert!(
        error["retry_after"].as_u64().is_some_and(|wait| (1..=3600).contains(&wait)),
        "{error}"
    );
    assert_eq!(refused.closed().await, Some(4029));

    let gateway = Gateway::start(chat(&format!("reject = \"http\"{limits}"))).await;
    for (headers, status) in [(&[] as &[_], 401), (&evil, 403)] {
        let refused = Client::try_open(gateway.addr(), "/ws/chat/1/", headers).await.err().unwrap();
        assert_eq!(refused.status, status);
        assert_eq!(refused.header("cache-control"), Some("no-store"));
        assert!(refused.json()["error"].is_string() && refused.json()["code"].is_string());
    }
    assert_eq!(outcome(&gateway, "/ws/chat/1/", &cookie).await, Connected);
    let refused = Client::try_open(gateway.addr(), "/ws/chat/1/", &cookie).await.err().unwrap();
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").expect("a Retry-After").parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    assert_eq!(refused.json()["code"], "too_many_connections");
}

/// The waits before the closes of refused clients, in milliseconds, as the log has them.
fn waits(gateway: &Gateway) -> Vec<u64> {
    let events = gateway.log_events("refusal_delayed");
    events.iter().map(|event| event["delay_ms"].as_u64().expect("a number")).collect()
}

#[tokio::test]
async fn the_close_of_a_refused_client_waits_longer_each_time() {
    let settings = chat("reject = \"close\"")
        .also("server", "refusal_delay = \"80ms\"")
        .also("log", "level = \"debug\"\nrepeats = \"off\"")
        .route("path = \"/ws/http/{id}/\"\nchannel = \"h_{id}\"\nreject = \"http\"")
        .route("path = \"/ws/health/\"\nreply = '\"fine\"'");
    let gateway = Gateway::start(settings).await;
    for _ in 0..6 {
        assert_eq!(outcome(&gateway, "/ws/chat/1/", &[]).await, Closed(4001));
    }
    // Neither an HTTP status nor a fixed reply waits.
    assert_eq!(outcome(&gateway, "/ws/http/1/", &[]).await, Http(401));
    assert_eq!(outcome(&gateway, "/ws/health/", &[]).await, Closed(1000));
    assert_eq!(waits(&gateway), [5, 10, 20, 40, 80, 80]);
    let waited = gateway.metric("tidegate_refusal_closes_total", &[("close", "waits")]).await;
    assert_eq!(waited, 6.0);
}

#[tokio::test]
async fn a_client_is_told_why_before_its_close_waits_and_a_drain_ends_the_wait() {
    let limits = "reject = \"close\"\n[route.limits]\nconnects_per_user = \"1/1h\"";
    let settings = chat(limits)
        .also("server", "refusal_delay = \"5s\"")
        .also("log", "level = \"debug\"\nrepeats = \"off\"");
    let mut gateway = Gateway::start(settings).await;
    let cookie = format!("access_token={}", session());
    let cookie = [("cookie", cookie.as_str())];
    assert_eq!(outcome(&gateway, "/ws/chat/1/", &cookie).await, Connected);
    let mut refused = Vec::new();
    for _ in 0..6 {
        let mut client = Client::open(gateway.addr(), "/ws/chat/1/", &cookie).await;
        assert_eq!(client.next_event("error").await["code"], "rate_limited");
        refused.push(client);
    }
    assert_eq!(waits(&gateway).last(), Some(&5000));
    // A client that leaves ends its wait; the drain ends those of the others, or it would be forced.
    drop(refused.pop());
    gateway.signal(Signal::TERM);
    for mut client in refused {
        assert_eq!(client.closed().await, Some(4029));
    }
    assert_eq!(gateway.wait_exit().await, Some(0));
}

#[tokio::test]
async fn without_a_refusal_delay_no_close_waits() {
    let settings = chat("reject = \"close\"")
        .also("server", "refusal_delay = \"0s\"")
        .also("log", "level = \"debug\"\nrepeats = \"off\"");
    let gateway = Gateway::start(settings).await;
    for _ in 0..6 {
        assert_eq!(outcome(&gateway, "/ws/chat/1/", &[]).await, Closed(4001));
    }
    assert_eq!(waits(&gateway), [] as [u64; 0]);
}

#[tokio::test]
async fn the_backend_decides_and_without_it_nobody_gets_in() {
    let backend = Upstream::start(|request| match request.json()["channel"].as_str() {
        Some("chat_allow") => Reply::status(204),
        Some("chat_deny") => Reply::status(403),
        Some("chat_unknown") => Reply::status(404),
        Some("chat_moved") => Reply::status(302),
        Some("chat_broken") => Reply::status(500),
        Some("chat_hang") => Reply::Hang,
        _ => Reply::Hangup,
    })
    .await;
    let authorize = |url: &str| format!("authorize = {{ url = {url:?}, timeout = \"1s\" }}");
    let gateway = Gateway::start(chat(&authorize(&backend.url("/may")))).await;
    let cookie = format!("access_token={}", session());
    let headers = [("cookie", cookie.as_str()), APP];
    for (conversation, expected) in [
        ("allow", Connected),
        ("deny", Closed(4003)),
        ("unknown", Closed(4003)),
        ("moved", Closed(1013)),
        ("broken", Closed(1013)),
        ("hang", Closed(1013)),
        ("hangup", Closed(1013)),
    ] {
        let path = format!("/ws/chat/{conversation}/");
        assert_eq!(outcome(&gateway, &path, &headers).await, expected, "{conversation}");
    }
    let question = backend.next_request().await;
    assert_eq!((question.method.as_str(), question.path.as_str()), ("POST", "/may"));
    let question = question.json();
    assert_eq!(question["params"], json!({"conversation_id": "allow"}));
    assert_eq!(question["user"], json!({"id": 7, "name": "ana"}));
    assert_eq!(question["origin"], APP.1);

    let port = free_address();
    let gateway = Gateway::start(chat(&authorize(&format!("http://{port}/may")))).await;
    assert_eq!(outcome(&gateway, "/ws/chat/allow/", &headers).await, Closed(1013));
    let http = format!("{}\nreject = \"http\"", authorize(&format!("http://{port}/may")));
    let gateway = Gateway::start(chat(&http)).await;
    assert_eq!(outcome(&gateway, "/ws/chat/allow/", &headers).await, Http(503));
}

#[tokio::test]
async fn paths_are_decoded_and_their_last_slash_is_optional() {
    let gateway = Gateway::start(open_to_all()).await;
    for (path, conversation) in [
        ("/ws/chat/42/", "42"),
        ("/ws/chat/42", "42"),
        ("/ws/chat/%34%32/", "42"),
        ("/ws/chat/a%2Db?x=1", "a-b"),
    ] {
        let (_client, connected) = Client::connected(&gateway, path).await;
        assert_eq!(connected["conversation_id"], conversation, "{path}");
    }
    for path in ["/ws/chat/", "/ws/chat", "/ws/chat//", "/ws/chat/1/2/", "/ws/Chat/1/", "/"] {
        assert_eq!(outcome(&gateway, path, &[]).await, Http(404), "{path}");
    }
}

#[tokio::test]
async fn a_request_that_is_not_an_upgrade_is_refused_with_a_reason() {
    let gateway = Gateway::start(open_to_all()).await;
    let plain = http::get(gateway.addr(), "/ws/chat/42/").await;
    assert_eq!((plain.status, plain.header("upgrade")), (426, Some("websocket")));
    assert_eq!(plain.header("sec-websocket-version"), Some("13"));
    let posted = http::post(gateway.addr(), "/ws/chat/42/", &[], &json!({})).await;
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET")));
    assert_eq!(http::get(gateway.addr(), "/elsewhere").await.status, 404);
    for (without, status) in [
        ("Upgrade: websocket\r\n", 426),
        ("Connection: Upgrade\r\n", 426),
        ("Sec-WebSocket-Version: 13\r\n", 426),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400),
    ] {
        let request = handshake("/ws/chat/42/", &[]);
        assert!(request.contains(without));
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(request.replace(without, "").as_bytes()).await;
        assert_eq!(client.read_head().await.status, status, "without {without}");
    }
}

#[tokio::test]
async fn only_the_gateways_own_subprotocol_is_selected() {
    let gateway = Gateway::start(open_to_all()).await;
    for (offered, selected) in [
        ("tidegate.v1", Some("tidegate.v1")),
        ("chat, tidegate.v1", Some("tidegate.v1")),
        ("chat", None),
        ("tidegate.v2", None),
    ] {
        let headers = [("sec-websocket-protocol", offered)];
        let client = Client::open(gateway.addr(), "/ws/chat/42/", &headers).await;
        let found = client.headers.get("sec-websocket-protocol").map(|it| it.to_str().unwrap());
        assert_eq!(found, selected, "{offered}");
    }
}

#[tokio::test]
async fn connections_of_an_address_are_counted_whatever_headers_it_sends() {
    let settings = open_to_all().also("server", "max_connections_per_ip = 2");
    let gateway = Gateway::start(settings).await;
    let from = |address| [("x-forwarded-for", address)];
    let first = attempt(&gateway, "/ws/chat/1/", &from("203.0.113.1")).await.unwrap();
    let _second = attempt(&gateway, "/ws/chat/1/", &from("203.0.113.2")).await.unwrap();
    let third = outcome(&gateway, "/ws/chat/1/", &from("203.0.113.3")).await;
    assert_eq!(third, Http(429), "it is refused before its request is read");
    drop(first);
    until("room after a client has left", async || {
        (outcome(&gateway, "/ws/chat/1/", &[]).await == Connected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_trusted_proxy_names_the_clients_address() {
    let settings = open_to_all()
        .also("server", "max_connections_per_ip = 2\ntrusted_proxies = [\"127.0.0.0/8\"]");
    let gateway = Gateway::start(settings).await;
    let from = |address| [("x-forwarded-for", address)];
    let first = attempt(&gateway, "/ws/chat/1/", &from("203.0.113.1")).await.unwrap();
    // Everything to the left of the first untrusted hop may be invented by the client.
    let spoofed = from("198.51.100.9, 203.0.113.1, 127.0.0.2");
    let _second = attempt(&gateway, "/ws/chat/1/", &spoofed).await.unwrap();
    assert_eq!(outcome(&gateway, "/ws/chat/1/", &from("203.0.113.1")).await, Closed(4029));
    let _other = attempt(&gateway, "/ws/chat/1/", &from("203.0.113.2")).await.unwrap();
    drop(first);
    until("room after a client has left", async || {
        (outcome(&gateway, "/ws/chat/1/", &from("203.0.113.1")).await == Connected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_over_the_total_are_turned_away_at_the_door() {
    let gateway = Gateway::start(open_to_all().also("server", "max_connections = 2")).await;
    let first = attempt(&gateway, "/ws/chat/1/", &[]).await.unwrap();
    let _second = attempt(&gateway, "/ws/chat/1/", &[]).await.unwrap();
    let head = RawClient::connect(gateway.addr()).await.read_head().await;
    assert_eq!((head.status, head.header("retry-after")), (503, Some("5")));
    drop(first);
    gateway.wait_for_event("connection_closed").await;
    until("room after a client has left", async || {
        let mut raw = RawClient::connect(gateway.addr()).await;
        let request = handshake("/ws/chat/1/", &[]);
        raw.try_write(request.as_bytes()).await.ok()?;
        (raw.try_read_status().await == Some(101)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_client_is_not_waited_for() {
    let gateway = Gateway::start(chat("").also("server", "max_connections = 2")).await;
    let request = handshake("/ws/chat/1/", &[]);
    let mut silent = RawClient::connect(gateway.addr()).await;
    silent.write(request.as_bytes()).await;
    assert_eq!(silent.read_head().await.status, 101);
    let received = silent.next().await;
    assert!(matches!(received, Received::Close(Some(4001), _)), "{received:?}");

    let mut flooding = RawClient::connect(gateway.addr()).await;
    flooding.write(request.as_bytes()).await;
    assert_eq!(flooding.read_head().await.status, 101);
    let frames = frame::binary(vec![b'x'; 60_000]).bytes();
    until("end of an unsolicited flood", async || flooding.try_write(&frames).await.err()).await;

    // Neither client has answered the close frame.
    silent.expect(Received::End).await;
    until("room for others", async || {
        let mut other = RawClient::connect(gateway.addr()).await;
        other.try_write(request.as_bytes()).await.ok()?;
        (other.try_read_status().await == Some(101)).then_some(())
    })
    .await;
}

on_both_engines!(
    a_bad_origin_does_not_burn_the_token,
    a_token_may_be_in_the_query_or_a_subprotocol,
    a_bad_token_never_falls_through,
);
