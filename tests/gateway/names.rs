//! What a client writes stays its own: it reaches no other user's channel, no other system's names, no other path of the
//! upstream, and makes the upstream look broken to nobody else.

use serde_json::{Value, json};

use crate::chat::{chat, relayed, session, session_with};
use crate::outcome::Outcome::{Closed, Connected, Http};
use crate::outcome::{attempt, outcome};
use crate::rig::raw::handshake;
use crate::rig::{Client, Gateway, RawClient, Redis, Reply, Settings, Upstream};

const PATH: &str = "/ws/chat/42/";
const PING: &str = r#"{"type":"ping"}"#;

/// Expects that nothing else arrives before the answer to a ping.
async fn expect_nothing_more(client: &mut Client) {
    client.send_text(PING).await;
    client.next_event("pong").await;
}

async fn by_token(gateway: &Gateway, user: Value) -> Client {
    let token = gateway.token(json!({ "user_id": user })).await;
    Client::connected(gateway, &format!("{PATH}?connection_token={token}")).await.0
}

async fn answer_to(client: &mut Client, message: &str) -> Value {
    client.send_text(message).await;
    client.next_json().await
}

/// A chat that any user of this upstream can break with two failures.
fn fragile(url: &str) -> Settings {
    chat("upstream = \"worker\"\n[route.limits]\nmessages_per_connection = \"1000/1s\"").upstream(
        "worker",
        &format!(
            "kind = \"http\"\nurl = {url:?}\nretries = 0\n\
             circuit = {{ failures = 2, window = \"60s\", open = \"60s\" }}"
        ),
    )
}

#[tokio::test]
async fn messages_that_a_backend_cannot_read_are_not_relayed() {
    let upstream = Upstream::start(|_| Reply::status(500)).await;
    let gateway = Gateway::start(fragile(&upstream.url("/"))).await;
    let mut eve = by_token(&gateway, json!("eve")).await;
    let long = "9".repeat(5_000);
    let nested = [("[", "]"), ("{\"a\":", "}")].map(|(open, close)| {
        let depth = 1_200;
        format!("{}0{}", open.repeat(depth), close.repeat(depth))
    });
    for value in
        [&nested[0], &nested[1], "1e999", &long, "-1e400", r#""\ud83d""#, r#"{"\udc00":1}"#]
    {
        let answer = answer_to(&mut eve, &format!(r#"{{"message":"m","x":{value}}}"#)).await;
        assert_eq!(answer["code"], "invalid_json", "{answer}");
    }
    assert!(upstream.requests().is_empty());
    let answer =
        answer_to(&mut eve, r#"{"message":"m","x":[[[1.5e300,-7,18446744073709551615]]]}"#);
    assert_eq!(answer.await["code"], "upstream_unavailable", "relayed, and answered with 500");
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn one_sender_does_not_open_the_circuit_for_the_others() {
    // The upstream answers that it failed, breaks its connection, and a gateway in front of it gives up.
    let upstream = Upstream::start(|request| match request.json()["message"].as_str() {
        Some("500") => Reply::status(500),
        Some("503") => Reply::status(503),
        Some("crash") => Reply::Hangup,
        _ => Reply::status(202),
    })
    .await;
    let gateway = Gateway::start(fragile(&upstream.url("/"))).await;
    let mut eve = by_token(&gateway, json!("eve")).await;
    for message in ["500", "503", "crash", "503", "crash", "500"] {
        let answer = answer_to(&mut eve, &json!({ "message": message }).to_string()).await;
        assert_eq!(answer["code"], "upstream_unavailable", "{message}");
    }
    let tried: std::collections::BTreeSet<_> = upstream
        .requests()
        .iter()
        .map(|request| request.json()["message_id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(tried.len(), 6, "each was tried");
    let mut ana = by_token(&gateway, json!("ana")).await;
    assert_eq!(answer_to(&mut ana, r#"{"message":"hi"}"#).await["event"], "task_queued");
    // An upstream's own failure is none of its gateway, whoever sees it.
    for _ in 0..3 {
        answer_to(&mut ana, r#"{"message":"500"}"#).await;
    }
    let open = [("upstream", "worker")];
    assert_eq!(gateway.metric("tidegate_upstream_circuit_open", &open).await, 0.0);
    // The failures of two are those of the upstream.
    answer_to(&mut ana, r#"{"message":"503"}"#).await;
    assert_eq!(gateway.metric("tidegate_upstream_circuit_open", &open).await, 1.0);
}

#[tokio::test]
async fn a_channel_whose_name_clients_choose_is_behind_a_prefix() {
    let redis = Redis::start().await;
    let mut connection = redis.connection().await;
    let () = ::redis::cmd("CONFIG")
        .arg(&["SET", "notify-keyspace-events", "KEA"])
        .query_async(&mut connection)
        .await
        .expect("an answer");
    let open = |channel: &str| {
        let route = format!(
            "path = \"/ws/{{room}}/\"\nchannel = {channel:?}\nauth = [\"anonymous\"]\nhistory = {{ size = 0 }}"
        );
        Settings::new().redis(&redis.url()).route(&route)
    };
    let (code, log) = Gateway::start_failing(open("{room}")).await;
    assert_eq!(code, Some(1));
    assert!(log.contains("route[0].channel") && log.contains("channel_prefix"), "{log}");

    let prefixed = open("{room}").section("engine", "kind = \"redis\"\nchannel_prefix = \"room.\"");
    let gateway = Gateway::start(prefixed).await;
    let (mut eve, connected) = Client::connected(&gateway, "/ws/__keyevent@0__:set/").await;
    assert_eq!(connected["room"], "__keyevent@0__:set");
    let () = ::redis::cmd("SET").arg(&["k", "v"]).query_async(&mut connection).await.expect("set");
    gateway.publish("room.__keyevent@0__:set", json!({"event": "its own"})).await;
    eve.next_event("its own").await;
    expect_nothing_more(&mut eve).await;
    // Names of other systems are refused whoever asks.
    for name in ["__keyevent@0__:set", "tg:cancel", "asgi__group__x", "celery-task-meta-1"] {
        let refused = gateway.api("/v1/publish", json!({"channel": name, "data": {}})).await;
        assert_eq!(refused.json()["error"]["code"], "bad_channel", "{name}");
    }
}

#[tokio::test]
async fn names_of_other_systems_are_no_channels_of_a_config() {
    for (lines, key) in [
        ("channel = \"__keyevent@{room}\"", "route[0].channel"),
        ("channel = \"tg:{room}\"", "route[0].channel"),
        ("channel = \"asgi:group:{room}\"", "route[0].channel"),
        ("channel = \"celery-task-meta-{room}\"", "route[0].channel"),
        ("channel = \"{user_id}\"", "route[0].channel"),
        ("channel = \"{room}_{user_id}\"", "route[0].channel"),
    ] {
        let route = format!("path = \"/ws/{{room}}/\"\n{lines}\nauth = [\"anonymous\"]");
        let settings = Settings::new().redis("redis://127.0.0.1:1").route(&route);
        let (code, log) = Gateway::start_failing(settings).await;
        assert_eq!(code, Some(1), "{lines}");
        assert!(log.contains(key), "{lines}: {log}");
    }
    // A name that becomes a reserved one with what a client writes is refused at the door.
    let route = "path = \"/ws/{room}/\"\nchannel = \"_{room}\"\nauth = [\"anonymous\"]";
    let gateway = Gateway::start(Settings::new().route(route)).await;
    assert_eq!(outcome(&gateway, "/ws/_keyevent@0__:set/", &[]).await, Closed(4003));
    assert_eq!(outcome(&gateway, "/ws/x/", &[]).await, Connected);
}

#[tokio::test]
async fn no_value_leads_to_another_path_of_the_upstream() {
    let upstream = Upstream::accepting().await;
    let url = upstream.url("/internal/{conversation_id}/{user_id}");
    let gateway =
        Gateway::start(relayed(&url, "auth = [\"connection_token\", \"anonymous\"]")).await;
    for value in [
        ".",
        "..",
        "%2e",
        "%2E%2e",
        ".%2e",
        "%252e%252e",
        "%25252e.",
        "..%2fadmin",
        "x%2f..%2f..%2fadmin",
        "%2e%2e%5cadmin",
        "..;x",
        "%2e%2e%3bx=1%2fadmin",
        "..%20",
    ] {
        let path = format!("/ws/chat/{value}/");
        assert_eq!(outcome(&gateway, &path, &[]).await, Http(404), "{value}");
    }
    // Empty segments match no route.
    assert_eq!(outcome(&gateway, "/ws/chat//", &[]).await, Http(404));
    for user in [".", "..", "%2e%2e", "../admin", "a/../../b", "..;x"] {
        let mut client = by_token(&gateway, json!(user)).await;
        let answer = answer_to(&mut client, r#"{"message":"hi"}"#).await;
        assert_eq!(answer["code"], "upstream_rejected", "{user}");
    }
    assert!(upstream.requests().is_empty());
    let mut client = by_token(&gateway, json!("a/b.c")).await;
    assert_eq!(answer_to(&mut client, r#"{"message":"hi"}"#).await["event"], "task_queued");
    assert_eq!(upstream.next_request().await.path, "/internal/42/a%2Fb.c");
}

#[tokio::test]
async fn a_user_called_anonymous_shares_nothing_with_strangers() {
    let upstream = Upstream::accepting().await;
    let settings = relayed(&upstream.url("/of/{user_id}"), "auth = [\"cookie\", \"anonymous\"]")
        .each_route(|route| route.replace("chat_{conversation_id}", "user_{user_id}"));
    let gateway = Gateway::start(settings).await;
    let cookie = format!("access_token={}", session_with(json!({"user_id": "anonymous"})));
    let mut user = attempt(&gateway, PATH, &[("cookie", &cookie)]).await.expect("a session");
    let mut stranger = attempt(&gateway, PATH, &[]).await.expect("a session");
    gateway.publish("user_anonymous", json!({"event": "private"})).await;
    user.next_event("private").await;
    expect_nothing_more(&mut stranger).await;
    assert_eq!(answer_to(&mut stranger, r#"{"message":"hi"}"#).await["event"], "task_queued");
    assert_eq!(upstream.next_request().await.path, "/of/_anonymous_");
    // No user has the strangers' name.
    let cookie = format!("access_token={}", session_with(json!({"user_id": "_anonymous_"})));
    assert_eq!(outcome(&gateway, PATH, &[("cookie", &cookie)]).await, Closed(4001));
    let refused = gateway.api("/v1/tokens", json!({"user_id": "_anonymous_"})).await;
    assert_eq!(refused.status, 400);
}

/// The close code of a handshake with these header lines.
async fn close_code(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Option<u16> {
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(handshake(path, headers).as_bytes()).await;
    assert_eq!(client.read_head().await.status, 101);
    client.read_close().await
}

#[tokio::test]
async fn a_bad_credential_is_refused_wherever_it_is_and_whatever_else_is_good() {
    let auth = "auth = [\"cookie\", \"bearer\", \"query\", \"connection_token\", \"anonymous\"]";
    let gateway = Gateway::start(chat(auth)).await;
    let cookie = format!("access_token={}", session());
    let good = ("Cookie", cookie.as_str());
    assert_eq!(outcome(&gateway, PATH, &[good]).await, Connected);
    for header in [
        ("Sec-WebSocket-Protocol", "tidegate.v1, tidegate.token."),
        ("Sec-WebSocket-Protocol", "tidegate.v1, tidegate.token.a b"),
        ("Sec-WebSocket-Protocol", "tidegate.v1, tidegate.token.ä"),
        ("Sec-WebSocket-Protocol", "tidegate.v1, tidegate.token"),
        ("Sec-WebSocket-Protocol", "tidegate.v1, Tidegate.Token.x"),
        ("Sec-WebSocket-Protocol", "tidegate.v1, \"tidegate.token.x\""),
        ("Sec-WebSocket-Protocol", "tidegate.v1; tidegate.token.x"),
        ("Authorization", "Bearer"),
        ("Authorization", "Bearer x"),
        ("Authorization", "Bearer\tx"),
        ("Authorization", "bearer:x"),
        ("Authorization", "Bearer ä"),
        ("Authorization", "a.b.c"),
        ("Authorization", "\"Bearer x\""),
    ] {
        assert_eq!(close_code(&gateway, PATH, &[header, good]).await, Some(4001), "{header:?}");
        assert_eq!(close_code(&gateway, PATH, &[header]).await, Some(4001), "{header:?}");
    }
    for query in ["token=", "token=x", "token=%ff", "connection_token=", "connection_token=x"] {
        let path = format!("{PATH}?{query}");
        assert_eq!(close_code(&gateway, &path, &[good]).await, Some(4001), "{query}");
    }
    // A malformed cookie is not taken for none either.
    let quoted = format!("access_token=\"{}\"", session());
    assert_eq!(outcome(&gateway, PATH, &[("Cookie", &quoted)]).await, Connected);
    let half_quoted = quoted.trim_end_matches('"');
    for bad in [
        "access_token=x",
        "access_token = x",
        "a=1; access_token=\"",
        "access_token=ä",
        half_quoted,
    ] {
        assert_eq!(close_code(&gateway, PATH, &[("Cookie", bad)]).await, Some(4001), "{bad}");
    }
}
