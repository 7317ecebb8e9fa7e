use serde_json::json;

use super::*;

fn answer() -> serde_json::Value {
    let limit = |limit: &str, remaining: u64| {
        json!({"limit": limit, "max": 5, "used": 5 - remaining, "remaining": remaining,
            "retry_after": 42, "reset_after": 60})
    };
    let standing = |remaining: u64| json!({"max": 5, "remaining": remaining, "retry_after": 42});
    json!({
        "known": true, "total_connections": 3, "more_generations": false, "more_errors": true,
        "complete": true, "local": false, "nodes": {"answered": 1, "asked": 1}, "missing_nodes": [],
        "connections": [{
            "connection_id": "00000000000000000000000000000001", "user_id": 7,
            "username": "a\u{1b}[31mna", "channel": "chat_1", "route": "/ws/", "node": "ab",
            "address": "203.0.113.7", "connected_at": 1000, "expires_at": 2000,
            "origin": "https://example.com", "credentials": "connection_token",
            "closes_at": 1500, "upstream": "api",
            "send_queue": {"messages": 12, "bytes": 20_000, "max_messages": 64,
                "max_bytes": 1_000_000, "since": 1060, "held": false},
            "inbox": {"waiting": 2, "bytes": 300, "relaying": true},
            "replaying": false, "began_after": {"epoch": "e", "offset": 5},
            "written_up_to": {"epoch": "e", "offset": 6},
            "compression": "permessage-deflate", "present": true,
            "memory_bytes": 20_300,
            "limits": [limit("pings_per_connection", 3), limit("connections_per_ip", 0)]
        }],
        "generations": [{
            "task_id": "t", "channel": "chat_1", "route": "/ws/", "upstream": "api", "node": "ab",
            "streams": true, "connection_id": "00000000000000000000000000000001", "user_id": 7,
            "began_at": 1090, "last_event_at": null
        }],
        "errors": [{
            "at_ms": 1_100_000, "about": "answer", "code": "rate_limited", "number": 1,
            "connection_id": null, "user_id": 7, "channel": "chat_1", "task_id": null
        }],
        "limits": [{"user_id": "7", "route": "/ws/", "params": {"room": "a"}, "limits": [
            {"limit": "messages_per_user", "kind": "bucket", "standing": standing(0)},
            {"limit": "generations_per_user", "kind": "leases", "standing": standing(0)},
            {"limit": "connects_per_user", "kind": "window", "standing": null}
        ]}],
        "channels": [{"channel": "chat_1", "history": true, "epoch": "e", "offset": 8}]
    })
}

#[test]
fn what_is_wrong_is_said_in_sentences() {
    let answer: Answer = serde_json::from_value(answer()).unwrap();
    let text = text::write("user_id", "7", &answer, 1100);
    for part in [
        "user 7: 3 open connections, 1 reply in progress, 1 recent error",
        "channel chat_1 keeps a history, which is at offset 8 of epoch e",
        "open for 100 s, since 1970-01-01T00:16:40",
        "from 203.0.113.7, origin https://example.com, on node ab",
        "connection token, which expires in 15 min; max_session closes the connection in 6 min",
        "compression: permessage-deflate",
        "send queue: 12 of 64 frames, 20 KB of 1000 KB; the client has not taken all of it for 40 s",
        "one is being relayed, or waits for its turn; 2 wait behind it",
        "receives what came after offset 5; written up to 6, 2 behind the channel",
        "pings_per_connection: 3 of 5 left",
        "over connections_per_ip: 0 of 5 left, the next when one of them ends",
        "2 more connections are not shown",
        "over messages_per_user: 0 of 5 left, the next in 42 s",
        "over generations_per_user: 0 of 5 left, the next when one of them ends",
        "connects_per_user: not known, it is counted by a part of the path",
        "task t on chat_1: streamed by api, for connection 00000000000000000000000000000001 of user 7",
        "for 10 s; no event yet",
        "answered with an error: rate_limited (user 7, channel chat_1)",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
}
