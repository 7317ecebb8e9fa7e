//! Bodies of requests: the client's object as it is, and templates.

use super::*;

#[tokio::test]
async fn the_clients_object_is_sent_as_it_is() {
    let upstream = Upstream::accepting().await;
    let lines = "body = \"data\"\nsigning_secret = \"0123456789abcdef\"";
    let gateway = Gateway::start(settings(&upstream, lines)).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let message = r#"{ "message":"hi","z":1.50,"a":[1e2, "\u00e9"],"z":{"b":1,"a":2},"n":18446744073709551615 }"#;
    let request = sent(&mut client, &upstream, message).await;
    assert_eq!(request.body, message.as_bytes());
    assert_eq!(request.header("content-type"), Some("application/json"));
    let length = message.len().to_string();
    assert_eq!(request.header("content-length"), Some(&*length));
    crate::relay_http::verify_signature(&request, "0123456789abcdef");
}

const TEMPLATE: &str = r#"
signing_secret = "0123456789abcdef"
headers = { authorization = "Bearer key" }
[upstream.worker.body]
model = "m-1"
stream = true
temperature = 0.2
stream_options = { include_usage = true }
user = "{channel}/{conversation_id}"
seed = { field = "seed", type = "int", default = "omit" }
tools = { field = "tools", type = "list" }
metadata = { value = { field = "{message}" } }
stop = []
n = { int = "{conversation_id}" }
none = { null = true }
messages = [
  { role = "system", content = "Answer briefly." },
  { spread = "messages", required = true },
  { role = "user", content = [{ type = "text", text = "{message}" }] },
]
"#;

#[tokio::test]
async fn a_template_makes_the_body_of_any_api() {
    let upstream = Upstream::accepting().await;
    let gateway = Gateway::start(settings(&upstream, TEMPLATE)).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let message = r#"{"message":" \"}] x ","messages":[{"role":"user","content":"a","n":9007199254740993.10}],"seed":18446744073709551615,"ignored":1e999}"#;
    let request = sent(&mut client, &upstream, message).await;
    let body = String::from_utf8(request.body.to_vec()).unwrap();
    // To the byte: the keys in the order of their names, and the client's own values as they were sent.
    assert_eq!(
        body,
        r#"{"messages":[{"content":"Answer briefly.","role":"system"},{"role":"user","content":"a","n":9007199254740993.10},{"content":[{"text":"\"}] x","type":"text"}],"role":"user"}],"metadata":{"field":"{message}"},"model":"m-1","n":42,"none":null,"seed":18446744073709551615,"stop":[],"stream":true,"stream_options":{"include_usage":true},"temperature":0.2,"tools":null,"user":"chat_42/42"}"#
    );
    crate::relay_http::verify_signature(&request, "0123456789abcdef");
    assert_eq!(request.header("authorization"), Some("Bearer key"));
}

#[tokio::test]
async fn what_is_no_valid_body_is_refused_before_it_is_sent() {
    let upstream = Upstream::accepting().await;
    let gateway = Gateway::start(settings(&upstream, TEMPLATE)).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    for (message, text) in [
        (r#"{"message":"a"}"#, "messages is required"),
        (r#"{"message":"a","messages":null}"#, "messages is required"),
        (r#"{"message":"a","messages":"b"}"#, "messages must be a list"),
        (r#"{"message":"a","messages":[],"seed":1.5}"#, "seed must be an integer"),
        (
            r#"{"message":"a","messages":[18446744073709551616]}"#,
            "messages holds a number that is out of range",
        ),
    ] {
        let error = refused(&mut client, message).await;
        assert_eq!(error, (json!("upstream_rejected"), json!(text)), "{message}");
    }
    let (mut other, _) = Client::connected(&gateway, "/ws/chat/x42/").await;
    let error = refused(&mut other, r#"{"message":"a","messages":[]}"#).await;
    assert_eq!(error, (json!("upstream_rejected"), json!("n is not an integer")));
    assert_eq!(upstream.requests().len(), 0);
    // None of them counts as a failure of the upstream.
    let labels = [("upstream", "worker"), ("outcome", "rejected")];
    assert_eq!(gateway.metric("tidegate_upstream_requests_total", &labels).await, 6.0);
    let request = sent(&mut client, &upstream, r#"{"message":"a","messages":[ ]}"#).await;
    assert_eq!(request.json()["messages"].as_array().unwrap().len(), 2);
}

/// A page that speaks the API's own vocabulary.
#[tokio::test]
async fn a_message_needs_a_text_only_where_it_is_sent() {
    let upstream = Upstream::accepting().await;
    let url = upstream.url("/");
    for (lines, is_needed) in [
        ("body = \"data\"", false),
        ("body = { input = { field = \"input\" } }", false),
        ("method = \"GET\"", false),
        ("body = { input = [\"{message}\"] }", true),
        ("body = \"envelope\"", true),
    ] {
        let gateway = Gateway::start(settings_to(&url, lines)).await;
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        for message in [r#"{"input":[1]}"#, r#"{"input":[1],"message":{"text":"x"}}"#] {
            if is_needed {
                assert_eq!(refused(&mut client, message).await.0, "empty_message", "{lines}");
                continue;
            }
            let request = sent(&mut client, &upstream, message).await;
            match request.method == "GET" {
                true => assert!(request.body.is_empty()),
                false => assert_eq!(request.json()["input"], json!([1]), "{lines}"),
            }
        }
    }
    let gateway =
        Gateway::start(settings_to(&upstream.url("/?q={message}"), "method = \"GET\"")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    assert_eq!(refused(&mut client, "{}").await.0, "empty_message");
}

/// A page that sends its whole history with each message, without a setting.
#[tokio::test]
async fn a_whole_history_fits() {
    let upstream = Upstream::accepting().await;
    let lines = "body = { messages = { field = \"messages\", required = true } }";
    let gateway = Gateway::start(settings(&upstream, lines)).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let history = format!(r#"[{{"role":"user","content":"{}"}}]"#, "ü".repeat(520_000));
    let message = format!(r#"{{"message":"hi","messages":{history}}}"#);
    assert!(message.len() > 1_000_000 && message.len() < 1 << 20);
    let request = sent(&mut client, &upstream, &message).await;
    assert!(request.body == format!(r#"{{"messages":{history}}}"#).as_bytes());
    // One byte more than a MiB is too much.
    client.send_text(&format!(r#"{{"message":"{}"}}"#, "x".repeat((1 << 20) - 13))).await;
    assert_eq!(client.closed().await, Some(1009));
}

/// The request of an API that takes no member that it does not know stands in a member of its own, beside those of the
/// gateway.
#[tokio::test]
async fn a_strict_api_gets_its_own_request_alone() {
    let upstream = Upstream::accepting().await;
    let lines = "body = { field = \"request\", type = \"object\", required = true }";
    let gateway = Gateway::start(settings(&upstream, lines)).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let own = r#"{ "id":"chat-1", "type":"x","message":null,"messages":[{"role":"user","content":"hi"}],"n":1.50 }"#;
    for id in ["m-1", "m-2"] {
        let message = format!(r#"{{"id":"{id}","request":{own}}}"#);
        let request = sent(&mut client, &upstream, &message).await;
        assert_eq!(request.body, own.as_bytes());
        let key = request.header("idempotency-key").expect("a key");
        assert!(key.ends_with(&format!(":{id}")), "{key}");
    }
    for (message, text) in [
        (r#"{"message":"hi"}"#, "request is required"),
        (r#"{"request":[]}"#, "request must be an object"),
    ] {
        let error = refused(&mut client, message).await;
        assert_eq!(error, (json!("upstream_rejected"), json!(text)));
    }
}
