//! Disconnects that servers ask for, over loopback.

use serde_json::json;

use crate::admin::tests::{Bench, locally};

#[tokio::test]
async fn a_disconnect_is_checked_and_tells_what_was_closed() {
    locally(async {
        let bench = Bench::with_keys().await;
        for (body, status, code) in [
            (json!({}), 400, "bad_request"),
            (json!({"user_id": null}), 400, "bad_request"),
            (json!({"user_id": 1, "channel": "chat_42"}), 400, "bad_request"),
            (json!({"user_id": 1.5}), 400, "bad_request"),
            (json!({"user_id": ""}), 400, "bad_request"),
            (json!({"connection_id": "c-1"}), 400, "bad_request"),
            (json!({"channel": "no spaces"}), 400, "bad_channel"),
            (json!({"user_id": 1, "code": 1006}), 400, "bad_request"),
            (json!({"user_id": 1, "code": 70000}), 400, "bad_request"),
            (json!({"user_id": 1, "code": "4001"}), 400, "bad_request"),
            (json!({"user_id": 1, "reason": "x".repeat(124)}), 400, "bad_request"),
            (json!({"user_id": 1, "why": "x"}), 400, "bad_request"),
            (json!({"user_id": "x".repeat(20_000)}), 413, "too_large"),
        ] {
            let reply = bench.post("/v1/disconnect", &body).await;
            let shown: String = body.to_string().chars().take(80).collect();
            assert_eq!((reply.status, reply.code().as_str()), (status, code), "{shown}");
        }
        for (body, closed) in [
            (json!({"user_id": 1}), 4001),
            (json!({"user_id": "1", "code": 1000, "reason": ""}), 1000),
            (json!({"connection_id": "0".repeat(32), "code": 3000}), 3000),
            (json!({"channel": "chat_42", "code": 4999, "reason": "x".repeat(123)}), 4999),
        ] {
            let reply = bench.post("/v1/disconnect", &body).await;
            assert_eq!(reply.json(), json!({"closed": closed, "nodes": 1}), "{body}");
        }
    })
    .await;
}
