//! The token endpoint with the requests of browsers, of programs and of other sites' pages.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::super::Handshake;
use super::super::tests::{APP, handshake, jwt, without_engine};
use crate::protocol::{ClientAddress, UserId};
use crate::tokens::TokenRecord;

async fn send(
    handshake: &Handshake,
    method: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (Response<()>, Value) {
    let mut request = Request::builder().method(method).uri("/api/v1/auth/ws-connection-token/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let client = ClientAddress::resolve([127, 0, 0, 1].into(), request.headers(), &[]);
    let (head, body) = handshake.issue(request, client).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let json = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    (Response::from_parts(head, ()), json)
}

async fn consume(handshake: &Handshake, answer: &Value) -> TokenRecord {
    let token = answer["connection_token"].as_str().expect("a token");
    handshake.authenticator.store().consume(token).await.unwrap().expect("its record")
}

#[tokio::test]
async fn a_signed_in_page_gets_a_token() {
    let handshake = handshake("", "");
    let jwt = jwt("7", json!({}));
    let cookie = format!("csrftoken=c-1; access_token={jwt}");
    let headers = [APP, ("cookie", &*cookie), ("x-csrftoken", "c-1")];
    let (head, answer) =
        send(&handshake, "POST", &headers, r#"{"connection_id":"chat-42-x"}"#).await;
    assert_eq!(head.status(), StatusCode::OK);
    for (name, value) in [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("vary", "Origin"),
        ("access-control-allow-origin", APP.1),
        ("access-control-allow-credentials", "true"),
    ] {
        assert_eq!(head.headers()[name], value, "{name}");
    }
    assert_eq!(
        (&answer["expires_in"], &answer["connection_id"]),
        (&json!(60), &json!("chat-42-x"))
    );
    let record = consume(&handshake, &answer).await;
    assert_eq!(record.user_id, UserId::Text("7".into()));
    assert_eq!(record.username.as_deref(), Some("ana"));
    assert_eq!(record.connection_id.as_deref(), Some("chat-42-x"));
    assert_eq!((record.origin.as_deref(), record.channels), (Some(APP.1), None));
    assert!(!record.used && record.created_at > 0.0 && record.session_expires_at.is_some());
}

#[tokio::test]
async fn a_program_gets_a_token_with_only_a_bearer() {
    let handshake = handshake("", "");
    let bearer = format!("Bearer {}", jwt("7", json!({"channels": ["chat_*"]})));
    for body in ["", "  ", "{}"] {
        let (head, answer) = send(&handshake, "POST", &[("authorization", &*bearer)], body).await;
        assert_eq!(head.status(), StatusCode::OK, "{body:?}");
        assert!(!head.headers().contains_key("access-control-allow-origin"));
        let record = consume(&handshake, &answer).await;
        assert_eq!((record.origin, record.channels), (None, Some(vec!["chat_*".to_owned()])));
    }
}

#[tokio::test]
async fn a_token_may_be_bound_to_one_channel() {
    let handshake = handshake("", "");
    let bearer = format!("Bearer {}", jwt("7", json!({"channels": ["chat_4*"]})));
    for (body, expected) in [
        (r#"{"channel":"chat_42"}"#, Some("chat_42")),
        (r#"{"path":"/ws/chat/42/"}"#, Some("chat_42")),
        (r#"{"path":"/ws/chat/42?x=1"}"#, Some("chat_42")),
        (r#"{"channel":"chat_52"}"#, None),
        (r#"{"channel":"chat_4*"}"#, None),
        (r#"{"channel":"chat_4own"}"#, None),
        (r#"{"path":"/ws/chat/4own/"}"#, None),
        (r#"{"channel":""}"#, None),
        (r#"{"path":"/ws/chat/52/"}"#, None),
        (r#"{"path":"/ws/chat/4*/"}"#, None),
        (r#"{"path":"/elsewhere"}"#, None),
        (r#"{"path":"https://app.example.com/ws/chat/42/"}"#, None),
    ] {
        let (head, answer) = send(&handshake, "POST", &[("authorization", &*bearer)], body).await;
        match expected {
            Some(channel) => {
                assert_eq!(head.status(), StatusCode::OK, "{body}");
                let record = consume(&handshake, &answer).await;
                assert_eq!(record.channels, Some(vec![channel.to_owned()]), "{body}");
            }
            None => assert_eq!(head.status(), StatusCode::FORBIDDEN, "{body}"),
        }
    }
}

#[tokio::test]
async fn other_sites_and_anonymous_callers_get_no_token() {
    let handshake = handshake("", "");
    let jwt_7 = jwt("7", json!({}));
    let expired = jwt("7", json!({"exp": 1_000_000_000}));
    let signed_in = format!("access_token={jwt_7}");
    let with_csrf = format!("csrftoken=c-1; access_token={jwt_7}");
    let empty_csrf = format!("csrftoken=\"\"; access_token={jwt_7}");
    let bearer = format!("Bearer {jwt_7}");
    let (bearer, csrf) = (("authorization", &*bearer), ("x-csrftoken", "c-1"));
    let expired = format!("Bearer {expired}");
    for (headers, status, code) in [
        (vec![("origin", "https://evil.test"), ("cookie", &*with_csrf), csrf], 403, "forbidden"),
        (vec![("origin", "null"), ("cookie", &*with_csrf), csrf], 403, "forbidden"),
        (vec![APP, APP, bearer], 403, "forbidden"),
        (vec![APP], 401, "unauthenticated"),
        (vec![APP, ("cookie", &*with_csrf)], 403, "csrf"),
        (vec![APP, ("cookie", &*with_csrf), ("x-csrftoken", "c-2")], 403, "csrf"),
        (vec![APP, ("cookie", &*with_csrf), ("x-csrftoken", "")], 403, "csrf"),
        (vec![APP, ("cookie", &*signed_in), csrf], 403, "csrf"),
        (vec![APP, ("cookie", &*empty_csrf), ("x-csrftoken", "")], 403, "csrf"),
        (vec![("cookie", &*with_csrf)], 403, "csrf"),
        (vec![APP, ("cookie", "csrftoken=c-1; access_token=bad"), csrf], 401, "unauthenticated"),
        (
            vec![APP, ("authorization", "Bearer bad"), ("cookie", &*with_csrf), csrf],
            401,
            "unauthenticated",
        ),
        (vec![APP, ("authorization", &*expired)], 401, "unauthenticated"),
        // A connection token is not a session.
        (vec![APP, ("sec-websocket-protocol", "tidegate.token.x")], 401, "unauthenticated"),
    ] {
        let (head, answer) = send(&handshake, "POST", &headers, "{}").await;
        assert_eq!(
            (head.status().as_u16(), &answer["code"]),
            (status, &json!(code)),
            "{headers:?}"
        );
        assert!(answer["error"].is_string() && answer["connection_token"].is_null());
        let readable = head.headers().contains_key("access-control-allow-origin");
        let is_allowed = headers.iter().filter(|(name, _)| *name == "origin").eq([&APP]);
        assert_eq!(readable, is_allowed, "{headers:?}");
        assert_eq!(head.headers()["vary"], "Origin");
    }
}

#[tokio::test]
async fn bodies_are_checked() {
    let handshake = handshake("", "");
    let bearer = format!("Bearer {}", jwt("7", json!({})));
    let long_id = format!(r#"{{"connection_id":"{}"}}"#, "x".repeat(257));
    let huge = format!(r#"{{"connection_id":"x","more":"{}"}}"#, "x".repeat(9000));
    for (body, status) in [
        ("nonsense", 400),
        ("[\"a\",\"b\",\"c\"]", 400),
        ("null", 400),
        (r#"{"connection_id":7}"#, 400),
        (r#"{"channel":"a","path":"/ws/chat/1/"}"#, 400),
        (&long_id, 400),
        (&huge, 413),
        (r#"{"connection_id":null,"unknown":{}}"#, 200),
    ] {
        let (head, _) = send(&handshake, "POST", &[("authorization", &*bearer)], body).await;
        assert_eq!(head.status(), status, "{body:.60}");
    }
}

#[tokio::test]
async fn preflights_and_other_methods_are_answered() {
    let handshake = handshake("", "");
    let (head, _) = send(&handshake, "OPTIONS", &[APP], "").await;
    assert_eq!(head.status(), StatusCode::NO_CONTENT);
    for (name, value) in [
        ("access-control-allow-origin", APP.1),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "POST, OPTIONS"),
        ("access-control-allow-headers", "content-type, authorization, x-csrftoken"),
        ("access-control-max-age", "600"),
        ("vary", "Origin"),
    ] {
        assert_eq!(head.headers()[name], value, "{name}");
    }
    let (head, _) = send(&handshake, "OPTIONS", &[("origin", "https://evil.test")], "").await;
    assert_eq!(head.status(), StatusCode::FORBIDDEN);
    assert!(!head.headers().contains_key("access-control-allow-methods"));
    let (head, _) = send(&handshake, "GET", &[], "").await;
    assert_eq!(head.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(head.headers()["allow"], "POST, OPTIONS");
}

#[tokio::test]
async fn without_the_engine_no_token_is_issued() {
    let handshake = without_engine("");
    let bearer = format!("Bearer {}", jwt("7", json!({})));
    let (head, answer) = send(&handshake, "POST", &[("authorization", &*bearer)], "").await;
    assert_eq!(
        (head.status(), &answer["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("overloaded"))
    );
    assert!(head.headers().contains_key("retry-after"));
}

#[test]
fn the_endpoint_is_one_path() {
    let handshake = handshake("", "");
    for (path, is_endpoint) in [
        ("/api/v1/auth/ws-connection-token/", true),
        ("/api/v1/auth/ws-connection-token", true),
        ("/api/v1/auth/ws-connection-token//", false),
        ("/api/v1/auth/ws-connection-token/x", false),
        ("/", false),
        ("", false),
    ] {
        assert_eq!(handshake.is_token_endpoint(path), is_endpoint, "{path}");
    }
    assert!(
        !super::super::tests::handshake("", "[tokens]\nissue_path = \"\"").is_token_endpoint("/")
    );
}
