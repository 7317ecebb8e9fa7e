//! The admin port: metrics, health, and the server API.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::rig::gateway::MEMORY_ONLY;
use super::rig::{API_KEY, Client, Event, Gateway, Redis, Reply, Settings, Upstream, http};

const PATH: &str = "/ws/chat/42/";

/// The metrics that the dashboards use.
const FAMILIES: [&str; 18] = [
    "tidegate_build_info",
    "tidegate_connections",
    "tidegate_handshakes_total",
    "tidegate_handshake_duration_seconds",
    "tidegate_messages_total",
    "tidegate_publications_total",
    "tidegate_deliveries_total",
    "tidegate_delivery_drops_total",
    "tidegate_delivery_latency_seconds",
    "tidegate_send_queue_bytes",
    "tidegate_upstream_requests_total",
    "tidegate_upstream_request_seconds",
    "tidegate_upstream_in_flight",
    "tidegate_tokens_issued_total",
    "tidegate_tokens_consumed_total",
    "tidegate_limit_refusals_total",
    "tidegate_redis_subscription_live",
    "tidegate_redis_up",
];

#[tokio::test]
async fn metrics_have_every_family_after_some_traffic() {
    let redis = Redis::start().await;
    let upstream = Upstream::accepting().await;
    let settings = Settings::chat(&upstream.url("/"))
        .redis(&redis.url())
        .each_route(|route| format!("{route}[route.limits]\nmessages_per_connection = \"1/1m\"\n"));
    let gateway = Gateway::start(settings).await;
    gateway.wait_for_event("subscription_live").await;
    super::rig::until("readiness", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
    let token = gateway.token(json!({"user_id": 7})).await;
    let path = format!("{PATH}?connection_token={token}");
    let (mut client, _) = Client::connected(&gateway, &path).await;
    let mut replay = Client::open(gateway.addr(), &path, &[]).await;
    assert_eq!(replay.closed().await, Some(4001));
    client.send_json(&json!({"message": "hi"})).await;
    client.next_event("task_queued").await;
    client.send_json(&json!({"message": "too much"})).await;
    assert_eq!(client.next_event("error").await["code"], "rate_limited");
    gateway.publish("chat_42", json!({"event": "chunk"})).await;
    client.next_event("chunk").await;

    let page = http::get(gateway.admin(), "/metrics").await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = page.text();
    let missing: Vec<_> = FAMILIES
        .iter()
        .filter(|name| !text.lines().any(|line| line.starts_with(&format!("# TYPE {name} "))))
        .collect();
    assert!(missing.is_empty(), "no {missing:?} in\n{text}");
    for (name, labels, value) in [
        ("tidegate_connections", &[("route", "/ws/chat/{conversation_id}/")][..], 1.0),
        ("tidegate_handshakes_total", &[("outcome", "admitted")], 1.0),
        ("tidegate_tokens_consumed_total", &[("outcome", "consumed")], 1.0),
        ("tidegate_tokens_consumed_total", &[("outcome", "unknown_or_replayed")], 1.0),
        ("tidegate_upstream_requests_total", &[("upstream", "worker"), ("outcome", "taken")], 1.0),
        ("tidegate_deliveries_total", &[], 1.0),
        ("tidegate_redis_subscription_live", &[], 1.0),
    ] {
        assert_eq!(gateway.metric(name, labels).await, value, "{name}{labels:?}");
    }
    prometheus_can_read(&text);
}

/// Checks that every line is a comment or a sample; `promtool` checks more, if it is installed.
fn prometheus_can_read(page: &str) {
    for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        assert!(series.starts_with("tidegate_") || series.starts_with("process_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        return;
    };
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let warnings = String::from_utf8_lossy(&checked.stderr);
    // Exit code 3 means that the page is valid but has warnings about style.
    assert!(matches!(checked.status.code(), Some(0 | 3)), "promtool: {warnings}");
}

#[tokio::test]
async fn health_needs_no_key() {
    let settings = Settings::chat("http://127.0.0.1:1/").section("engine", MEMORY_ONLY);
    let gateway = Gateway::start(settings).await;
    let live = http::get(gateway.admin(), "/livez").await;
    assert_eq!((live.status, live.text().as_str()), (200, "ok\n"));
    let ready = http::get(gateway.admin(), "/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(
        ready.json(),
        json!({"ready": true, "checks": {"subscriptions": "ok", "shutdown": "ok"}})
    );
    let head = http::send(gateway.admin(), "HEAD", "/livez", &[], "".into()).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn publications_are_delivered_byte_for_byte_and_in_order() {
    let settings = Settings::chat("http://127.0.0.1:1/").without_history();
    let gateway = Gateway::start(settings).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let key = format!("Bearer {API_KEY}");
    let headers = [("authorization", key.as_str())];
    for data in [r#"{"event" : "x", "n": 1.50, "é": "\u00e9"}"#, "[1, 2]", "\"text\"", "null"] {
        let body = format!("{{\"channel\":\"chat_42\",\"data\":{data}}}");
        let answer =
            http::send(gateway.admin(), "POST", "/v1/publish", &headers, body.into()).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"published": 1})));
        assert_eq!(client.next().await, Event::Text(data.to_owned()));
    }
    let many: Vec<Value> =
        (0..100).map(|n| json!({"channel": "chat_42", "data": {"n": n}})).collect();
    let answer = gateway.api("/v1/publish", json!({"publications": many})).await;
    let channels = json!([{"channel": "chat_42"}]);
    let expected = json!({"published": 100, "channels": channels});
    assert_eq!((answer.status, answer.json()), (200, expected));
    for n in 0..100 {
        assert_eq!(client.next_json().await, json!({"n": n}));
    }
}

#[tokio::test]
async fn a_bad_publication_is_refused_with_a_reason() {
    let settings =
        Settings::chat("http://127.0.0.1:1/").section("engine", "max_publication_bytes = \"1KiB\"");
    let gateway = Gateway::start(settings).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let good = json!({"channel": "chat_42", "data": 1});
    let large = "x".repeat(2000);
    let too_many: Vec<Value> = vec![good.clone(); 1001];
    for (body, status, code) in [
        (json!([]), 400, "bad_request"),
        (json!({}), 400, "bad_request"),
        (json!({"channel": "chat_42"}), 400, "bad_request"),
        (json!({"channel": "chat_42", "data": 1, "more": 1}), 400, "bad_request"),
        (json!({"channel": "", "data": 1}), 400, "bad_channel"),
        (json!({"channel": "no spaces", "data": 1}), 400, "bad_channel"),
        (json!({"publications": [good, {"channel": "", "data": 1}]}), 400, "bad_channel"),
        (json!({"publications": too_many}), 400, "bad_request"),
        (json!({"channel": "chat_42", "data": large}), 413, "too_large"),
        (json!({"channel": "chat_42", "data": "x".repeat(200_000)}), 413, "too_large"),
    ] {
        let answer = gateway.api("/v1/publish", body.clone()).await;
        let shown: String = body.to_string().chars().take(80).collect();
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["code"]), (status, &json!(code)), "{shown}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{shown}");
    }
    let headers = [("x-api-key", API_KEY)];
    let broken = http::send(gateway.admin(), "POST", "/v1/publish", &headers, "{\"a".into()).await;
    assert_eq!(broken.status, 400);
    client.send_json(&json!({"type": "ping"})).await;
    client.next_event("pong").await;
}

#[tokio::test]
async fn the_server_api_needs_one_of_its_keys() {
    let gateway = Gateway::start(Settings::chat("http://127.0.0.1:1/")).await;
    let bearer = format!("bearer {API_KEY}");
    let longer = format!("{API_KEY}x");
    let publication = json!({"channel": "chat_42", "data": 1});
    for (headers, status) in [
        (vec![], 401),
        (vec![("authorization", "Bearer ")], 401),
        (vec![("authorization", "Bearer wrong")], 401),
        (vec![("authorization", "Basic dGVzdA==")], 401),
        (vec![("x-api-key", longer.as_str())], 401),
        (vec![("authorization", bearer.as_str())], 200),
        (vec![("x-api-key", API_KEY)], 200),
    ] {
        for (path, body) in [("/v1/publish", &publication), ("/v1/tokens", &json!({"user_id": 1}))]
        {
            let answer = http::post(gateway.admin(), path, &headers, body).await;
            assert_eq!(answer.status, status, "{path} {headers:?}");
        }
    }
    let without =
        Settings::chat("http://127.0.0.1:1/").section("admin", "listen = \"127.0.0.1:0\"");
    let gateway = Gateway::start(without).await;
    for key in ["", API_KEY] {
        let answer =
            http::post(gateway.admin(), "/v1/publish", &[("x-api-key", key)], &publication).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (403, &json!("api_disabled")));
    }
    assert_eq!(http::get(gateway.admin(), "/metrics").await.status, 200, "needs no key");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let upstream = Upstream::start(|_| Reply::status(204)).await;
    let gateway = Gateway::start(Settings::chat(&upstream.url("/"))).await;
    for (method, path, status, allow) in [
        ("GET", "/", 404, None),
        ("GET", "/v1/other", 404, None),
        ("GET", PATH, 404, None),
        ("POST", "/metrics", 405, Some("GET, HEAD, OPTIONS")),
        ("DELETE", "/readyz", 405, Some("GET, HEAD, OPTIONS")),
        ("GET", "/v1/publish", 405, Some("POST, OPTIONS")),
        ("PUT", "/v1/tokens", 405, Some("POST, OPTIONS")),
    ] {
        let answer = http::send(gateway.admin(), method, path, &[], "".into()).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
    // None of it is on the public port either.
    for path in ["/metrics", "/livez", "/readyz", "/v1/publish"] {
        assert_eq!(http::get(gateway.addr(), path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn the_queue_of_a_slow_client_is_measured_until_it_closes() {
    const MESSAGES: usize = 40;
    let queue = "send_queue = { messages = 100, bytes = \"64MiB\" }\n";
    let settings =
        Settings::chat("http://127.0.0.1:1/").each_route(|route| format!("{route}{queue}"));
    let gateway = Gateway::start(settings).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let data = json!({"event": "chunk", "text": "x".repeat(900_000)});
    for _ in 0..MESSAGES {
        gateway.publish("chat_42", data.clone()).await;
    }
    super::rig::until("queued bytes", async || {
        (gateway.metric("tidegate_send_queue_bytes", &[]).await > 1e6).then_some(())
    })
    .await;
    for _ in 0..MESSAGES {
        client.next_event("chunk").await;
    }
    gateway.wait_for_metric("tidegate_send_queue_bytes", &[], 0.0).await;
}
