//! The admin port while others hold its connections or guess keys.

use serde_json::json;

use crate::chat::open_to_all;
use crate::rig::raw::Received;
use crate::rig::{API_KEY, Client, Gateway, RawClient, http, until};

const KEY: (&str, &str) = ("authorization", "Bearer test-api-key");

/// Regression test: 512 connections without a key starved health.
#[tokio::test]
async fn health_is_answered_while_strangers_hold_connections() {
    let gateway = Gateway::start(open_to_all()).await;
    let tail = "/v1/channels/chat_1/tail";
    let mut tail = http::stream(gateway.admin(), tail, &[KEY]).await;
    assert!(tail.next().await.is_some());
    let mut held = Vec::new();
    for number in 0..700 {
        let mut client = RawClient::connect_from("127.0.0.2", gateway.admin()).await;
        let request: &[u8] = match number % 4 {
            0 => b"",
            1 => b"GET /livez HTTP/1.1\r\nhost: a\r\nx-slow: ",
            // Answers that are not read.
            2 => {
                b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\nGET /metrics HTTP/1.1\r\nhost: a\r\n\r\n"
            }
            _ => b"POST /v1/publish HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{",
        };
        // The connection may have made room for another one already.
        let _ = client.try_write(request).await;
        held.push(client);
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(http::get(gateway.admin(), path).await.status, 200, "{path}");
    }
    // Calls with a key are answered, and the one in progress goes on.
    gateway.publish("chat_1", json!({"event": "chunk"})).await;
    let mut text = String::new();
    while !text.contains("chunk") {
        let piece = tail.next().await.expect("the tail goes on");
        text.push_str(&String::from_utf8_lossy(&piece));
    }
    drop(held);
    Client::connected(&gateway, "/ws/chat/1/").await;
}

#[tokio::test]
async fn only_answers_with_a_key_and_health_keep_a_connection_alive() {
    let gateway = Gateway::start(open_to_all()).await;
    for (request, status, stays) in [
        ("GET /livez HTTP/1.1\r\n", 200, true),
        ("GET /nothing HTTP/1.1\r\n", 404, false),
        ("GET /v1/channels HTTP/1.1\r\n", 401, false),
        ("GET /v1/channels HTTP/1.1\r\nx-api-key: wrong\r\n", 401, false),
        ("DELETE /livez HTTP/1.1\r\n", 405, false),
        ("GET /v1/channels?limit=no HTTP/1.1\r\nx-api-key: test-api-key\r\n", 400, true),
    ] {
        let mut client = RawClient::connect(gateway.admin()).await;
        client.write(format!("{request}host: a\r\n\r\n").as_bytes()).await;
        let head = client.read_head().await;
        assert_eq!(head.status, status, "{request}");
        assert_eq!(head.header("connection") != Some("close"), stays, "{request}");
        let length = head.header("content-length").unwrap().parse().unwrap();
        client.read_exact(length).await;
        if stays {
            client.write(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert_eq!(client.read_head().await.status, 200, "{request}");
        } else {
            client.expect(Received::End).await;
        }
    }
}

#[tokio::test]
async fn failed_keys_have_a_rate_and_name_their_address() {
    let gateway = Gateway::start(open_to_all()).await;
    let wrong = [("x-api-key", "wrong")];
    let call = async |headers: &[(&str, &str)]| {
        http::send(gateway.admin(), "GET", "/v1/channels", headers, "".into()).await
    };
    let limited = until("a refusal by the rate", async || {
        let answer = call(&wrong).await;
        (answer.status != 401).then_some(answer)
    })
    .await;
    assert_eq!(
        (limited.status, &limited.json()["error"]["code"]),
        (429, &json!("too_many_failures"))
    );
    assert!(limited.header("retry-after").is_some());
    // Nobody locks out a caller with a key.
    assert_eq!(call(&[("x-api-key", API_KEY)]).await.status, 200);
    let line = gateway.wait_for_event("api_unauthorized").await.to_string();
    assert!(line.contains("127.0.0.1:"), "{line}");
    assert!(!gateway.stderr_contains("wrong"), "the key is not logged");
}
