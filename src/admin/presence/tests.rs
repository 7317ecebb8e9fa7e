//! Lists of members, over loopback.

use serde_json::json;

use crate::admin::tests::{Bench, KEY, locally};

#[tokio::test]
async fn presence_of_an_empty_channel_is_an_empty_list() {
    locally(async {
        let bench = Bench::with_keys().await;
        for (path, channel) in [
            ("/v1/channels/chat_42/presence", "chat_42"),
            ("/v1/channels/a%2Fb%3f%25/presence?limit=1000", "a/b?%"),
            ("/v1/channels/%C3%BC/presence?cursor=00000000000000000000000000000000", "ü"),
        ] {
            let listed = bench.send("GET", path, &[KEY], "").await;
            assert_eq!(listed.status, 200, "{path}: {}", listed.body);
            let empty = json!({
                "channel": channel, "users": [], "connections": [],
                "total_users": 0, "total_connections": 0, "next_cursor": null,
            });
            assert_eq!(listed.json(), empty);
        }
    })
    .await;
}

#[tokio::test]
async fn presence_is_not_told_to_everybody_nor_of_everything() {
    locally(async {
        let bench = Bench::with_keys().await;
        let path = "/v1/channels/chat_42/presence";
        assert_eq!(bench.send("GET", path, &[], "").await.status, 401);
        let posted = bench.send("POST", path, &[KEY], "{}").await;
        assert_eq!(posted.status, 405);
        assert!(posted.head.contains("allow: get, head, options"), "{}", posted.head);
        for (path, code) in [
            ("/v1/channels//presence", "bad_channel"),
            ("/v1/channels/a%20b/presence", "bad_channel"),
            ("/v1/channels/%FF/presence", "bad_channel"),
            ("/v1/channels/a/presence?limit=0", "bad_request"),
            ("/v1/channels/a/presence?limit=1001", "bad_request"),
            ("/v1/channels/a/presence?limit=-1", "bad_request"),
            ("/v1/channels/a/presence?cursor=7", "bad_request"),
            ("/v1/channels/a/presence?offset=7", "bad_request"),
        ] {
            let refused = bench.send("GET", path, &[KEY], "").await;
            assert_eq!((refused.status, refused.code().as_str()), (400, code), "{path}");
        }
    })
    .await;
}
