//! The log: which connection each line is about, what is never logged, and what is throttled.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::chat::{APP, chat, session_with};
use crate::outcome::Outcome::{Closed, Connected};
use crate::outcome::outcome;
use crate::rig::{API_KEY, Client, Gateway, Redis, Settings, Upstream, http, until};

const PATH: &str = "/ws/chat/42/";
const SECRET_TEXT: &str = "nobody-else-reads-this";

fn texts<'a>(lines: &'a [Value], field: &str) -> Vec<&'a str> {
    lines.iter().map(|line| line[field].as_str().unwrap_or("-")).collect()
}

#[tokio::test]
async fn a_message_can_be_followed_from_the_edge_to_the_upstream() {
    let upstream = Upstream::accepting().await;
    let settings = Settings::chat(&upstream.url("/"))
        .also("server", "trusted_proxies = [\"127.0.0.1/32\"]")
        .also("log", "level = \"debug\"");
    let mut gateway = Gateway::start(settings).await;
    let token = gateway.token(json!({"user_id": 7, "username": "ana"})).await;
    let path = format!("{PATH}?connection_token={token}");
    let mut client = Client::open(gateway.addr(), &path, &[("x-request-id", "edge-1")]).await;
    let connected = client.next_event("connected").await;
    let connection = connected["connection_id"].as_str().unwrap();
    client.send_json(&json!({"message": SECRET_TEXT, "id": "m1"})).await;
    let task_id = client.next_event("task_queued").await["task_id"].clone();
    client.send_json(&json!({"message": SECRET_TEXT.repeat(1000), "id": "m2"})).await;
    assert_eq!(client.next_event("error").await["code"], "message_too_long");
    drop(client);
    gateway.wait_for_event("connection_closed").await;
    gateway.stop().await;

    let request = upstream.next_request().await.json();
    assert_eq!(request["request_id"], "edge-1");
    assert_eq!(request["connection_id"], connection);

    for event in ["handshake_admitted", "connection_opened", "connection_closed"] {
        let lines = gateway.log_events(event);
        assert_eq!(texts(&lines, "connection"), [connection], "{event}");
        assert_eq!(texts(&lines, "request"), ["edge-1"], "{event}");
    }
    for event in ["frame_received", "upstream_asked", "message_queued", "message_refused"] {
        let line = gateway.wait_for_event(event).await;
        for (field, value) in [
            ("connection", connection),
            ("request", "edge-1"),
            ("user", "7"),
            ("channel", "chat_42"),
        ] {
            assert_eq!(line[field], value, "{event} {field}: {line}");
        }
    }
    let frames = gateway.log_events("frame_received");
    assert_eq!(texts(&frames, "message_id"), ["m1", "m2"]);
    let request = gateway.wait_for_event("upstream_asked").await;
    assert_eq!((&request["message_id"], &request["task_id"]), (&json!("m1"), &task_id));
    assert_eq!(gateway.wait_for_event("message_queued").await["task_id"], task_id);

    assert!(!gateway.stderr_contains(SECRET_TEXT), "a message's text");
    assert!(!gateway.stderr_contains(&token), "a token");
    assert!(!gateway.stderr_contains("connection_token="), "a query string");
}

#[tokio::test]
async fn a_stranger_does_not_choose_the_id_of_its_request() {
    let gateway = Gateway::start(chat("")).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let evil = [("origin", "https://evil.example"), ("x-request-id", "mine")];
    let refused = [evil[0], evil[1], ("traceparent", traceparent.as_str())];
    assert_eq!(outcome(&gateway, PATH, &refused).await, Closed(4003));
    let line = gateway.wait_for_event("handshake_refused").await;
    assert_eq!(line["cause"], "origin");
    let request = line["request"].as_str().unwrap();
    assert!(request.len() == 32 && request != trace, "{request}");
    assert_eq!(line["level"], "INFO", "a page that is not allowed is no warning");
    assert_eq!(line["ip"], "127.0.0.1");
    assert_eq!(line["connection"].as_str().map(str::len), Some(32));
}

#[tokio::test]
async fn the_audit_can_be_read_alone() {
    let settings = chat("").also("log", "level = \"audit=info,tidegate::cli=info,warn\"");
    let toml = settings.to_string();
    let gateway = Gateway::start(toml).await;
    let token = gateway.token(json!({"user_id": 7, "username": "ana"})).await;
    let path = format!("{PATH}?connection_token={token}");
    assert_eq!(outcome(&gateway, &path, &[]).await, Connected);
    assert_eq!(outcome(&gateway, &path, &[]).await, Closed(4001));
    gateway.api("/v1/disconnect", json!({"user_id": 7})).await;
    gateway.wait_for_event("disconnect_ordered").await;

    let issued = gateway.wait_for_event("token_issued").await;
    let used = gateway.wait_for_event("token_consumed").await;
    let replayed = gateway.wait_for_event("token_refused").await;
    for line in [&issued, &used, &replayed] {
        assert_eq!(
            (&line["target"], &line["token"]),
            (&json!("audit"), &issued["token"]),
            "{line}"
        );
    }
    assert_eq!((&issued["user"], &used["user"]), (&json!("7"), &json!("7")));
    assert_eq!(replayed["outcome"], "unknown_or_replayed");
    assert_eq!(gateway.events("connection_closed") + gateway.events("handshake_refused"), 0);
    assert!(!gateway.stderr_contains(&token));
}

#[tokio::test]
async fn repeated_lines_are_counted_instead_of_logged() {
    let mut gateway = Gateway::start(chat("").also("log", "repeats = \"3/1h\"")).await;
    for _ in 0..10 {
        let evil = [("origin", "https://evil.example")];
        assert_eq!(outcome(&gateway, PATH, &evil).await, Closed(4003));
    }
    gateway.wait_for_metric("tidegate_log_lines_suppressed_total", &[], 7.0).await;
    gateway.stop().await;
    assert_eq!(gateway.events("handshake_refused"), 3);
    let event = gateway.wait_for_event("lines_suppressed").await;
    assert_eq!((&event["of"], &event["suppressed"]), (&json!("handshake_refused"), &json!(7)));
    assert!(event["key"].as_str().unwrap().contains("cause=origin"), "{event}");
}

#[tokio::test]
async fn a_flood_of_refused_token_requests_does_not_fill_the_log() {
    let gateway = Gateway::start(chat("").also("log", "repeats = \"3/1h\"")).await;
    let path = "/api/v1/auth/ws-connection-token/";
    for _ in 0..10 {
        let evil = [("origin", "https://evil.example")];
        let refused = http::post(gateway.addr(), path, &evil, &json!({})).await;
        assert_eq!(refused.status, 403);
    }
    gateway.wait_for_metric("tidegate_log_lines_suppressed_total", &[], 7.0).await;
    let line = gateway.wait_for_event("issue_refused").await;
    assert_eq!(
        (&line["cause"], &line["origin"], &line["ip"]),
        (&json!("origin"), &json!("https://evil.example"), &json!("127.0.0.1"))
    );
    assert_eq!(gateway.events("issue_refused"), 3);
}

/// The users and channels that a gateway debugs, without the remaining time.
async fn debugged(gateway: &Gateway) -> Vec<Value> {
    let key = format!("Bearer {API_KEY}");
    let answer =
        http::send(gateway.admin(), "GET", "/v1/debug", &[("authorization", &key)], Bytes::new())
            .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut rows = answer.json()["debugged"].as_array().unwrap().clone();
    for row in &mut rows {
        let left = row.as_object_mut().unwrap().remove("seconds").unwrap();
        assert!((1..=3600).contains(&left.as_u64().unwrap()));
    }
    rows
}

#[tokio::test]
async fn one_user_is_debugged_on_all_nodes_for_a_time() {
    let redis = Redis::start().await;
    let upstream = Upstream::accepting().await;
    let settings = || Settings::chat(&upstream.url("/")).redis(&redis.url());
    let nodes = [Gateway::start(settings()).await, Gateway::start(settings()).await];
    for node in &nodes {
        node.wait_for_metric("tidegate_redis_up", &[("connection", "control")], 1.0).await;
    }
    let send_message = async |node: &Gateway, user: u64, text: &str| {
        let token = node.token(json!({"user_id": user, "username": "ana"})).await;
        let (mut client, _) =
            Client::connected(node, &format!("{PATH}?connection_token={token}")).await;
        client.send_json(&json!({"message": text})).await;
        client.next_event("task_queued").await;
    };
    let debug = async |node: &Gateway, user: u64, seconds: u64| {
        let answer = node.api("/v1/debug", json!({"user_id": user, "seconds": seconds})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json(), json!({"seconds": seconds, "nodes": 2}));
    };

    send_message(&nodes[1], 7, SECRET_TEXT).await;
    debug(&nodes[0], 7, 600).await;
    send_message(&nodes[1], 8, SECRET_TEXT).await;
    assert_eq!(nodes[1].events("frame_received"), 0, "before, or of others");
    send_message(&nodes[1], 7, SECRET_TEXT).await;
    let queued = nodes[1].wait_for_event("message_queued").await;
    assert_eq!((&queued["user"], &queued["level"]), (&json!("7"), &json!("DEBUG")));
    for event in ["handshake_admitted", "connection_opened", "frame_received", "upstream_asked"] {
        let users = nodes[1].log_events(event);
        assert_eq!(texts(&users, "user"), ["7"], "{event}");
    }
    for node in &nodes {
        assert_eq!(debugged(node).await, [json!({"user_id": "7"})]);
        node.wait_for_event("debug_ordered").await;
        assert!(!node.stderr_contains(SECRET_TEXT));
    }
    debug(&nodes[1], 7, 0).await;
    send_message(&nodes[1], 7, SECRET_TEXT).await;
    assert_eq!(nodes[1].events("frame_received"), 1);
    for node in &nodes {
        assert_eq!(debugged(node).await, [Value::Null; 0]);
    }
    for wrong in [
        json!({"user_id": 7}),
        json!({"user_id": 7, "seconds": 3601}),
        json!({"user_id": 7, "channel": "chat_42", "seconds": 1}),
        json!({"seconds": 1}),
    ] {
        assert_eq!(nodes[0].api("/v1/debug", wrong.clone()).await.status, 400, "{wrong}");
    }
    let audit = nodes[0].wait_for_event("admin_debug").await;
    assert_eq!(audit["target"], "audit");
}

#[tokio::test]
async fn a_refusal_says_what_a_person_needs_to_know() {
    let settings = chat("auth = [\"cookie\"]")
        .also("jwt", "audience = \"chat\"\nchannels_claim = \"channels\"");
    let gateway = Gateway::start(settings).await;
    let cookie = |claims| format!("access_token={}", session_with(claims));
    let good = cookie(json!({"aud": "chat", "channels": ["news"]}));
    let (other_audience, expired) =
        (cookie(json!({"aud": "mail"})), cookie(json!({"aud": "chat", "exp": 1})));
    let evil = ("origin", "https://evil.example");
    for (headers, code) in [
        (vec![evil], 4003),
        (vec![("origin", "null")], 4003),
        (vec![APP, ("cookie", &other_audience)], 4001),
        (vec![APP, ("cookie", &expired)], 4001),
        (vec![APP, ("cookie", &good)], 4003),
    ] {
        assert_eq!(outcome(&gateway, PATH, &headers).await, Closed(code));
    }
    let lines = gateway.log_events("handshake_refused");
    let fields = ["cause", "origin", "check", "claim", "user", "channel"];
    let found: Vec<_> = lines.iter().map(|line| fields.map(|field| line[field].clone())).collect();
    let none = json!(null);
    let app = json!(APP.1);
    assert_eq!(
        found,
        [
            [
                json!("origin"),
                json!(evil.1),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone()
            ],
            [
                json!("origin"),
                json!("null"),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone()
            ],
            [
                json!("jwt"),
                app.clone(),
                json!("wrong_claims"),
                json!("aud"),
                none.clone(),
                none.clone()
            ],
            [
                json!("jwt_expired"),
                app.clone(),
                json!("expired"),
                json!("exp"),
                none.clone(),
                none.clone()
            ],
            [json!("channel"), app.clone(), none.clone(), none, json!("7"), json!("chat_42")],
        ]
    );
    // The token endpoint says the same.
    let headers =
        [APP, ("authorization", &*format!("Bearer {}", session_with(json!({"aud": "mail"}))))];
    let path = "/api/v1/auth/ws-connection-token/";
    let refused = http::post(gateway.addr(), path, &headers, &json!({})).await;
    assert_eq!(refused.status, 401);
    let line = gateway.wait_for_event("issue_refused").await;
    assert_eq!((&line["origin"], &line["claim"]), (&app, &json!("aud")), "{line}");
    assert_eq!(line["ip"], "127.0.0.1");
}

#[tokio::test]
async fn a_closed_connection_has_the_clients_address_and_origin() {
    let gateway = Gateway::start(chat("auth = [\"anonymous\"]")).await;
    for (headers, origin) in [(vec![APP], json!(APP.1)), (vec![], json!(null))] {
        let before = gateway.events("connection_closed");
        assert_eq!(outcome(&gateway, PATH, &headers).await, Connected);
        let lines = until("another line", async || {
            let lines = gateway.log_events("connection_closed");
            (lines.len() > before).then_some(lines)
        })
        .await;
        let line = lines.last().expect("a line");
        assert_eq!((&line["address"], &line["origin"]), (&json!("127.0.0.1"), &origin), "{line}");
    }
}
