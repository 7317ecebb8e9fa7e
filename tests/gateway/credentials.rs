//! The credentials of an open connection: the notice before they expire, their expiry, and their renewal.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::chat::{APP, chat, open_to_all, relayed, session, session_with};
use crate::engine::Engine;
use crate::outcome::Outcome::Connected;
use crate::outcome::{attempt, outcome};
use crate::rig::echo::WebSocketServer;
use crate::rig::{Client, Event, Gateway, Redis, Reply, Settings, Upstream, jwt};

const PING: &str = r#"{"type":"ping"}"#;

/// Connections are checked four times within this time.
const QUICK: &str = "pong_timeout = \"400ms\"";

fn strict(lines: &str) -> Settings {
    chat(&format!("{QUICK}\n{lines}")).also("jwt", "leeway = \"0s\"")
}

/// Connects with a connection token for the user of `record`.
async fn by_token(gateway: &Gateway, record: Value) -> Client {
    let token = gateway.token(record).await;
    Client::connected(gateway, &format!("/ws/chat/42/?connection_token={token}")).await.0
}

async fn by_cookie(gateway: &Gateway, session: &str) -> Client {
    let cookie = format!("access_token={session}");
    attempt(gateway, "/ws/chat/42/", &[("cookie", &cookie)]).await.expect("a session")
}

async fn offer_token(client: &mut Client, token: &str) {
    client.send_json(&json!({"type": "refresh", "connection_token": token})).await;
}

async fn offer_jwt(client: &mut Client, jwt: &str) {
    client.send_json(&json!({"type": "refresh", "token": jwt})).await;
}

/// The `expires_in` of the next event, which must be called `name`.
async fn expires_in(client: &mut Client, name: &str) -> u64 {
    let event = client.next_event(name).await;
    event["expires_in"].as_u64().unwrap_or_else(|| panic!("no seconds: {event}"))
}

/// The text of the next event, which must be an error with this `code`.
async fn expect_error(client: &mut Client, code: &str) -> Value {
    let mut error = client.next_event("error").await;
    assert_eq!(error["code"], code, "{error}");
    error["error"].take()
}

async fn expect_pong(client: &mut Client) {
    client.send_text(PING).await;
    client.next_event("pong").await;
}

/// Expects that the connection is closed because its credentials have expired.
async fn expect_expiry(client: &mut Client) {
    let received = client.next().await;
    assert!(matches!(received, Event::Closed(Some(4001), _)), "{received:?}");
}

async fn a_notice_is_sent_once_before_the_expiry(engine: Engine) {
    let gateway = engine.start(strict("expiry_notice = \"1s\"")).await;
    let mut record = by_token(&gateway, json!({"user_id": 1, "session_expires_in": 3})).await;
    let session = session_with(json!({"exp": jwt::in_seconds(3)}));
    let mut jwt = by_cookie(&gateway, &session).await;
    for client in [&mut record, &mut jwt] {
        assert_eq!(expires_in(client, "token_expiring_soon").await, 1);
        expect_expiry(client).await;
    }
    assert_eq!(gateway.metric("tidegate_expiry_notices_total", &[]).await, 2.0);
}

#[tokio::test]
async fn a_lifetime_shorter_than_the_notice_is_announced_after_connected() {
    let gateway = Gateway::start(strict("")).await;
    let mut client = by_token(&gateway, json!({"user_id": 1, "session_expires_in": 3})).await;
    let left = expires_in(&mut client, "token_expiring_soon").await;
    assert!((1..=3).contains(&left), "{left}");
    expect_expiry(&mut client).await;
}

#[tokio::test]
async fn without_a_notice_there_is_only_the_end() {
    let gateway = Gateway::start(strict("expiry_notice = \"0s\"")).await;
    expect_expiry(&mut by_token(&gateway, json!({"user_id": 1, "session_expires_in": 2})).await)
        .await;
}

async fn a_refresh_keeps_the_connection(engine: Engine) {
    let gateway = engine.start(strict("expiry_notice = \"0s\"")).await;
    let short = |expires_in: u64| json!({"user_id": 7, "session_expires_in": expires_in});
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(by_token(&gateway, short(5)).await);
    }
    let mut later = by_token(&gateway, short(6)).await;
    let [by_record, by_lasting_record, by_jwt] = &mut clients[..] else { panic!("three") };

    let token = gateway.token(json!({"user_id": 7, "session_expires_in": 600})).await;
    offer_token(by_record, &token).await;
    let left = expires_in(by_record, "refreshed").await;
    assert!((500..=600).contains(&left), "{left}");

    let token = gateway.token(json!({"user_id": 7})).await;
    offer_token(by_lasting_record, &token).await;
    let event = by_lasting_record.next_event("refreshed").await;
    assert_eq!(event, json!({"event": "refreshed", "expires_in": null}));

    offer_jwt(by_jwt, &session()).await;
    let left = expires_in(by_jwt, "refreshed").await;
    assert!((500..=600).contains(&left), "{left}");

    // By then the credentials that all of them connected with have expired.
    expect_expiry(&mut later).await;
    gateway.publish("chat_42", json!({"event": "chunk"})).await;
    for client in &mut clients {
        client.next_event("chunk").await;
        expect_pong(client).await;
    }
    let refreshed = [("outcome", "refreshed")];
    assert_eq!(gateway.metric("tidegate_refreshes_total", &refreshed).await, 3.0);
}

#[tokio::test]
async fn new_credentials_have_an_end_and_a_notice_of_their_own() {
    let gateway = Gateway::start(strict("")).await;
    let mut client = by_cookie(&gateway, &session()).await;
    let token = gateway.token(json!({"user_id": 7, "session_expires_in": 100})).await;
    offer_token(&mut client, &token).await;
    expires_in(&mut client, "refreshed").await;
    let left = expires_in(&mut client, "token_expiring_soon").await;
    assert!((50..=100).contains(&left), "{left}");
    offer_jwt(&mut client, &session_with(json!({"exp": jwt::in_seconds(3)}))).await;
    expires_in(&mut client, "refreshed").await;
    let left = expires_in(&mut client, "token_expiring_soon").await;
    assert!((1..=3).contains(&left), "{left}");
    expect_expiry(&mut client).await;
}

async fn all_invalid_credentials_are_refused_with_the_same_text(engine: Engine) {
    let settings = strict("[route.limits]\nmessages_per_connection = \"off\"")
        .section("tokens", "binding = \"chat-{conversation_id}-*\"");
    let gateway = engine.start(settings).await;
    let issue = async |changes: Value| {
        let mut record = json!({"user_id": 7, "connection_id": "chat-42-tab"});
        for (name, value) in changes.as_object().expect("an object") {
            record[name] = value.clone();
        }
        gateway.token(record).await
    };
    let used = issue(json!({"origin": APP.1})).await;
    let path = format!("/ws/chat/42/?connection_token={used}");
    let mut client = attempt(&gateway, &path, &[APP]).await.expect("a session");
    let claims = json!({"user_id": 7, "exp": jwt::in_seconds(600)});
    let signed = |changes: Value| ("token", session_with(changes));
    let by = |token: String| ("connection_token", token);
    let mut texts = Vec::new();
    let mut offered = Vec::new();
    for (outcome, (field, credential)) in [
        ("token", by(used)),
        ("token", by(String::new())),
        ("token", by("x".repeat(43))),
        ("token", by(session())),
        ("other_user", by(issue(json!({"user_id": 8})).await)),
        ("channel", by(issue(json!({"channels": ["chat_43"]})).await)),
        ("channel", by(issue(json!({"channels": []})).await)),
        ("token_origin", by(issue(json!({"origin": "https://a.wild.example"})).await)),
        ("token_binding", by(issue(json!({"connection_id": "chat-43-tab"})).await)),
        ("token_binding", by(issue(json!({"connection_id": null})).await)),
        ("other_user", signed(json!({"user_id": 8}))),
        ("channel", signed(json!({"channels": ["chat_43"]}))),
        ("jwt_expired", signed(json!({"exp": 1}))),
        ("jwt", signed(json!({"token_type": "refresh"}))),
        ("jwt", ("token", jwt::hs256("another secret of thirty-two bytes", &claims))),
        ("jwt", ("token", String::new())),
        ("jwt", ("token", "a.b.c".to_owned())),
    ] {
        let labels = [("outcome", outcome)];
        let before = gateway.metric("tidegate_refreshes_total", &labels).await;
        client.send_json(&json!({"type": "refresh", field: credential})).await;
        texts.push(expect_error(&mut client, "invalid_credentials").await);
        let counted = gateway.metric("tidegate_refreshes_total", &labels).await - before;
        assert_eq!(counted, 1.0, "{outcome}");
        offered.push(credential);
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    expect_pong(&mut client).await;

    let good = issue(json!({"origin": APP.1, "channels": ["chat_42"]})).await;
    offer_token(&mut client, &good).await;
    client.next_event("refreshed").await;
    offer_token(&mut client, &good).await;
    expect_error(&mut client, "invalid_credentials").await;

    // A handshake without an Origin is not from a page that a record could be bound to.
    let mut nowhere = by_cookie(&gateway, &session()).await;
    let bound = issue(json!({"origin": APP.1})).await;
    offer_token(&mut nowhere, &bound).await;
    expect_error(&mut nowhere, "invalid_credentials").await;

    gateway.wait_for_event("credentials_refreshed").await;
    for credential in offered.iter().chain([&good, &bound]).filter(|text| text.len() > 20) {
        assert!(!gateway.stderr_contains(credential), "{credential} is in the log");
    }
}

#[tokio::test]
async fn a_route_takes_the_kinds_of_credentials_that_it_lists() {
    let settings = chat("auth = [\"cookie\"]").route(
        "path = \"/tokens/{conversation_id}\"\nchannel = \"chat_{conversation_id}\"\n\
         auth = [\"connection_token\", \"anonymous\"]",
    );
    let gateway = Gateway::start(settings).await;
    let token = gateway.token(json!({"user_id": 7})).await;
    let path = format!("/tokens/42?connection_token={token}");

    let mut by_jwt = by_cookie(&gateway, &session()).await;
    offer_token(&mut by_jwt, &token).await;
    expect_error(&mut by_jwt, "invalid_credentials").await;
    offer_jwt(&mut by_jwt, &session()).await;
    by_jwt.next_event("refreshed").await;

    let (mut by_record, _) = Client::connected(&gateway, &path).await;
    offer_jwt(&mut by_record, &session()).await;
    expect_error(&mut by_record, "invalid_credentials").await;

    let (mut anonymous, _) = Client::connected(&gateway, "/tokens/42").await;
    let token = gateway.token(json!({"user_id": 7})).await;
    offer_token(&mut anonymous, &token).await;
    expect_error(&mut anonymous, "invalid_credentials").await;
    let path = format!("/tokens/42?connection_token={token}");
    assert_eq!(outcome(&gateway, &path, &[]).await, Connected, "it was not used up");
}

#[tokio::test]
async fn a_refresh_that_names_no_credential_is_a_mistake() {
    let gateway = Gateway::start(open_to_all()).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    for frame in [
        json!({"type": "refresh"}),
        json!({"type": "refresh", "token": 7}),
        json!({"type": "refresh", "token": "a", "connection_token": "b"}),
    ] {
        client.send_json(&frame).await;
        expect_error(&mut client, "invalid_json").await;
    }
}

#[tokio::test]
async fn max_session_ends_any_connection() {
    let lines = "auth = [\"anonymous\"]\nmax_session = \"2s\"\nexpiry_notice = \"1s\"";
    let gateway = Gateway::start(strict(lines)).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    assert_eq!(expires_in(&mut client, "token_expiring_soon").await, 1);
    expect_expiry(&mut client).await;
}

async fn a_refresh_restarts_max_session(engine: Engine) {
    let lines = "max_session = \"6s\"\nexpiry_notice = \"3s\"";
    let gateway = engine.start(strict(lines)).await;
    let lasting = json!({"user_id": 7});
    let mut client = by_token(&gateway, lasting.clone()).await;
    let mut other = by_token(&gateway, lasting.clone()).await;
    assert_eq!(expires_in(&mut client, "token_expiring_soon").await, 3);
    let token = gateway.token(lasting).await;
    offer_token(&mut client, &token).await;
    assert_eq!(expires_in(&mut client, "refreshed").await, 6);
    assert_eq!(expires_in(&mut other, "token_expiring_soon").await, 3);
    expect_expiry(&mut other).await;
    assert_eq!(expires_in(&mut client, "token_expiring_soon").await, 3);
    // The earliest expiry counts: these credentials expire before `max_session` does.
    offer_jwt(&mut client, &session_with(json!({"exp": jwt::in_seconds(3)}))).await;
    let left = expires_in(&mut client, "refreshed").await;
    assert!((1..=3).contains(&left), "{left}");
    expires_in(&mut client, "token_expiring_soon").await;
    expect_expiry(&mut client).await;
}

#[tokio::test]
async fn a_raw_route_is_only_closed() {
    let mut server = WebSocketServer::start().await;
    let settings = strict("auth = [\"anonymous\"]")
        .upstream("server", &format!("kind = \"websocket\"\nurl = {:?}", server.url()))
        .route(
            "path = \"/raw\"\nchannel = \"raw\"\nupstream = \"server\"\nprotocol = \"raw\"\n\
             auth = [\"connection_token\"]",
        );
    let gateway = Gateway::start(settings).await;
    let token = gateway.token(json!({"user_id": 7, "session_expires_in": 3})).await;
    let path = format!("/raw?connection_token={token}");
    let mut client = Client::open(gateway.addr(), &path, &[]).await;
    let mut socket = server.accept().await.socket;
    // On this route it is an ordinary message.
    let token = gateway.token(json!({"user_id": 7})).await;
    offer_token(&mut client, &token).await;
    assert_eq!(socket.next_json().await["connection_token"], token.as_str());
    expect_expiry(&mut client).await;
    assert!(matches!(socket.next().await, Event::Closed(Some(4001), _)));
}

#[tokio::test]
async fn a_refresh_is_not_relayed_to_a_socket() {
    let mut server = WebSocketServer::start().await;
    let settings = chat("upstream = \"server\"")
        .upstream("server", &format!("kind = \"websocket\"\nurl = {:?}", server.url()));
    let gateway = Gateway::start(settings).await;
    let token = gateway.token(json!({"user_id": 7})).await;
    let path = format!("/ws/chat/42/?connection_token={token}");
    let mut client = Client::open(gateway.addr(), &path, &[]).await;
    let mut socket = server.accept().await.socket;
    client.next_event("connected").await;
    let token = gateway.token(json!({"user_id": 7})).await;
    client.send_json(&json!({"type": "refresh", "connection_token": token, "message": "m"})).await;
    client.next_event("refreshed").await;
    client.send_json(&json!({"message": "the first"})).await;
    assert_eq!(socket.next_json().await["message"], "the first");
}

#[tokio::test]
async fn the_user_stays_and_its_name_follows() {
    let upstream = Upstream::accepting().await;
    let gateway = Gateway::start(relayed(&upstream.url("/"), "")).await;
    let mut client = by_cookie(&gateway, &session()).await;
    let token = gateway.token(json!({"user_id": "7", "username": "bea"})).await;
    offer_token(&mut client, &token).await;
    client.next_event("refreshed").await;
    client.send_json(&json!({"message": "m"})).await;
    client.next_event("task_queued").await;
    let user = upstream.next_request().await.json()["user"].clone();
    assert_eq!(user, json!({"id": 7, "name": "bea"}));
}

#[tokio::test]
async fn a_refresh_costs_as_much_as_a_message() {
    let limits = "[route.limits]\nmessages_per_connection = \"1/1h burst 2\"";
    let gateway = Gateway::start(chat(limits)).await;
    let mut client = by_cookie(&gateway, &session()).await;
    for _ in 0..2 {
        offer_jwt(&mut client, &session()).await;
        client.next_event("refreshed").await;
    }
    offer_jwt(&mut client, &session()).await;
    let error = client.next_event("error").await;
    assert_eq!(error["code"], "rate_limited");
    assert!(error["retry_after"].as_u64().is_some_and(|wait| wait > 600), "{error}");
}

#[tokio::test]
async fn one_refresh_is_under_way_at_a_time() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(chat("").redis(&redis.url())).await;
    let mut client = by_cookie(&gateway, &session()).await;
    let token = gateway.token(json!({"user_id": 7})).await;
    redis.pause();
    offer_token(&mut client, &token).await;
    offer_token(&mut client, &token).await;
    expect_error(&mut client, "busy").await;
    // The engine is queried in another task than the socket's.
    expect_pong(&mut client).await;
    redis.resume();
    let first = client.next_json().await;
    let slow = first["code"] == "engine_unavailable";
    assert!(slow || first["event"] == "refreshed", "{first}");
}

#[tokio::test]
async fn without_the_engine_tokens_wait_and_jwts_do() {
    let mut redis = Redis::start().await;
    let gateway = Gateway::start(chat("").redis(&redis.url())).await;
    let mut client = by_cookie(&gateway, &session()).await;
    let token = gateway.token(json!({"user_id": 7})).await;
    redis.stop();
    offer_token(&mut client, &token).await;
    let error = client.next_event("error").await;
    assert_eq!(error["code"], "engine_unavailable", "{error}");
    assert!(error["retry_after"].as_u64().is_some_and(|wait| wait > 0), "{error}");
    offer_jwt(&mut client, &session()).await;
    client.next_event("refreshed").await;
    assert!(!gateway.stderr_contains(&token));
}

#[tokio::test]
async fn without_the_published_keys_a_jwt_is_neither_good_nor_bad() {
    let issuer = Upstream::start(|_| Reply::status(500)).await;
    let keys = format!("jwks_url = {:?}", issuer.url("/jwks.json"));
    let gateway = Gateway::start(chat("").section("jwt", &keys)).await;
    let mut client = by_token(&gateway, json!({"user_id": 7})).await;
    let claims = json!({"user_id": 7, "exp": jwt::in_seconds(600)});
    let key = EncodingKey::from_ec_pem(include_bytes!("../keys/p256.pem")).expect("a key");
    let jwt = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).expect("a JWT");
    offer_jwt(&mut client, &jwt).await;
    let error = client.next_event("error").await;
    assert_eq!(error["code"], "upstream_unavailable", "{error}");
    assert!(error["retry_after"].as_u64().is_some_and(|wait| wait > 0), "{error}");
    expect_pong(&mut client).await;
    let keys = [("outcome", "jwt_keys")];
    assert_eq!(gateway.metric("tidegate_refreshes_total", &keys).await, 1.0);
}

on_both_engines!(
    a_notice_is_sent_once_before_the_expiry,
    a_refresh_keeps_the_connection,
    all_invalid_credentials_are_refused_with_the_same_text,
    a_refresh_restarts_max_session,
);
