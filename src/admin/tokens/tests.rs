//! Tokens that servers ask for, over loopback.

use serde_json::json;

use crate::admin::tests::{Bench, locally};
use crate::protocol::UserId;

#[tokio::test]
async fn a_token_stands_for_what_was_asked() {
    locally(async {
        let bench = Bench::with_keys().await;
        let reply = bench
            .post(
                "/v1/tokens",
                &json!({
                    "user_id": 1, "username": "ana", "channels": ["chat_42"],
                    "origin": "https://app.example.com", "connection_id": "c-1",
                    "session_expires_in": 900,
                }),
            )
            .await;
        assert_eq!(reply.status, 200);
        assert!(reply.head.contains("cache-control: no-store"), "{}", reply.head);
        let answer = reply.json();
        assert_eq!(answer["expires_in"], 60);
        let token = answer["connection_token"].as_str().unwrap();
        let record = bench.tokens.consume(token).await.unwrap().unwrap();
        assert_eq!(record.user_id, UserId::Integer(1));
        assert_eq!(record.channels, Some(vec!["chat_42".to_owned()]));
        assert_eq!(record.origin.as_deref(), Some("https://app.example.com"));
        assert_eq!(record.connection_id.as_deref(), Some("c-1"));
        let left = record.session_expires_at.unwrap() as f64 - record.created_at;
        assert!((890.0..=900.0).contains(&left), "{left}");
    })
    .await;
}

#[tokio::test]
async fn a_token_that_nobody_could_use_is_refused() {
    locally(async {
        let bench = Bench::with_keys().await;
        for (body, status) in [
            (json!({}), 400),
            (json!({"user_id": ""}), 400),
            (json!({"user_id": null}), 400),
            (json!({"user_id": 1.5}), 400),
            (json!({"user_id": 1, "role": "admin"}), 400),
            (json!({"user_id": 1, "channels": "chat_1"}), 400),
            (json!({"user_id": 1, "origin": "app.example.com"}), 400),
            (json!({"user_id": 1, "origin": "null"}), 400),
            (json!({"user_id": 1, "session_expires_in": 0}), 400),
            (json!({"user_id": 1, "session_expires_in": -1}), 400),
            (json!({"user_id": 1, "username": "x".repeat(20_000)}), 413),
            (json!({"user_id": 1, "session_expires_in": u64::MAX}), 200),
        ] {
            let reply = bench.post("/v1/tokens", &body).await;
            let shown: String = body.to_string().chars().take(80).collect();
            assert_eq!(reply.status, status, "{shown}");
        }
    })
    .await;
}
