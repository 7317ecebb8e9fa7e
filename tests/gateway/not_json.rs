//! Publications that look like JSON objects but are none: whatever a worker or an API writes, and on whichever way,
//! clients get JSON, live and from the history.

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::rig::upstream::{Reply, Upstream};
use crate::rig::{API_KEY, Backend, Client, Gateway, Redis, Settings, http};

const PATH: &str = "/ws/chat/42/";

on_both_engines! {
    the_server_api_takes_what_python_writes,
    a_streamed_reply_is_always_json,
}

/// What a publisher writes, and what a client gets.
fn publications() -> Vec<(Vec<u8>, Value)> {
    let text = |data: &str| (data.as_bytes().to_vec(), json!({"event": "message", "data": data}));
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let mut cases: Vec<_> = [
        "{'event': 'chunk'}",
        r#"{"event":"chunk",}"#,
        r#"{"event":"chunk",,"a":1}"#,
        r#"{"event":"chunk"}}"#,
        r#"{{"event":"chunk"}}"#,
        "{\"chunk\":\"a\nb\"}",
        r#"{"chunk":"\x41"}"#,
        r#"{"n":01}"#,
        r#"{"n":+1}"#,
        r#"{"n":.5}"#,
        r#"{"n":nan}"#,
        r#"{"a":1} {"b":2}"#,
        "{event: 1}",
        &deep,
    ]
    .map(text)
    .into();
    cases.extend([
        (br#"{"a": NaN}"#.to_vec(), json!({"a": "NaN"})),
        (br#"{"a": [Infinity, -Infinity]}"#.to_vec(), json!({"a": ["Infinity", "-Infinity"]})),
        (br#" {"NaN": "{NaN}"} "#.to_vec(), json!({"NaN": "{NaN}"})),
        (b"{}".to_vec(), json!({})),
    ]);
    cases
}

/// Publications that are kept as they are without a history.
fn kept_publications() -> Vec<(Vec<u8>, Value)> {
    vec![
        (b"hello".to_vec(), json!({"event": "message", "data": "hello"})),
        (b"[1]".to_vec(), json!({"event": "message", "data": [1]})),
        (b"[NaN]".to_vec(), json!({"event": "message", "data": ["NaN"]})),
        (b"{\"a\":\"\xff\"}".to_vec(), json!({"event": "message", "data": "eyJhIjoi/yJ9"})),
    ]
}

fn without_position(mut event: Value) -> (Value, u64) {
    let members = event.as_object_mut().expect("an object");
    let offset = members.remove("offset").and_then(|offset| offset.as_u64()).expect("an offset");
    members.remove("epoch");
    (event, offset)
}

/// Expects these publications with offsets from 1 on.
async fn expect_all(client: &mut Client, cases: &[(Vec<u8>, Value)]) {
    for ((written, expected), number) in cases.iter().zip(1..) {
        let (event, offset) = without_position(client.next_json().await);
        assert_eq!((&event, offset), (expected, number), "{}", String::from_utf8_lossy(written));
    }
}

async fn resume_from_start(gateway: &Gateway, connected: &Value) -> Client {
    let epoch = connected["epoch"].as_str().expect("an epoch");
    let path = format!("{PATH}?since=0&epoch={epoch}");
    let (client, connected) = Client::connected(gateway, &path).await;
    assert_eq!(connected["recovered"], true, "{connected}");
    client
}

#[tokio::test]
async fn what_the_script_publishes_reaches_clients_as_json() {
    let engine = Engine::redis().await;
    let redis = engine.server().unwrap();
    let gateway = engine.start(Settings::chat("http://127.0.0.1:1/")).await;
    let (mut client, connected) = Client::connected(&gateway, PATH).await;
    let cases = [publications(), kept_publications()].concat();
    let script = redis::Script::new(include_str!("../../clients/redis/publish.lua"));
    let mut call = script.key("tg:{chat_42}:stream");
    call.key("tg:{chat_42}:meta").arg("chat_42").arg(1000).arg(60_000);
    for (written, _) in &cases {
        call.arg(&written[..]);
    }
    let _: (String, u64, u64) = call.invoke_async(&mut redis.connection().await).await.unwrap();
    expect_all(&mut client, &cases).await;
    // The history has the publisher's own bytes, and is read by the same rule.
    expect_all(&mut resume_from_start(&gateway, &connected).await, &cases).await;
    let path = "/v1/channels/chat_42/history";
    let page = http::send(gateway.admin(), "GET", path, &[("x-api-key", API_KEY)], "".into()).await;
    for (row, (_, expected)) in page.json()["publications"].as_array().unwrap().iter().zip(&cases) {
        assert_eq!(&without_position(row["data"].clone()).0, expected);
    }
    for (fault, count) in [("text", 14.0), ("bare_floats", 3.0), ("bytes", 1.0)] {
        let name = "tidegate_publications_not_json_total";
        assert_eq!(gateway.metric(name, &[("fault", fault)]).await, count, "{fault}");
    }
    let logged = gateway.wait_for_event("publication_not_json").await;
    assert_eq!(logged["channel"], "chat_42", "{logged}");
}

#[tokio::test]
async fn a_plain_publication_that_looks_like_an_object_is_one() {
    let engine = Engine::redis().await;
    let redis = engine.server().unwrap();
    let gateway = engine.start(Settings::chat("http://127.0.0.1:1/")).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let mut connection = redis.connection().await;
    for (written, expected) in publications() {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg("chat_42").arg(&written[..]);
        let _: u64 = publish.query_async(&mut connection).await.unwrap();
        assert_eq!(client.next_json().await, expected, "{}", String::from_utf8_lossy(&written));
    }
    for unchanged in ["hello", "[1,]", "NaN", " {\"a\" :1}", "{:a 1"] {
        let _: u64 = redis.run(&["PUBLISH", "chat_42", unchanged]).await;
        assert_eq!(client.next_text().await, unchanged);
    }
}

async fn the_server_api_takes_what_python_writes(engine: Engine) {
    let gateway = engine.start(Settings::chat("http://127.0.0.1:1/")).await;
    let (mut client, connected) = Client::connected(&gateway, PATH).await;
    let post = async |body: &str| {
        let key = [("x-api-key", API_KEY)];
        let body = body.to_owned().into();
        http::send(gateway.admin(), "POST", "/v1/publish", &key, body).await
    };
    let one = post(r#"{"channel": "chat_42", "data": {"a": NaN}}"#).await;
    assert_eq!(one.status, 200, "{}", one.text());
    let batch = r#"{"publications": [{"channel": "chat_42", "data": {"b": [-Infinity]}},
        {"channel": "chat_42", "data": Infinity}, {"channel": "chat_42", "data": {"\ud83d":"\ud83d"}}]}"#;
    let batch = post(batch).await;
    assert_eq!(batch.status, 200, "{}", batch.text());
    for body in [
        r#"{"channel": "chat_42", "data": {'a': 1}}"#,
        r#"{"channel": "chat_42", "data": {"a": 1,}}"#,
        r#"{"channel": "chat_42", "data": {"a": nan}}"#,
        r#"{"channel": "\ud83d", "data": 1}"#,
    ] {
        let refused = post(body).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.text());
    }
    for client in [&mut client, &mut resume_from_start(&gateway, &connected).await] {
        assert_eq!(without_position(client.next_json().await), (json!({"a": "NaN"}), 1));
        assert_eq!(without_position(client.next_json().await), (json!({"b": ["-Infinity"]}), 2));
        let infinity = json!({"event": "message", "data": "Infinity"});
        assert_eq!(without_position(client.next_json().await), (infinity, 3));
        // Rust cannot read it, but JSON.parse does.
        assert_eq!(client.next_text().await, r#"{"\ud83d":"\ud83d","offset":4}"#);
    }
}

async fn a_streamed_reply_is_always_json(engine: Engine) {
    let stream = concat!(
        "{\"event\":\"chunk\",\"x\":NaN}\n",
        "{'event': 'chunk'}\n",
        "{\"event\":\"chunk\",}\n",
        "{\"event\":\"chunk\",\"\\ud83d\":\"\\ud83d\"}\n",
        "[Infinity]\n",
        "{\"event\":\"complete\",\"y\":-Infinity}",
    );
    for (kind, path) in
        [("application/x-ndjson", "/ws/chat/1/"), ("text/event-stream", "/ws/chat/2/")]
    {
        let upstream = Upstream::start(move |_| {
            let (writer, reply) = Reply::stream(kind);
            for line in stream.split('\n') {
                let is_sse = kind == "text/event-stream";
                let (before, after) = if is_sse { ("data: ", "\n\n") } else { ("", "\n") };
                writer.write(format!("{before}{line}{after}"));
            }
            reply
        })
        .await;
        let gateway = engine.start(Settings::chat(&upstream.url("/"))).await;
        let (mut client, _) = Client::connected(&gateway, path).await;
        client.send_json(&json!({"message": "hi"})).await;
        client.next_event("task_queued").await;
        client.next_event("processing_started").await;
        let mut next = async || client.next_text().await;
        let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!(read(&next().await)["x"], "NaN");
        assert_eq!(read(&next().await)["chunk"], "{'event': 'chunk'}");
        assert_eq!(read(&next().await)["chunk"], "{\"event\":\"chunk\",}");
        let raw = next().await;
        assert!(raw.starts_with(r#"{"event":"chunk","\ud83d":"\ud83d","#), "{raw}");
        assert_eq!(read(&next().await)["chunk"], json!(["Infinity"]));
        let complete = read(&next().await);
        assert_eq!((&complete["event"], &complete["y"]), (&json!("complete"), &json!("-Infinity")));
    }
}

/// The JSON serializer of channels_redis: the same bytes on both layers.
#[tokio::test]
async fn json_of_a_channel_layer_is_read_as_elsewhere() {
    for wire in ["channels-core", "channels-pubsub"] {
        let redis = Redis::start().await;
        let settings = Settings::chat("http://127.0.0.1:1/")
            .redis(&redis.url())
            .also("engine.redis", &format!("wire = {wire:?}"))
            .also("engine.redis.channels", "serializer = \"json\"");
        // The settings name the Redis server themselves.
        let gateway = Engine::memory().start(settings).await;
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        let mut backend = Backend::new(&redis).await;
        for members in [r#""a": NaN, "b": [-Infinity]}"#, r#""a": 1,}"#, r#""\ud83d": "\ud83d"}"#] {
            let head = r#"{"type": "chat.message", "#;
            if wire == "channels-core" {
                let body = |_: &Backend, names: Vec<String>| {
                    format!("{head}\"__asgi_channel__\": {}, {members}", json!(names)).into_bytes()
                };
                assert_eq!(backend.send_body("chat_42", body).await, 0);
            } else {
                let body = format!("{head}{members}");
                let _: u64 = redis.run(&["PUBLISH", "asgi__group__chat_42", &body]).await;
            }
        }
        let floats = r#"{"type":"chat.message","a":"NaN","b":["-Infinity"],"offset":1,"#;
        let first = client.next_text().await;
        assert!(first.starts_with(floats), "{first}");
        let surrogates = r#"{"type":"chat.message","\ud83d":"\ud83d","offset":2}"#;
        assert_eq!(client.next_text().await, surrogates);
        let malformed = [("reason", "malformed")];
        gateway.wait_for_metric("tidegate_channel_layer_unreadable_total", &malformed, 1.0).await;
    }
}
