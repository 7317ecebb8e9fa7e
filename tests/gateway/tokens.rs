//! Connection tokens: who may get one, what it is bound to, and that it opens one socket once.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::chat::{APP, chat, session, session_with};
use crate::engine::Engine;
use crate::outcome::Outcome::{Closed, Connected};
use crate::outcome::{Outcome, outcome};
use crate::rig::raw::{Received, handshake};
use crate::rig::{API_KEY, Client, Gateway, RawClient, http, until};

const ISSUE: &str = "/api/v1/auth/ws-connection-token/";
/// A token of the right length that the gateway did not issue.
const BY_HAND: &str = "abcdefghijklmnopqrstuvwxyz_ABCDEFGHIJKLMNOP";

async fn enter(gateway: &Gateway, conversation: &str, token: &str) -> Outcome {
    enter_from(gateway, conversation, token, &[]).await
}

async fn enter_from(
    gateway: &Gateway,
    conversation: &str,
    token: &str,
    headers: &[(&str, &str)],
) -> Outcome {
    let path = format!("/ws/chat/{conversation}/?connection_token={token}");
    outcome(gateway, &path, headers).await
}

async fn request_token(
    gateway: &Gateway,
    headers: &[(&str, &str)],
    body: &Value,
) -> http::Response {
    http::post(gateway.addr(), ISSUE, headers, body).await
}

fn token_in(answer: &http::Response) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["connection_token"].as_str().expect("a token").to_owned()
}

async fn a_signed_in_browser_gets_a_token(engine: Engine) {
    let gateway = engine.start(chat("")).await;
    let cookie = format!("csrftoken=c5rf; access_token={}", session());
    let headers = [("cookie", cookie.as_str()), ("x-csrftoken", "c5rf"), APP];
    let answer = request_token(&gateway, &headers, &json!({"connection_id": "tab-1"})).await;
    let token = token_in(&answer);
    assert_eq!(answer.json()["expires_in"], 60);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP.1));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("vary"), Some("Origin"));
    let path = format!("/ws/chat/42/?connection_token={token}");
    let mut client = Client::open(gateway.addr(), &path, &[APP]).await;
    assert_eq!(client.next_event("connected").await["user_id"], 7);
    assert_eq!(enter_from(&gateway, "42", &token, &[APP]).await, Closed(4001), "used");

    let bearer = format!("Bearer {}", session());
    let by_bearer = request_token(&gateway, &[("authorization", &bearer)], &json!({})).await;
    assert_eq!(enter(&gateway, "42", &token_in(&by_bearer)).await, Connected);
    let unslashed = ISSUE.trim_end_matches('/');
    let answer =
        http::post(gateway.addr(), unslashed, &[("authorization", &bearer)], &json!({})).await;
    assert_eq!(enter(&gateway, "42", &token_in(&answer)).await, Connected);
}

#[tokio::test]
async fn nobody_else_gets_a_token() {
    let gateway = Gateway::start(chat("")).await;
    let (cookie, bearer) = (format!("access_token={}", session()), format!("Bearer {}", session()));
    let with_csrf = format!("{cookie}; csrftoken=right");
    let empty_csrf = format!("{cookie}; csrftoken=");
    let expired = format!("Bearer {}", session_with(json!({"exp": 1})));
    let refresh = format!("Bearer {}", session_with(json!({"token_type": "refresh"})));
    let evil = ("origin", "https://app.example.com.evil.test");
    for (case, headers, status) in [
        ("nothing", vec![APP], 401),
        ("an expired session", vec![("authorization", expired.as_str())], 401),
        ("a refresh token", vec![("authorization", refresh.as_str())], 401),
        ("no CSRF at all", vec![("cookie", cookie.as_str()), APP], 403),
        ("no CSRF header", vec![("cookie", with_csrf.as_str()), APP], 403),
        ("no CSRF cookie", vec![("cookie", cookie.as_str()), ("x-csrftoken", "right")], 403),
        ("a wrong CSRF header", vec![("cookie", &with_csrf), ("x-csrftoken", "wrong")], 403),
        ("empty CSRF", vec![("cookie", &empty_csrf), ("x-csrftoken", "")], 403),
        (
            "two CSRF headers",
            vec![("cookie", &with_csrf), ("x-csrftoken", "right"), ("x-csrftoken", "wrong")],
            403,
        ),
        ("another origin", vec![("authorization", &bearer), evil], 403),
        ("origin null", vec![("authorization", &bearer), ("origin", "null")], 403),
        ("two origins", vec![("authorization", &bearer), APP, evil], 403),
    ] {
        let answer = request_token(&gateway, &headers, &json!({})).await;
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        assert!(answer.json().get("connection_token").is_none(), "{case}");
        let foreign = headers.iter().any(|(name, value)| *name == "origin" && *value != APP.1);
        let allowed = answer.header("access-control-allow-origin");
        assert!(!foreign || allowed.is_none(), "{case}: allowed {allowed:?}");
    }
}

#[tokio::test]
async fn preflights_and_other_methods_are_answered() {
    let gateway = Gateway::start(chat("")).await;
    let requested_method = ("access-control-request-method", "POST");
    let send = async |method: &str, headers: &[(&str, &str)]| {
        http::send(gateway.addr(), method, ISSUE, headers, Bytes::new()).await
    };
    let preflight = send("OPTIONS", &[APP, requested_method]).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some(APP.1));
    assert_eq!(preflight.header("access-control-allow-credentials"), Some("true"));
    let allowed = preflight.header("access-control-allow-headers").expect("headers");
    for name in ["content-type", "authorization", "x-csrftoken"] {
        assert!(allowed.contains(name), "{name} in {allowed}");
    }
    assert!(preflight.header("access-control-allow-methods").unwrap().contains("POST"));
    let evil = send("OPTIONS", &[("origin", "https://evil.test"), requested_method]).await;
    assert_eq!((evil.status, evil.header("access-control-allow-origin")), (403, None));
    for method in ["GET", "PUT", "DELETE"] {
        let answer = send(method, &[APP]).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST, OPTIONS")));
    }
    let none = Gateway::start(chat("").section("tokens", "issue_path = \"\"")).await;
    assert_eq!(http::post(none.addr(), ISSUE, &[], &json!({})).await.status, 404);
}

#[tokio::test]
async fn a_wish_is_read_strictly() {
    let gateway = Gateway::start(chat("")).await;
    let bearer = format!("Bearer {}", session());
    let long = json!({"connection_id": "x".repeat(257)}).to_string();
    let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(9000));
    for (body, status) in [
        ("", 200),
        ("  ", 200),
        ("{}", 200),
        ("{\"unknown\":[1]}", 200),
        ("rubbish", 400),
        ("\"text\"", 400),
        ("[\"tab\"]", 400),
        ("null", 400),
        ("{\"connection_id\":7}", 400),
        ("{\"connection_id\":\"a\"", 400),
        ("\u{0}\u{1}", 400),
        ("{\"channel\":\"chat_1\",\"path\":\"/ws/chat/1/\"}", 400),
        (&long, 400),
        (&huge, 413),
        ("{\"channel\":\"\"}", 403),
        ("{\"channel\":\"chat_*\"}", 403),
        ("{\"path\":\"/elsewhere\"}", 403),
    ] {
        let headers = [("authorization", bearer.as_str())];
        let body = Bytes::copy_from_slice(body.as_bytes());
        let answer = http::send(gateway.addr(), "POST", ISSUE, &headers, body.clone()).await;
        assert_eq!(answer.status, status, "{body:?}: {}", answer.text());
    }
}

async fn a_token_is_bound_to_the_channel_that_was_wished(engine: Engine) {
    let gateway = engine.start(chat("")).await;
    let bearer = format!("Bearer {}", session());
    let headers = [("authorization", bearer.as_str())];
    for wish in [
        json!({"channel": "chat_42"}),
        json!({"path": "/ws/chat/42/"}),
        json!({"path": "/ws/chat/42?since=3"}),
    ] {
        for (conversation, expected) in [("42", Connected), ("43", Closed(4003))] {
            let token = token_in(&request_token(&gateway, &headers, &wish).await);
            assert_eq!(enter(&gateway, conversation, &token).await, expected, "{wish}");
        }
    }
    let limited = format!("Bearer {}", session_with(json!({"channels": ["chat_1", "chat_5*"]})));
    let headers = [("authorization", limited.as_str())];
    assert_eq!(request_token(&gateway, &headers, &json!({"channel": "chat_2"})).await.status, 403);
    assert_eq!(
        request_token(&gateway, &headers, &json!({"path": "/ws/chat/2/"})).await.status,
        403
    );
    for (conversation, expected) in [("1", Connected), ("55", Connected), ("2", Closed(4003))] {
        let token = token_in(&request_token(&gateway, &headers, &json!({})).await);
        assert_eq!(enter(&gateway, conversation, &token).await, expected, "{conversation}");
    }
}

async fn a_token_is_bound_to_channels_and_origin_of_its_record(engine: Engine) {
    let gateway = engine.start(chat("")).await;
    let other = ("origin", "https://a.wild.example");
    let bound = json!({"user_id": 1, "channels": ["chat_42", "room_*"]});
    let from = json!({"user_id": 1, "origin": APP.1});
    let nowhere = json!({"user_id": 1, "channels": []});
    for (record, conversation, headers, expected) in [
        (&bound, "42", &[] as &[_], Connected),
        (&bound, "421", &[], Closed(4003)),
        (&nowhere, "42", &[], Closed(4003)),
        (&from, "42", &[APP], Connected),
        (&from, "42", &[other], Closed(4003)),
        (&from, "42", &[], Closed(4003)),
    ] {
        let token = gateway.token(record.clone()).await;
        let found = enter_from(&gateway, conversation, &token, headers).await;
        assert_eq!(found, expected, "{record} in {conversation} from {headers:?}");
    }
}

async fn a_binding_compares_the_connection_id_with_the_path(engine: Engine) {
    let settings = chat("").section("tokens", "binding = \"chat-{conversation_id}-*\"");
    let gateway = engine.start(settings).await;
    for (id, conversation, expected) in [
        (json!("chat-42-1764500000"), "42", Connected),
        (json!("chat-42-1764500000"), "43", Closed(4003)),
        (json!("chat-421-1764500000"), "42", Closed(4003)),
        (json!("chat-42"), "42", Closed(4003)),
        (json!(null), "42", Closed(4003)),
        (json!("chat-42-1764500000"), "*", Closed(4003)),
    ] {
        let token = gateway.token(json!({"user_id": 1, "connection_id": id})).await;
        assert_eq!(enter(&gateway, conversation, &token).await, expected, "{id} {conversation}");
    }
}

async fn a_token_that_is_none_is_refused(engine: Engine) {
    let gateway = engine.start(chat("")).await;
    let long = "x".repeat(10_000);
    for token in
        ["", "short", BY_HAND, long.as_str(), "%00%01%ff%fe", "*", "../../x", "%0d%0aDEL%20x"]
    {
        let shown = &token[..token.len().min(20)];
        assert_eq!(enter(&gateway, "42", token).await, Closed(4001), "{shown}");
    }
    let token = gateway.token(json!({"user_id": 1})).await;
    assert_eq!(enter(&gateway, "42", &token[..token.len() - 1]).await, Closed(4001));
    assert_eq!(enter(&gateway, "42", &format!("{token}A")).await, Closed(4001));
    assert_eq!(enter(&gateway, "42", &token).await, Connected);
    assert_eq!(enter(&gateway, "42", &token).await, Closed(4001), "used");
}

async fn a_token_expires(engine: Engine) {
    let lines = "[route.limits]\nconnects_per_user = \"off\"\nconnections_per_user = 0";
    let gateway = engine.start(chat(lines).section("tokens", "ttl = \"1s\"")).await;
    let mut tokens = Vec::new();
    for _ in 0..500 {
        tokens.push(gateway.token(json!({"user_id": 1})).await);
    }
    let newest = tokens.pop().unwrap();
    assert_eq!(enter(&gateway, "42", &newest).await, Connected);
    let unused = tokens[0].clone();
    if let Some(redis) = engine.server() {
        let keys = redis.run::<Vec<String>>(&["KEYS", "ws_conn_token:*"]).await;
        assert!(!keys.is_empty(), "no records under the prefix");
        until("end of all records", async || {
            let keys = redis.run::<Vec<String>>(&["KEYS", "ws_conn_token:*"]).await;
            keys.is_empty().then_some(())
        })
        .await;
    } else {
        // Each attempt consumes a token.
        until("refusal of a token that was never used", async || {
            let token = tokens.pop().expect("enough tokens");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            (enter(&gateway, "42", &token).await == Closed(4001)).then_some(())
        })
        .await;
    }
    assert_eq!(enter(&gateway, "42", &unused).await, Closed(4001));
}

async fn two_hundred_simultaneous_uses_have_one_winner(engine: Engine) {
    one_of_two_hundred_wins(&[engine.start(chat("")).await]).await;
}

#[tokio::test]
async fn two_nodes_let_a_token_in_once() {
    let engine = Engine::redis().await;
    let nodes = [engine.start(chat("")).await, engine.start(chat("")).await];
    one_of_two_hundred_wins(&nodes).await;
}

async fn one_of_two_hundred_wins(nodes: &[Gateway]) {
    let token = nodes[0].token(json!({"user_id": 1})).await;
    let mut clients = Vec::new();
    for node in nodes.iter().cycle().take(200) {
        clients.push(RawClient::connect(node.addr()).await);
    }
    let request = handshake(&format!("/ws/chat/42/?connection_token={token}"), &[]);
    for client in &mut clients {
        client.write(request.as_bytes()).await;
    }
    let mut winners = 0;
    for client in &mut clients {
        assert_eq!(client.read_head().await.status, 101);
        match client.next().await {
            Received::Text(text) => {
                let connected: Value = serde_json::from_slice(&text).unwrap();
                assert_eq!(connected["event"], "connected");
                winners += 1;
            }
            received => assert!(matches!(received, Received::Close(Some(4001), _)), "{received:?}"),
        }
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn a_record_that_a_backend_wrote_is_a_token() {
    let engine = Engine::redis().await;
    let redis = engine.server().unwrap();
    let gateway = engine.start(chat("")).await;
    let key = format!("ws_conn_token:{BY_HAND}");
    let record = json!({"user_id": "u-1", "username": "ana", "connection_id": "tab",
        "created_at": "2026-01-01T00:00:00Z", "used": false, "more": {"is": "ignored"}});
    for (record, expected) in [
        (record.to_string(), Connected),
        ("{\"user_id\":1}".to_owned(), Connected),
        ("{\"user_id\":1,\"used\":true}".to_owned(), Closed(4001)),
        ("{\"user_id\":1,\"session_expires_at\":1}".to_owned(), Closed(4001)),
        ("{\"user_id\":1,\"channels\":[\"other\"]}".to_owned(), Closed(4003)),
        ("{\"user_id\":1,\"channels\":\"chat_42\"}".to_owned(), Closed(4001)),
        ("{\"user_id\":\"\"}".to_owned(), Closed(4001)),
        ("{\"username\":\"ana\"}".to_owned(), Closed(4001)),
        ("[1,\"ana\"]".to_owned(), Closed(4001)),
        ("rubbish".to_owned(), Closed(4001)),
        (String::new(), Closed(4001)),
    ] {
        let _: String = redis.run(&["SET", &key, &record, "EX", "60"]).await;
        assert_eq!(enter(&gateway, "42", BY_HAND).await, expected, "{record}");
        assert!(!redis.run::<bool>(&["EXISTS", &key]).await, "{record} is still there");
    }
    let _: i64 = redis.run(&["LPUSH", &key, "of another type"]).await;
    assert!(matches!(enter(&gateway, "42", BY_HAND).await, Closed(4001 | 1013)));
}

#[tokio::test]
async fn what_the_gateway_writes_is_the_documented_record() {
    let engine = Engine::redis().await;
    let gateway = engine.start(chat("")).await;
    let token = gateway
        .token(json!({"user_id": 5, "username": "ana", "channels": ["chat_42"],
            "origin": APP.1, "connection_id": "tab", "session_expires_in": 900}))
        .await;
    let key = format!("ws_conn_token:{token}");
    let redis = engine.server().unwrap();
    let record: String = redis.run(&["GET", &key]).await;
    let record: Value = serde_json::from_str(&record).unwrap();
    for (name, value) in [
        ("user_id", json!(5)),
        ("username", json!("ana")),
        ("connection_id", json!("tab")),
        ("used", json!(false)),
        ("channels", json!(["chat_42"])),
        ("origin", json!(APP.1)),
    ] {
        assert_eq!(record[name], value, "{record}");
    }
    assert!(record["created_at"].is_number() && record["session_expires_at"].is_u64(), "{record}");
    let ttl: i64 = redis.run(&["TTL", &key]).await;
    assert!((1..=60).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn the_server_api_issues_tokens_to_those_with_a_key() {
    let gateway = Gateway::start(chat("")).await;
    let body = json!({"user_id": 1});
    let wrong = [("authorization", "Bearer wrong")];
    let (empty, by_name) = ([("x-api-key", "")], [("x-api-key", API_KEY)]);
    for (headers, status) in [(&[] as &[_], 401), (&wrong, 401), (&empty, 401), (&by_name, 200)] {
        let answer = http::post(gateway.admin(), "/v1/tokens", headers, &body).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
    }
    let answer = gateway.api("/v1/tokens", body).await;
    assert_eq!(answer.json()["expires_in"], 60);
    assert_eq!(enter(&gateway, "42", &token_in(&answer)).await, Connected);
    for body in [
        json!({}),
        json!({"user_id": ""}),
        json!({"user_id": null}),
        json!({"user_id": [1]}),
        json!({"user_id": 1, "channels": "chat_1"}),
        json!({"user_id": 1, "chanels": ["chat_1"]}),
        json!([1]),
        json!("text"),
    ] {
        let answer = gateway.api("/v1/tokens", body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert!(answer.json()["error"]["code"].is_string(), "{}", answer.text());
    }
    let public = http::post(gateway.addr(), "/v1/tokens", &by_name, &json!({"user_id": 1})).await;
    assert_eq!(public.status, 404, "the server API on the public port");
}

on_both_engines!(
    a_signed_in_browser_gets_a_token,
    a_token_is_bound_to_the_channel_that_was_wished,
    a_token_is_bound_to_channels_and_origin_of_its_record,
    a_binding_compares_the_connection_id_with_the_path,
    a_token_that_is_none_is_refused,
    a_token_expires,
    two_hundred_simultaneous_uses_have_one_winner,
);
