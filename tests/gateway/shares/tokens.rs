//! The token endpoint: rates per user and address, and a bound of the tokens that wait to be used.

use serde_json::{Value, json};

use super::{BEHIND_PROXY, address};
use crate::chat::{APP, chat, session, session_with};
use crate::engine::Engine;
use crate::outcome::Outcome::Connected;
use crate::outcome::outcome;
use crate::rig::http::{self, Response};
use crate::rig::{Gateway, Settings, until};

on_both_engines! {
    one_user_gets_tokens_at_its_rate_and_others_get_theirs,
    one_address_gets_tokens_at_its_rate_and_others_get_theirs,
    a_users_tokens_that_wait_to_be_used_are_bounded,
}

fn settings(tokens: &str) -> Settings {
    chat("auth = [\"connection_token\"]").section("server", BEHIND_PROXY).section("tokens", tokens)
}

async fn request_token(gateway: &Gateway, session: &str, client: &str) -> Response {
    let bearer = format!("Bearer {session}");
    let headers = [APP, ("authorization", bearer.as_str()), ("x-forwarded-for", client)];
    http::post(gateway.addr(), "/api/v1/auth/ws-connection-token/", &headers, &json!({})).await
}

#[track_caller]
fn assert_refused(answer: &Response, cause: &str) {
    assert_eq!((answer.status, &answer.json()["code"]), (429, &json!(cause)), "{}", answer.text());
    let wait: u64 = answer.header("retry-after").expect("a time to wait").parse().expect("seconds");
    assert!((1..=3600).contains(&wait), "{wait}");
}

/// Uses the token of an answer.
async fn connect(gateway: &Gateway, answer: &Response) {
    let answer: Value = answer.json();
    let token = answer["connection_token"].as_str().expect("a token");
    let path = format!("/ws/chat/42/?connection_token={token}");
    assert_eq!(outcome(gateway, &path, &[APP]).await, Connected);
}

/// Fifty other users get a token and connect with it.
async fn others_get_tokens(gateway: &Gateway) {
    for number in 1..=50 {
        let session = session_with(json!({"user_id": 1000 + i32::from(number)}));
        let (_, client) = address(number);
        let answer = request_token(gateway, &session, &client).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        connect(gateway, &answer).await;
    }
}

async fn one_user_gets_tokens_at_its_rate_and_others_get_theirs(engine: Engine) {
    let gateway = engine.start(settings("")).await;
    let session = session();
    let mut issued = 0;
    let refused = loop {
        // From many addresses.
        let (_, client) = address(100 + issued % 100);
        let answer = request_token(&gateway, &session, &client).await;
        match answer.status {
            200 => issued += 1,
            _ => break answer,
        }
        assert!(issued < 200, "a user without a rate");
    };
    // The bound of tokens that wait to be used comes before the rate.
    assert_refused(&refused, "outstanding_per_user");
    assert_eq!(issued, 100);
    for _ in 0..30 {
        let answer = request_token(&gateway, &session, "192.0.2.200").await;
        assert_eq!(answer.status, 429);
    }
    assert_refused(
        &request_token(&gateway, &session, "192.0.2.200").await,
        "token_requests_per_user",
    );
    let line = gateway.wait_for_event("issue_refused").await;
    assert_eq!((&line["user"], &line["cause"]), (&json!("7"), &json!("outstanding_per_user")));
    assert!(line["ip"].as_str().is_some_and(|ip| ip.starts_with("192.0.2.")), "{line}");
    others_get_tokens(&gateway).await;
    let refused = [("cause", "token_requests_per_user")];
    assert!(gateway.metric("tidegate_token_requests_refused_total", &refused).await >= 1.0);
    let limit = [("limit", "token_requests_per_user")];
    assert!(gateway.metric("tidegate_limit_refusals_total", &limit).await >= 1.0);
}

async fn one_address_gets_tokens_at_its_rate_and_others_get_theirs(engine: Engine) {
    let gateway = engine.start(settings("requests_per_ip = \"3/1h\"")).await;
    // A customer has all the addresses of a network, and no credentials are needed to be counted.
    for n in 0..3 {
        let client = format!("2001:db8:1:2::{n}");
        assert_eq!(request_token(&gateway, "rubbish", &client).await.status, 401);
    }
    let user = session_with(json!({"user_id": 8}));
    assert_refused(
        &request_token(&gateway, &user, "2001:db8:1:2:3::9").await,
        "token_requests_per_ip",
    );
    for n in 0..3 {
        let client = if n == 0 { "::ffff:192.0.2.99" } else { "192.0.2.99" };
        assert_eq!(request_token(&gateway, &user, client).await.status, 200);
    }
    assert_refused(&request_token(&gateway, &user, "192.0.2.99").await, "token_requests_per_ip");
    others_get_tokens(&gateway).await;
}

async fn a_users_tokens_that_wait_to_be_used_are_bounded(engine: Engine) {
    let gateway = engine.start(settings("outstanding_per_user = 3")).await;
    let session = session();
    let request = async || request_token(&gateway, &session, "192.0.2.99").await;
    let first = request().await;
    for _ in 0..2 {
        assert_eq!(request().await.status, 200);
    }
    assert_refused(&request().await, "outstanding_per_user");
    // Tokens of the server API are not the user's doing.
    for _ in 0..5 {
        gateway.token(json!({"user_id": 7})).await;
    }
    others_get_tokens(&gateway).await;
    connect(&gateway, &first).await;
    // A token that was used makes room for one.
    until("another token", async || (request().await.status == 200).then_some(())).await;
    assert_refused(&request().await, "outstanding_per_user");
    if let Some(redis) = engine.server() {
        let key = "ws_conn_token:user:7";
        assert_eq!(redis.run::<u64>(&["ZCARD", key]).await, 3);
        assert!((1..=60).contains(&redis.run::<i64>(&["TTL", key]).await));
    }
}

#[tokio::test]
async fn tokens_that_expire_make_room() {
    for engine in [Engine::memory(), Engine::redis().await] {
        let gateway = engine.start(settings("ttl = \"300ms\"\noutstanding_per_user = 1")).await;
        let session = session();
        let request = async || request_token(&gateway, &session, "192.0.2.99").await;
        assert_eq!(request().await.status, 200);
        until("another token", async || (request().await.status == 200).then_some(())).await;
    }
}
