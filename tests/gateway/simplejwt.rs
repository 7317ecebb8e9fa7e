//! Sessions signed by djangorestframework-simplejwt: one user under two spellings of the id, and
//! sessions that Django's cache has revoked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::chat::{APP, SECRET, chat, relayed};
use crate::engine::Engine;
use crate::outcome::Outcome::{self, Closed, Connected};
use crate::outcome::outcome;
use crate::rig::{API_KEY, Client, Gateway, Redis, Settings, Upstream, http, jwt, until};

const ISSUE: &str = "/api/v1/auth/ws-connection-token/";
const KEY: &str = "app:1:session:version:1";

/// An access token with claims as simplejwt writes them; `user_id` is text since version 5.5.
fn access(user_id: &Value, session_version: Option<Value>) -> String {
    let mut claims = json!({
        "token_type": "access",
        "exp": jwt::in_seconds(900),
        "iat": jwt::in_seconds(0),
        "jti": "7ecadf0938ca4737a106776e3038d478",
        "user_id": user_id,
    });
    if let Some(version) = session_version {
        claims["session_version"] = version;
    }
    jwt::hs256(SECRET, &claims)
}

async fn by_cookie(gateway: &Gateway, jwt: &str) -> Outcome {
    outcome(gateway, "/ws/chat/42/", &[("cookie", &format!("access_token={jwt}"))]).await
}

async fn signed_in(gateway: &Gateway, user_id: &Value) -> Client {
    let cookie = format!("access_token={}", access(user_id, None));
    let mut client = Client::open(gateway.addr(), "/ws/chat/42/", &[("cookie", &cookie)]).await;
    let connected = client.next_event("connected").await;
    assert_eq!(&connected["user_id"], user_id, "it is passed on unchanged");
    client
}

async fn both_spellings_are_one_user_to_limits(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let limits = "[route.limits]\nmessages_per_user = \"2/1h\"\nconnections_per_user = 2";
    let gateway = engine.start(relayed(&upstream.url("/"), limits)).await;
    let mut text = signed_in(&gateway, &json!("1")).await;
    let mut number = signed_in(&gateway, &json!(1)).await;
    for client in [&mut text, &mut number] {
        client.send_json(&json!({"message": "hello"})).await;
        client.next_event("task_queued").await;
    }
    for client in [&mut text, &mut number] {
        client.send_json(&json!({"message": "hello"})).await;
        assert_eq!(client.next_event("error").await["code"], "rate_limited");
    }
    for user_id in [json!("1"), json!(1)] {
        assert_eq!(by_cookie(&gateway, &access(&user_id, None)).await, Closed(4029));
    }
    assert_eq!(by_cookie(&gateway, &access(&json!("01"), None)).await, Connected);
}

#[tokio::test]
async fn a_celery_task_gets_an_integer_from_either_spelling() {
    let redis = Redis::start().await;
    let lines = format!(
        "kind = \"celery\"\nbroker_url = {:?}\ntask = \"chat.reply\"\n\
         kwargs = {{ user_id = {{ int = \"{{user_id}}\" }}, message = \"{{message}}\" }}",
        redis.url()
    );
    let settings = chat("upstream = \"worker\"").upstream("worker", &lines);
    let gateway = Gateway::start(settings).await;
    gateway.wait_for_event("redis_connected").await;
    for user_id in [json!("1"), json!(1)] {
        let mut client = signed_in(&gateway, &user_id).await;
        client.send_json(&json!({"message": "hello"})).await;
        client.next_event("task_queued").await;
        let task: String = redis.run(&["RPOP", "celery"]).await;
        let task: Value = serde_json::from_str(&task).expect("JSON");
        let body = STANDARD.decode(task["body"].as_str().expect("a body")).expect("base64");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body[1], json!({"user_id": 1, "message": "hello"}));
    }
    let mut client = signed_in(&gateway, &json!("one")).await;
    client.send_json(&json!({"message": "hello"})).await;
    let error = client.next_event("error").await;
    assert_eq!(error["error"], "user_id is not an integer");
}

async fn a_message_id_is_relayed_once_whichever_spelling_sends_it(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let gateway = engine.start(relayed(&upstream.url("/"), "")).await;
    let message = json!({"message": "hello", "id": "m-1"});
    let mut tasks = Vec::new();
    for user_id in [json!("1"), json!(1)] {
        let mut client = signed_in(&gateway, &user_id).await;
        client.send_json(&message).await;
        tasks.push(client.next_event("task_queued").await);
    }
    assert_eq!(tasks[0]["task_id"], tasks[1]["task_id"]);
    assert_eq!(tasks[1]["duplicate"], true, "{tasks:?}");
    assert_eq!(upstream.requests().len(), 1);
}

async fn both_spellings_are_one_user_to_presence_and_commands(engine: Engine) {
    let gateway = engine.start(chat("presence = \"events\"").without_history()).await;
    let mut other = signed_in(&gateway, &json!("01")).await;
    other.next_event("join").await;
    let mut text = signed_in(&gateway, &json!("1")).await;
    assert_eq!(other.next_event("join").await["user_id"], "1");
    let mut number = signed_in(&gateway, &json!(1)).await;
    let list = until("three connections", async || {
        let key = format!("Bearer {API_KEY}");
        let path = "/v1/channels/chat_42/presence";
        let headers = [("authorization", key.as_str())];
        let list = http::send(gateway.admin(), "GET", path, &headers, "".into()).await.json();
        (list["total_connections"] == 3).then_some(list)
    })
    .await;
    assert_eq!(list["total_users"], 2, "{list}");
    let users = list["users"].as_array().expect("users");
    let counts: Vec<&Value> = users.iter().map(|user| &user["connections"]).collect();
    assert_eq!(counts.iter().filter(|count| **count == 2).count(), 1, "{list}");
    assert_eq!(users.len(), 2, "{list}");

    let order = json!({"user_id": 1});
    assert_eq!(gateway.api("/v1/disconnect", order).await.json()["closed"], 2);
    for client in [&mut text, &mut number] {
        until("the close", async || {
            matches!(client.next().await, crate::rig::Event::Closed(Some(4001), _)).then_some(())
        })
        .await;
    }
    // The second connection opened and closed without an event; only the last to close is announced.
    let left = other.next_event("leave").await;
    assert!(left["user_id"] == 1 || left["user_id"] == "1", "{left}");
    gateway.publish("chat_42", json!({"event": "marker"})).await;
    other.next_event("marker").await;
}

async fn either_spelling_refreshes_the_other(engine: Engine) {
    let gateway = engine.start(chat("")).await;
    for (record, session) in [(json!(1), json!("1")), (json!("1"), json!(1))] {
        let token = gateway.token(json!({"user_id": record, "session_expires_in": 600})).await;
        let path = format!("/ws/chat/42/?connection_token={token}");
        let (mut client, _) = Client::connected(&gateway, &path).await;
        let refresh = json!({"type": "refresh", "token": access(&session, None)});
        client.send_json(&refresh).await;
        let left = client.next_event("refreshed").await["expires_in"].as_u64();
        assert!(left.is_some_and(|left| left > 800), "{left:?}");
        let token = gateway.token(json!({"user_id": session})).await;
        client.send_json(&json!({"type": "refresh", "connection_token": token})).await;
        client.next_event("refreshed").await;
        for other in [json!("01"), json!(2), json!("+1"), json!("1.0")] {
            let refresh = json!({"type": "refresh", "token": access(&other, None)});
            client.send_json(&refresh).await;
            assert_eq!(client.next_event("error").await["code"], "invalid_credentials", "{other}");
        }
    }
}

#[tokio::test]
async fn cookies_of_either_spelling_are_of_one_user() {
    let gateway = Gateway::start(chat("")).await;
    for (other, expected) in [(json!(1), Connected), (json!("01"), Closed(4001))] {
        let (one, other) = (access(&json!("1"), None), access(&other, None));
        let both = format!("{one}; access_token={other}");
        assert_eq!(by_cookie(&gateway, &both).await, expected);
    }
}

fn versioned(more: &str) -> Settings {
    let key = "key = \"app:1:session:version:{user_id}\"";
    chat("").also("jwt", &format!("session_version = {{ {key}{more} }}"))
}

async fn store_version(redis: &Redis, version: &[u8]) {
    let mut set = redis::cmd("SET");
    set.arg(KEY).arg(version);
    set.query_async::<()>(&mut redis.connection().await).await.expect("a version is kept");
}

async fn issue(gateway: &Gateway, jwt: &str) -> u16 {
    let bearer = format!("Bearer {jwt}");
    http::post(gateway.addr(), ISSUE, &[("authorization", &bearer), APP], &json!({})).await.status
}

/// Sends a refresh. Returns the code of the error, or `None` if the connection was refreshed.
async fn refresh(client: &mut Client, jwt: &str) -> Option<String> {
    client.send_json(&json!({"type": "refresh", "token": jwt})).await;
    let answer = client.next_json().await;
    match &answer["code"] {
        Value::String(code) => Some(code.clone()),
        _ => {
            assert_eq!(answer["event"], "refreshed", "{answer}");
            None
        }
    }
}

#[tokio::test]
async fn a_session_that_was_ended_gets_no_further() {
    let engine = Engine::redis().await;
    let redis = engine.server().unwrap();
    let gateway = engine.start(versioned("")).await;
    let mut client = signed_in(&gateway, &json!("1")).await;
    let pickled = b"\x80\x05K\x02.";
    for (stored, claim, good) in [
        (None, Some(json!(1)), true),
        (Some(&b"1"[..]), Some(json!(1)), true),
        (Some(b"1"), Some(json!("1")), true),
        (Some(b"1"), None, true),
        (Some(b"2"), Some(json!(1)), false),
        (Some(b"2"), Some(json!(3)), false),
        (Some(b"2"), Some(json!(true)), false),
        (Some(b"2"), None, true),
        (Some(pickled), Some(json!(1)), false),
        (Some(pickled), Some(json!(2)), true),
    ] {
        if let Some(stored) = stored {
            store_version(redis, stored).await;
        }
        for user_id in [json!("1"), json!(1)] {
            let jwt = access(&user_id, claim.clone());
            let case = format!("{stored:?} {claim:?}");
            let (entered, issued, refreshed) = if good {
                (Connected, 200, None)
            } else {
                (Closed(4001), 401, Some("invalid_credentials"))
            };
            assert_eq!(by_cookie(&gateway, &jwt).await, entered, "{case}");
            assert_eq!(issue(&gateway, &jwt).await, issued, "{case}");
            assert_eq!(refresh(&mut client, &jwt).await.as_deref(), refreshed, "{case}");
        }
    }
    // Sessions of other users continue.
    assert_eq!(by_cookie(&gateway, &access(&json!("11"), Some(json!(9)))).await, Connected);
    let labels = [("outcome", "over")];
    assert!(gateway.metric("tidegate_sessions_checked_total", &labels).await >= 3.0);
    assert_eq!(gateway.wait_for_event("session_over").await["user"], "1");
}

#[tokio::test]
async fn what_is_no_version_lets_nobody_in() {
    let engine = Engine::redis().await;
    let gateway = engine.start(versioned("")).await;
    store_version(engine.server().unwrap(), b"\x80\x05cposix\nsystem\n.").await;
    let jwt = access(&json!("1"), Some(json!(1)));
    assert_eq!(by_cookie(&gateway, &jwt).await, Closed(1013));
    assert_eq!(issue(&gateway, &jwt).await, 503);
}

async fn without_its_redis_no_session_is_accepted(engine: Engine) {
    let mut sessions = Redis::start().await;
    let url = format!(", claim = \"session_version\", redis_url = {:?}", sessions.url());
    let gateway = engine.start(versioned(&url)).await;
    store_version(&sessions, b"1").await;
    let jwt = access(&json!("1"), Some(json!(1)));
    assert_eq!(by_cookie(&gateway, &jwt).await, Connected);
    let mut client = signed_in(&gateway, &json!("1")).await;
    sessions.stop();
    assert_eq!(by_cookie(&gateway, &jwt).await, Closed(1013));
    assert_eq!(issue(&gateway, &jwt).await, 503);
    assert_eq!(refresh(&mut client, &jwt).await.as_deref(), Some("engine_unavailable"));
    assert_eq!(by_cookie(&gateway, &access(&json!("1"), None)).await, Connected, "nothing to ask");
    until("readiness that tells", async || {
        let ready = http::get(gateway.admin(), "/readyz").await;
        (ready.status == 503 && ready.text().contains("redis_sessions")).then_some(())
    })
    .await;
    sessions.restart().await;
    store_version(&sessions, b"1").await;
    until("entry", async || (by_cookie(&gateway, &jwt).await == Connected).then_some(())).await;
    assert_eq!(refresh(&mut client, &jwt).await, None);
}

on_both_engines!(
    both_spellings_are_one_user_to_limits,
    a_message_id_is_relayed_once_whichever_spelling_sends_it,
    both_spellings_are_one_user_to_presence_and_commands,
    either_spelling_refreshes_the_other,
    without_its_redis_no_session_is_accepted,
);
