use http_body_util::BodyExt;

use super::*;
use crate::protocol::PathPattern;

#[tokio::test]
async fn a_draining_node_answers_503() {
    let path = PathPattern::parse("/health/").unwrap();
    let reply = config::FixedReply { path, reply: r#"{"status":"healthy"}"#.into(), after: 0 };
    for (method, draining, status, body) in [
        ("GET", false, 200, r#"{"status":"healthy"}"#),
        ("HEAD", false, 200, r#"{"status":"healthy"}"#),
        ("POST", false, 405, r#"{"code":"method","error":"GET or HEAD only"}"#),
        ("GET", true, 503, r#"{"code":"draining","error":"this node is stopping"}"#),
    ] {
        let request = Request::builder().method(method).body(()).unwrap();
        let answer = answer(&reply, &request, draining);
        assert_eq!(answer.status(), status, "{method}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let (found, expected): (serde_json::Value, serde_json::Value) =
            (serde_json::from_slice(&bytes).unwrap(), serde_json::from_str(body).unwrap());
        assert_eq!(found, expected, "{method}");
    }
}
