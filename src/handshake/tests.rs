//! `admit` with a real store and real limits.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::config::{Config, Environment, RedisUrl, Secret, TokenFormat};
use crate::protocol::ClientAddress;
use crate::redis_link::Commands;
use crate::shutdown::Shutdown;
use crate::tokens::{TokenRecord, TokenStore, sign_hs};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(super) const APP: (&str, &str) = ("origin", "https://app.example.com");

/// Returns a handshake on the memory engine, with `route` added to its route and `more` to its config.
pub(super) fn handshake(route: &str, more: &str) -> Handshake {
    build(
        route,
        more,
        TokenStore::memory(std::time::Duration::from_secs(60)),
        SharedLimits::memory(),
    )
}

/// Returns a handshake whose engine is a Redis that cannot be reached.
pub(super) fn without_engine(route: &str) -> Handshake {
    let nowhere = RedisUrl::example(&format!("redis://127.0.0.1:{}/", free_port()));
    let commands = Commands::start(&nowhere, "test", &Shutdown::new()).unwrap();
    let ttl = std::time::Duration::from_secs(60);
    let store = TokenStore::redis(commands.clone(), "ws_conn_token:", ttl, TokenFormat::Json);
    build(route, "", store, SharedLimits::redis(commands, "tg:"))
}

fn build(route: &str, more: &str, store: TokenStore, limits: SharedLimits) -> Handshake {
    let text = format!(
        "[jwt]\nkeys = [{{ alg = \"HS256\", secret = \"{SECRET}\" }}]\n\
         [origins]\nallow = [\"https://app.example.com\"]\n{more}\n\
         [[route]]\npath = \"/ws/chat/{{conversation_id}}/\"\n\
         channel = \"chat_{{conversation_id}}\"\nupstream = \"\"\n{route}\n"
    );
    let config = Config::parse(&text, &Environment::empty(), Path::new(".")).expect(&text);
    from_config(config, store, limits)
}

fn from_config(config: Config, store: TokenStore, limits: SharedLimits) -> Handshake {
    let Config { routes, origins, tokens, jwt, .. } = config;
    let reserved = ReservedChannels::new(["chat_4own".to_owned()]);
    let authenticator = Authenticator::new(&tokens, &jwt, store).unwrap();
    Handshake::new(
        Routes::new(&routes, &[]),
        &origins,
        &tokens,
        &jwt,
        authenticator,
        HandshakeLimits {
            shared: limits,
            new_channels: NewChannels::default(),
            client: config::ClientLimits {
                connects_per_ip: None,
                requests_per_ip: None,
                channels_per_ip: None,
                ipv6_prefix: 64,
            },
            tells_addresses_apart: true,
        },
        reserved,
    )
    .unwrap()
}

/// Returns a JWT of `user` that is valid for an hour, with `claims` added.
pub(super) fn jwt(user: &str, claims: Value) -> String {
    let expires_at = crate::clock::unix_seconds() + 3600;
    let mut all = json!({ "user_id": user, "username": "ana", "exp": expires_at });
    let claims = claims.as_object().unwrap().clone();
    all.as_object_mut().unwrap().extend(claims);
    sign_hs(&Secret::new(SECRET), jsonwebtoken::Algorithm::HS256, &all).unwrap()
}

pub(super) fn record(fields: Value) -> TokenRecord {
    let mut all = json!({ "user_id": "by-token" });
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

pub(super) fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

pub(super) async fn admit(
    handshake: &Handshake,
    uri: &str,
    headers: &[(&str, &str)],
) -> Result<Admission, &'static str> {
    let head = request(uri, headers);
    let Some(Found::Route(route, params)) = handshake.find_route(head.uri().path()) else {
        panic!("no route");
    };
    let trusted = ["127.0.0.1/32".parse().unwrap()];
    let attempt = HandshakeAttempt::new(
        head.headers(),
        ClientAddress::resolve([127, 0, 0, 1].into(), head.headers(), &trusted),
    );
    handshake
        .admit(route, params, &head, &attempt)
        .await
        .map_err(|rejection| rejection.cause.label())
}

/// Returns the admitted user, or the cause of the rejection.
pub(super) async fn outcome(handshake: &Handshake, uri: &str, headers: &[(&str, &str)]) -> String {
    match admit(handshake, uri, headers).await {
        Ok(admission) => admission.identity.key(),
        Err(cause) => format!("no: {cause}"),
    }
}

pub(super) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn the_first_credential_that_is_present_decides() {
    let every = "auth = [\"connection_token\", \"cookie\", \"bearer\", \"query\", \"anonymous\"]";
    let handshake = handshake(every, "");
    let cookie = format!("access_token={}", jwt("by-cookie", json!({})));
    let bearer = format!("Bearer {}", jwt("by-bearer", json!({})));
    let query = jwt("by-query", json!({}));
    let (good_cookie, good_bearer) = (("cookie", &*cookie), ("authorization", &*bearer));
    let (bad_cookie, bad_bearer) =
        (("cookie", "access_token=bad"), ("authorization", "Bearer bad"));
    let token = handshake.authenticator.store().issue(&record(json!({}))).await.unwrap();
    for (parameters, headers, expected) in [
        ("".to_owned(), vec![], "_anonymous_"),
        ("".to_owned(), vec![good_cookie, good_bearer], "by-cookie"),
        (format!("token={query}"), vec![good_bearer], "by-bearer"),
        (format!("token={query}"), vec![], "by-query"),
        ("".to_owned(), vec![("authorization", "Basic dGVzdA==")], "_anonymous_"),
        ("".to_owned(), vec![("cookie", "access_token=")], "_anonymous_"),
        // After an invalid credential no other one is tried.
        ("".to_owned(), vec![bad_cookie, good_bearer], "no: jwt"),
        (format!("token={query}"), vec![bad_bearer], "no: jwt"),
        ("".to_owned(), vec![("authorization", "Bearer")], "no: jwt"),
        ("token=bad".to_owned(), vec![], "no: jwt"),
        ("token=".to_owned(), vec![], "no: jwt"),
        ("connection_token=bad".to_owned(), vec![good_cookie, good_bearer], "no: token"),
        ("connection_token=".to_owned(), vec![good_cookie], "no: token"),
        ("connection%5Ftoken=bad".to_owned(), vec![good_cookie], "no: token"),
        (format!("connection_token={}", "A".repeat(10_000)), vec![good_cookie], "no: token"),
        (format!("connection_token={token}&connection_token=b"), vec![good_cookie], "no: token"),
        // Nor is a good one used beside an invalid one, in whatever order they are tried.
        ("token=bad".to_owned(), vec![good_cookie], "no: jwt"),
        ("token=".to_owned(), vec![good_bearer], "no: jwt"),
        ("".to_owned(), vec![good_cookie, bad_bearer], "no: jwt"),
        ("".to_owned(), vec![good_cookie, ("authorization", "Bearer")], "no: jwt"),
        ("".to_owned(), vec![good_cookie, ("authorization", "Bearer\tx")], "no: jwt"),
        (
            "".to_owned(),
            vec![good_cookie, ("sec-websocket-protocol", "tidegate.token")],
            "no: token",
        ),
        (
            "".to_owned(),
            vec![good_cookie, ("sec-websocket-protocol", "Tidegate.token.x")],
            "no: token",
        ),
        (
            "".to_owned(),
            vec![good_bearer, ("sec-websocket-protocol", "tidegate.token.x y")],
            "no: token",
        ),
        (format!("connection_token={token}"), vec![bad_cookie], "by-token"),
        (format!("connection_token={token}"), vec![good_cookie], "no: token"),
    ] {
        let uri = format!("/ws/chat/42/?{parameters}");
        assert_eq!(outcome(&handshake, &uri, &headers).await, expected, "{parameters} {headers:?}");
    }
}

#[tokio::test]
async fn a_route_reads_only_the_credentials_that_it_names() {
    let handshake = handshake("auth = [\"bearer\", \"cookie\"]", "");
    let cookie = format!("access_token={}", jwt("by-cookie", json!({})));
    let bearer = format!("Bearer {}", jwt("by-bearer", json!({})));
    let (cookie, bearer) = (("cookie", &*cookie), ("authorization", &*bearer));
    let query = format!("/ws/chat/42/?token={}", jwt("by-query", json!({})));
    for (uri, headers, expected) in [
        ("/ws/chat/42/", vec![cookie, bearer], "by-bearer"),
        ("/ws/chat/42/", vec![cookie], "by-cookie"),
        (&query, vec![], "no: no_credentials"),
        ("/ws/chat/42/?connection_token=x", vec![], "no: no_credentials"),
    ] {
        assert_eq!(outcome(&handshake, uri, &headers).await, expected, "{uri} {headers:?}");
    }
}

#[tokio::test]
async fn a_refused_origin_consumes_no_token() {
    let handshake = handshake("", "missing = \"reject\"");
    let token = handshake.authenticator.store().issue(&record(json!({}))).await.unwrap();
    let uri = format!("/ws/chat/42/?connection_token={token}");
    for headers in [
        vec![],
        vec![("origin", "null")],
        vec![("origin", "")],
        vec![("origin", "https://app.example.com.evil.test")],
        vec![("origin", "https://app.example.com/")],
        vec![APP, APP],
        vec![APP, ("origin", "https://evil.test")],
    ] {
        assert_eq!(outcome(&handshake, &uri, &headers).await, "no: origin", "{headers:?}");
    }
    assert_eq!(outcome(&handshake, &uri, &[APP]).await, "by-token");
}

#[tokio::test]
async fn without_an_allowlist_every_origin_is_refused() {
    let text = "[[route]]\npath = \"/a\"\nchannel = \"a\"\nupstream = \"\"\nauth = [\"anonymous\"]";
    let config = Config::parse(text, &Environment::empty(), Path::new(".")).unwrap();
    let (store, limits) = (TokenStore::memory(config.tokens.ttl), SharedLimits::memory());
    let handshake = from_config(config, store, limits);
    assert_eq!(outcome(&handshake, "/a", &[APP]).await, "no: origin");
    assert_eq!(outcome(&handshake, "/a", &[]).await, "_anonymous_");
}

#[tokio::test]
async fn a_token_is_valid_only_where_it_is_bound_to() {
    let handshake = handshake("", "[tokens]\nbinding = \"chat-{conversation_id}-*\"");
    for (fields, expected) in [
        (json!({}), "no: token_binding"),
        (json!({"connection_id": "chat-42-x"}), "by-token"),
        (json!({"connection_id": "chat-421-x"}), "no: token_binding"),
        (json!({"connection_id": "chat-42-x", "channels": ["chat_42"]}), "by-token"),
        (json!({"connection_id": "chat-42-x", "channels": ["a", "chat_*"]}), "by-token"),
        (json!({"connection_id": "chat-42-x", "channels": ["chat_421"]}), "no: channel"),
        (json!({"connection_id": "chat-42-x", "channels": []}), "no: channel"),
        (
            json!({"connection_id": "chat-42-x", "origin": "https://app.example.com:443"}),
            "by-token",
        ),
        (json!({"connection_id": "chat-42-x", "origin": "https://evil.test"}), "no: token_origin"),
        (json!({"connection_id": "chat-42-x", "origin": "null"}), "no: token_origin"),
    ] {
        let token = handshake.authenticator.store().issue(&record(fields.clone())).await.unwrap();
        let uri = format!("/ws/chat/42/?connection_token={token}");
        assert_eq!(outcome(&handshake, &uri, &[APP]).await, expected, "{fields}");
        assert_eq!(outcome(&handshake, &uri, &[APP]).await, "no: token", "{fields}: used");
    }
    // A token that is bound to an origin is refused without an `Origin` header.
    let bound = json!({"connection_id": "chat-42-x", "origin": "https://app.example.com"});
    let token = handshake.authenticator.store().issue(&record(bound)).await.unwrap();
    let uri = format!("/ws/chat/42/?connection_token={token}");
    assert_eq!(outcome(&handshake, &uri, &[]).await, "no: token_origin");
}

#[tokio::test]
async fn channels_depend_on_the_path_and_the_claims() {
    let handshake = handshake("auth = [\"bearer\", \"anonymous\"]", "");
    let limited = format!("Bearer {}", jwt("u", json!({"channels": ["chat_4*"]})));
    let limited = [("authorization", &*limited)];
    for (path, headers, expected) in [
        ("/ws/chat/42/", &limited[..], Ok("chat_42")),
        ("/ws/chat/52/", &limited, Err("channel")),
        // The gateway's own channels are refused for every client.
        ("/ws/chat/4own/", &limited, Err("channel")),
        ("/ws/chat/4own:1/", &[], Err("channel")),
        ("/ws/chat/4ow/", &[], Ok("chat_4ow")),
        ("/ws/chat/a%2Fb/", &[], Ok("chat_a/b")),
        ("/ws/chat/a%20b/", &[], Err("channel")),
        // A star in the path is not a pattern.
        ("/ws/chat/*/", &limited, Err("channel")),
    ] {
        let admitted = admit(&handshake, path, headers).await;
        let channel = admitted.map(|admission| admission.channel.expect("a channel").to_string());
        assert_eq!(channel.as_deref().map_err(|cause| *cause), expected, "{path}");
    }
}

#[tokio::test]
async fn connects_and_connections_of_a_user_are_counted_last() {
    let connects = handshake(
        "auth = [\"bearer\", \"anonymous\"]\n[route.limits]\nconnects_per_user = \"1/1h\"",
        "",
    );
    let of = |user| format!("Bearer {}", jwt(user, json!({"channels": ["chat_1"]})));
    let (ana, bob) = (of("ana"), of("bob"));
    let (ana, bob) = ([("authorization", &*ana)], [("authorization", &*bob)]);
    for (path, headers, expected) in [
        ("/ws/chat/2/", &ana[..], "no: channel"),
        ("/ws/chat/1/", &ana, "ana"),
        ("/ws/chat/1/", &ana, "no: connects"),
        ("/ws/chat/1/", &bob, "bob"),
        ("/ws/chat/1/", &[], "_anonymous_"),
        ("/ws/chat/1/", &[], "_anonymous_"),
    ] {
        assert_eq!(outcome(&connects, path, headers).await, expected);
    }

    let open = handshake(
        "auth = [\"bearer\"]\n[route.limits]\nconnects_per_user = \"off\"\nconnections_per_user = 1",
        "",
    );
    let first = admit(&open, "/ws/chat/1/", &ana).await.unwrap();
    assert!(first.lease.is_some());
    assert_eq!(outcome(&open, "/ws/chat/1/", &ana).await, "no: connections");
    assert!(admit(&open, "/ws/chat/1/", &bob).await.unwrap().lease.is_some());
}

#[tokio::test]
async fn without_the_engine_no_client_is_admitted_unchecked() {
    let handshake = without_engine("auth = [\"connection_token\", \"bearer\"]");
    let token = format!("/ws/chat/1/?connection_token={}", "b".repeat(43));
    assert_eq!(outcome(&handshake, &token, &[]).await, "no: engine");
    let bearer = format!("Bearer {}", jwt("ana", json!({})));
    let bearer = [("authorization", &*bearer)];
    assert_eq!(outcome(&handshake, "/ws/chat/1/", &bearer).await, "no: engine", "its limits");
}

#[tokio::test]
async fn of_several_session_cookies_the_valid_one_is_used() {
    let handshake = handshake("auth = [\"cookie\", \"anonymous\"]", "");
    let ana = jwt("ana", json!({}));
    let same = jwt("ana", json!({"username": "the last"}));
    let eve = jwt("eve", json!({}));
    let old = jwt("ana", json!({"exp": 1}));
    let cookies = |values: &[&str]| {
        let pairs = values.iter().map(|value| format!("access_token={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    };
    for (values, expected) in [
        (&[&*ana] as &[&str], "ana"),
        (&[&old, &ana], "ana"),
        (&[&ana, &old], "ana"),
        (&["bad", &ana, "", &old], "ana"),
        (&[&ana, &ana, &ana, &ana, &ana, &ana], "ana"),
        (&["", ""], "_anonymous_"),
        (&[&old, "bad"], "no: jwt"),
        // A page of a sibling host may have set the other cookie.
        (&[&ana, &eve], "no: several_cookies"),
        (&[&eve, &old, &ana], "no: several_cookies"),
        (&["1", "2", "3", &ana], "ana"),
        (&["1", "2", "3", "4", &ana], "no: several_cookies"),
    ] {
        let cookie = cookies(values);
        let found = outcome(&handshake, "/ws/chat/42/", &[("cookie", &cookie)]).await;
        assert_eq!(found, expected, "{values:?}");
        // The result is the same with one header for each cookie.
        let pairs: Vec<String> = values.iter().map(|value| cookies(&[value])).collect();
        let headers: Vec<_> = pairs.iter().map(|pair| ("cookie", pair.as_str())).collect();
        assert_eq!(outcome(&handshake, "/ws/chat/42/", &headers).await, expected, "{values:?}");
    }
    let cookie = cookies(&[&ana, &same]);
    let admission = admit(&handshake, "/ws/chat/42/", &[("cookie", &cookie)]).await.unwrap();
    assert_eq!(admission.identity.username.as_deref(), Some("the last"));
}
