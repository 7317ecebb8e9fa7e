//! Whole replies are posted when they have ended, until they are taken.

use bytes::Bytes;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::chat::{relayed, session};
use crate::engine::Engine;
use crate::outcome::attempt;
use crate::relay_http::verify_signature;
use crate::rig::in_turn;
use crate::rig::{Client, Gateway, Reply, Settings, Upstream};

const PATH: &str = "/ws/chat/42/";
const SSE: &str = "text/event-stream";
const SECRET: &str = "a secret of the receiver";
const POSTS: &str = "tidegate_on_complete_total";

fn sse(body: &str) -> Reply {
    let headers = vec![("content-type", SSE.to_owned())];
    Reply::Answer { status: 200, headers, body: Bytes::copy_from_slice(body.as_bytes()) }
}

fn settings(upstream: &Upstream, receiver: &Upstream, lines: &str) -> Settings {
    let (url, hook) = (upstream.url("/chat"), receiver.url("/replies?from=gateway"));
    let upstream = format!(
        "kind = \"http\"\nurl = {url:?}\nretries = 0\n{lines}\n[upstream.worker.on_complete]\nurl = {hook:?}\n\
         signing_secret = {SECRET:?}\nheaders = {{ authorization = \"Bearer of-the-receiver\" }}"
    );
    // On Redis a reply that has ended is given back a moment after its last event. Two that are held would be noticed.
    relayed(&url, "[route.limits]\ngenerations_per_user = 2").upstream("worker", &upstream)
}

async fn signed_in(gateway: &Gateway) -> Client {
    let cookie = format!("access_token={}", session());
    attempt(gateway, PATH, &[("cookie", &cookie)]).await.expect("a session")
}

async fn wait_for(client: &mut Client, name: &str) -> Value {
    loop {
        let event = client.next_json().await;
        if event["event"] == name {
            return event;
        }
    }
}

/// Sends a message, and returns its task and the end of its reply.
async fn ask(client: &mut Client, id: &str) -> (Value, Value) {
    client.send_json(&json!({"message": "hello", "id": id})).await;
    let task_id = client.next_event("task_queued").await["task_id"].clone();
    loop {
        let event = client.next_json().await;
        if ["complete", "error", "cancelled"].iter().any(|name| event["event"] == *name) {
            return (task_id, event);
        }
    }
}

#[tokio::test]
async fn a_whole_reply_is_posted_until_it_is_taken() {
    let body = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\\u006co \"}}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\u{1f600}\"}}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\
        \"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}}]}}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n";
    let upstream = Upstream::start(in_turn([sse(body), sse(body)])).await;
    let receiver = Upstream::start(in_turn([Reply::status(500), Reply::Hangup])).await;
    let gateway = Gateway::start(settings(&upstream, &receiver, "dialect = \"openai-chat\"")).await;
    let mut client = signed_in(&gateway).await;
    let (task_id, end) = ask(&mut client, "m-1").await;
    assert_eq!(end["event"], "complete");

    let attempts = [(); 3];
    let mut bodies = Vec::new();
    for () in attempts {
        let post = receiver.next_request().await;
        assert_eq!((&*post.method, &*post.path), ("POST", "/replies?from=gateway"));
        assert_eq!(post.header("idempotency-key"), task_id.as_str());
        assert_eq!(post.header("x-request-id"), task_id.as_str());
        assert_eq!(post.header("content-type"), Some("application/json"));
        assert_eq!(post.header("authorization"), Some("Bearer of-the-receiver"));
        verify_signature(&post, SECRET);
        bodies.push(post.json());
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    let mut reply = bodies.remove(0);
    let timings = reply["timings"].take();
    assert!(timings["duration_ms"].as_u64() >= timings["first_event_ms"].as_u64(), "{timings}");
    assert!(timings["first_event_ms"].is_u64(), "{timings}");
    for name in ["received_at", "ended_at"] {
        assert!(timings[name].as_str().is_some_and(|time| time.ends_with('Z')), "{timings}");
    }
    for name in ["connection_id", "request_id"] {
        assert!(reply[name].take().is_string(), "{name}");
    }
    let expected = json!({
        "task_id": task_id, "message_id": "m-1", "upstream": "worker",
        "route": "/ws/chat/{conversation_id}/", "channel": "chat_42",
        "params": {"conversation_id": "42"}, "user": {"id": 7, "name": "ana"},
        "connection_id": null, "request_id": null, "outcome": "completed",
        "finish_reason": "tool_calls", "error": null, "text": "Hello \u{1f600}",
        "tool_calls": [{"id": "c1", "name": "f", "arguments": "{\"x\":1}"}], "truncated": false,
        "usage": {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}, "timings": null,
    });
    assert_eq!(reply, expected);
    gateway.wait_for_metric(POSTS, &[("upstream", "worker"), ("outcome", "taken")], 1.0).await;
    gateway.wait_for_metric("tidegate_on_complete_retries_total", &[], 2.0).await;
    gateway.wait_for_metric("tidegate_on_complete_waiting", &[], 0.0).await;
}

/// The next message is relayed although its user may have one reply and the receiver does not answer.
#[tokio::test]
async fn a_receiver_that_hangs_holds_nothing_of_the_user() {
    let body = "data: {\"event\":\"chunk\",\"chunk\":\"a\\n\"}\n\ndata: {\"event\":\"chunk\",\"chunk\":\"b\"}\n\n\
        data: {\"event\":\"usage\",\"input_tokens\":3}\n\n\
        data: {\"event\":\"complete\",\"finish_reason\":\"mine\"}\n\n";
    let upstream = Upstream::start(in_turn([sse(body), sse(body), sse(body)])).await;
    let receiver = Upstream::start(|_| Reply::Hang).await;
    let gateway = Gateway::start(settings(&upstream, &receiver, "")).await;
    let mut client = signed_in(&gateway).await;
    for id in ["a", "b", "c"] {
        assert_eq!(ask(&mut client, id).await.1["event"], "complete");
        let reply = receiver.next_request().await.json();
        assert_eq!((&reply["message_id"], &reply["text"]), (&json!(id), &json!("a\nb")));
        assert_eq!(
            (&reply["outcome"], &reply["finish_reason"]),
            (&json!("completed"), &json!("mine"))
        );
        assert_eq!(reply["usage"], json!({"input_tokens": 3}));
    }
    gateway.wait_for_metric("tidegate_on_complete_waiting", &[("upstream", "worker")], 3.0).await;
}

#[tokio::test]
async fn every_end_is_posted_as_what_it_is() {
    let chunk = "data: {\"event\":\"chunk\",\"chunk\":\"so far\"}\n\n";
    let failed =
        format!("{chunk}event: error\ndata: {{\"message\":\"No model.\",\"code\":\"m1\"}}\n\n");
    let own =
        format!("{chunk}data: {{\"event\":\"error\",\"error\":\"Own.\",\"code\":\"own\"}}\n\n");
    let (lost, broken) = Reply::stream(SSE);
    let (silent, hanging) = Reply::stream(SSE);
    let (running, cancelled) = Reply::stream(SSE);
    let upstream =
        Upstream::start(in_turn([sse(&failed), sse(&own), broken, hanging, cancelled])).await;
    let receiver = Upstream::accepting().await;
    let lines = "stream_idle_timeout = \"400ms\"";
    let gateway = Gateway::start(settings(&upstream, &receiver, lines)).await;
    let mut client = signed_in(&gateway).await;
    let posted = async |outcome: &str, error: Value| {
        let reply = receiver.next_request().await.json();
        assert_eq!(
            (&reply["outcome"], &reply["text"]),
            (&json!(outcome), &json!("so far")),
            "{reply}"
        );
        assert_eq!(reply["error"], error, "{reply}");
    };
    ask(&mut client, "failed").await;
    posted("failed", json!({"code": "m1", "text": "No model."})).await;
    ask(&mut client, "own").await;
    posted("failed", json!({"code": "own", "text": "Own."})).await;
    lost.write(chunk);
    client.send_json(&json!({"message": "hello", "id": "lost"})).await;
    wait_for(&mut client, "chunk").await;
    lost.abort();
    wait_for(&mut client, "error").await;
    posted("lost", json!({"code": "worker_lost", "text": "the reply broke off"})).await;
    silent.write(chunk);
    ask(&mut client, "silent").await;
    posted("timed_out", json!({"code": "worker_lost", "text": "the reply fell silent"})).await;
    running.write(chunk);
    client.send_json(&json!({"message": "hello", "id": "cancelled"})).await;
    let task_id = client.next_event("task_queued").await["task_id"].clone();
    wait_for(&mut client, "chunk").await;
    client.send_json(&json!({"type": "cancel", "task_id": task_id})).await;
    wait_for(&mut client, "cancelled").await;
    posted("cancelled", Value::Null).await;
}

#[tokio::test]
async fn a_text_beyond_the_bound_is_cut_and_says_so() {
    let piece = "x".repeat(300 * 1024);
    let body = format!("data: {{\"event\":\"chunk\",\"chunk\":\"{piece}\"}}\n\n").repeat(4);
    let upstream = Upstream::start(in_turn([sse(&body)])).await;
    let receiver = Upstream::accepting().await;
    let engine = "max_publication_bytes = \"1MiB\"";
    let settings = settings(&upstream, &receiver, "").section("engine", engine);
    let gateway = Gateway::start(settings).await;
    let mut client = signed_in(&gateway).await;
    assert_eq!(ask(&mut client, "a").await.1["event"], "complete");
    let reply = receiver.next_request().await.json();
    assert_eq!(reply["truncated"], true);
    assert_eq!(reply["text"].as_str().map(str::len), Some(3 * piece.len()));
}

#[tokio::test]
async fn a_reply_that_is_refused_is_given_up_at_once() {
    let upstream = Upstream::start(in_turn([sse("data: a\n\n"), sse("data: b\n\n")])).await;
    let redirect = vec![("location", "http://127.0.0.1:1/".to_owned())];
    let answers =
        [Reply::status(422), Reply::Answer { status: 307, headers: redirect, body: Bytes::new() }];
    let receiver = Upstream::start(in_turn(answers)).await;
    let gateway = Gateway::start(settings(&upstream, &receiver, "")).await;
    let mut client = signed_in(&gateway).await;
    let (task_id, _) = ask(&mut client, "a").await;
    let line = gateway.wait_for_event("reply_not_posted").await;
    assert_eq!((&line["level"], &line["outcome"]), (&json!("WARN"), &json!("rejected")), "{line}");
    assert_eq!((&line["task_id"], &line["attempts"]), (&task_id, &json!(1)), "{line}");
    assert!(line["reason"].as_str().is_some_and(|reason| reason.contains("422")), "{line}");
    ask(&mut client, "b").await;
    gateway.wait_for_metric(POSTS, &[("outcome", "rejected")], 2.0).await;
    assert_eq!(receiver.requests().len(), 2);
}

#[tokio::test]
async fn a_drain_posts_what_waits_without_its_pause() {
    let upstream = Upstream::start(in_turn([sse("data: a\n\n")])).await;
    let wait = vec![("retry-after", "100".to_owned())];
    let busy = Reply::Answer { status: 503, headers: wait, body: Bytes::new() };
    let receiver = Upstream::start(in_turn([busy])).await;
    let settings =
        settings(&upstream, &receiver, "").section("shutdown", "drain = \"1s\"\ngrace = \"20s\"");
    let mut gateway = Gateway::start(settings).await;
    let mut client = signed_in(&gateway).await;
    let (task_id, _) = ask(&mut client, "a").await;
    gateway.wait_for_metric("tidegate_on_complete_retries_total", &[], 1.0).await;
    assert_eq!(gateway.stop().await, Some(0));
    let posts = receiver.requests();
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[1].header("idempotency-key"), task_id.as_str());
}

#[tokio::test]
async fn a_drain_ends_what_is_not_taken_in_time() {
    let upstream = Upstream::start(in_turn([sse("data: a\n\n")])).await;
    let receiver = Upstream::start(|_| Reply::Hang).await;
    let settings = settings(&upstream, &receiver, "")
        .section("shutdown", "drain = \"100ms\"\ngrace = \"500ms\"");
    let mut gateway = Gateway::start(settings).await;
    let mut client = signed_in(&gateway).await;
    ask(&mut client, "a").await;
    receiver.next_request().await;
    assert_eq!(gateway.stop().await, Some(1));
    let line = gateway.wait_for_event("reply_not_posted").await;
    assert_eq!(line["outcome"], "abandoned", "{line}");
}

/// A reply that runs during a reload goes where it was to go, and the next one where the new config says.
#[tokio::test]
async fn a_reload_changes_where_the_next_reply_is_posted() {
    let (stream, running) = Reply::stream(SSE);
    let upstream = Upstream::start(in_turn([running, sse("data: b\n\n")])).await;
    let (first, second) = (Upstream::accepting().await, Upstream::accepting().await);
    let settings = |receiver| settings(&upstream, receiver, "").section("reload", "watch = \"0s\"");
    let gateway = Gateway::start(settings(&first)).await;
    let mut client = signed_in(&gateway).await;
    client.send_json(&json!({"message": "hello", "id": "a"})).await;
    wait_for(&mut client, "processing_started").await;
    std::fs::write(gateway.config_file(), settings(&second).to_string()).expect("a new config");
    gateway.signal(Signal::HUP);
    gateway.wait_for_event("config_reloaded").await;
    stream.write("data: a\n\n");
    drop(stream);
    wait_for(&mut client, "complete").await;
    assert_eq!(first.next_request().await.json()["message_id"], "a");
    ask(&mut client, "b").await;
    assert_eq!(second.next_request().await.json()["message_id"], "b");
    assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
}

/// The thoughts and the client's object are posted on request only.
#[tokio::test]
async fn thoughts_and_the_message_are_posted_on_request() {
    let body = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5}}}\n\n\
        event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":\
        {\"type\":\"thinking_delta\",\"thinking\":\"I \\u0074hink\"}}\n\n\
        event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":\
        {\"type\":\"text_delta\",\"text\":\"so\"}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let own = "data: {\"event\":\"reasoning\",\"reasoning\":\"Hm\"}\n\n\
        data: {\"event\":\"tool_call\",\"state\":\"start\",\"id\":\"c\",\"name\":\"f\"}\n\n\
        data: {\"event\":\"tool_call\",\"state\":\"end\",\"id\":\"c\",\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}\n\n\
        data: {\"event\":\"chunk\",\"chunk\":\"yes\"}\n\ndata: {\"event\":\"chunk\",\"chunk\":\"no\",\"choice\":1}\n\n";
    for (dialect, body, reasoning, text) in
        [("anthropic", body, "I think", "so"), ("events", own, "Hm", "yes")]
    {
        let upstream = Upstream::start(in_turn([sse(body), sse(body)])).await;
        let receiver = Upstream::accepting().await;
        let lines = format!("dialect = {dialect:?}");
        let usual = settings(&upstream, &receiver, &lines).section("reload", "watch = \"0s\"");
        let gateway = Gateway::start(&usual).await;
        let mut client = signed_in(&gateway).await;
        ask(&mut client, "a").await;
        let reply = receiver.next_request().await.json();
        assert_eq!(reply["text"], text, "{reply}");
        assert!(reply.get("reasoning").is_none() && reply.get("message").is_none(), "{reply}");
        let more = usual
            .to_string()
            .replace("signing_secret", "include = [\"message\", \"reasoning\"]\nsigning_secret");
        std::fs::write(gateway.config_file(), more).expect("a new config");
        gateway.signal(Signal::HUP);
        gateway.wait_for_event("config_reloaded").await;
        let message = json!({"message": "hello", "id": "b", "more": [1, {"x": null}]});
        client.send_json(&message).await;
        wait_for(&mut client, "complete").await;
        let reply = receiver.next_request().await.json();
        assert_eq!((&reply["reasoning"], &reply["text"]), (&json!(reasoning), &json!(text)));
        assert_eq!((&reply["message"], &reply["truncated"]), (&message, &json!(false)));
        if dialect == "events" {
            let call = json!([{"id": "c", "name": "f", "arguments": "{\"x\":1}"}]);
            assert_eq!(reply["tool_calls"], call);
        }
    }
}

/// What running replies keep is a part of the memory of the node, until they are posted.
#[tokio::test]
async fn what_is_kept_counts_as_memory() {
    let (stream, running) = Reply::stream(SSE);
    let upstream = Upstream::start(in_turn([running])).await;
    let receiver = Upstream::accepting().await;
    let gateway = Gateway::start(settings(&upstream, &receiver, "")).await;
    let mut client = signed_in(&gateway).await;
    client.send_json(&json!({"message": "hello"})).await;
    let piece = "x".repeat(50_000);
    stream.write(format!("data: {{\"event\":\"chunk\",\"chunk\":\"{piece}\"}}\n\n"));
    wait_for(&mut client, "chunk").await;
    let kept = ("tidegate_memory_bytes", [("part", "replies")]);
    gateway.wait_for_metric(kept.0, &kept.1, piece.len() as f64).await;
    drop(stream);
    wait_for(&mut client, "complete").await;
    assert_eq!(receiver.next_request().await.json()["text"], piece);
    gateway.wait_for_metric(kept.0, &kept.1, 0.0).await;
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_tried_again() {
    let upstream = Upstream::start(in_turn([sse("data: a\n\n"), sse("data: b\n\n")])).await;
    let receiver = Upstream::start(in_turn([Reply::Hang])).await;
    let text = settings(&upstream, &receiver, "")
        .section("shutdown", "drain = \"100ms\"\ngrace = \"500ms\"")
        .section("log", "level = \"debug\"\nformat = \"json\"")
        .section("reload", "watch = \"0s\"")
        .to_string();
    let slow = text.replace("signing_secret", "timeout = \"200ms\"\nsigning_secret");
    let mut gateway = Gateway::start(slow).await;
    let mut client = signed_in(&gateway).await;
    // No answer in time.
    let (task_id, _) = ask(&mut client, "a").await;
    let line = gateway.wait_for_event("reply_post_retried").await;
    assert_eq!((&line["task_id"], &line["attempts"]), (&task_id, &json!(1)), "{line}");
    gateway.wait_for_metric(POSTS, &[("outcome", "taken")], 1.0).await;
    let posts = receiver.requests();
    assert_eq!(posts.len(), 2);
    assert!(posts.iter().all(|post| post.header("idempotency-key") == task_id.as_str()));
    // No such name.
    let url = format!("{:?}", receiver.url("/replies?from=gateway"));
    let nowhere = text.replace(&url, "\"http://nowhere.invalid/?token=s3cret\"");
    std::fs::write(gateway.config_file(), nowhere).expect("a new config");
    gateway.signal(Signal::HUP);
    gateway.wait_for_event("config_reloaded").await;
    let (task_id, _) = ask(&mut client, "b").await;
    gateway.wait_for_metric("tidegate_on_complete_retries_total", &[], 2.0).await;
    let lines = gateway.log_events("reply_post_retried");
    let line = lines.iter().find(|line| line["task_id"] == task_id).expect("a line");
    let reason = line["reason"].as_str().expect("a reason");
    assert!(!reason.is_empty() && !gateway.stderr_contains("s3cret"), "{line}");
    assert!(!gateway.stderr_contains(SECRET) && !gateway.stderr_contains("of-the-receiver"));
    gateway.stop().await;
    assert_eq!(gateway.wait_for_event("reply_not_posted").await["outcome"], "abandoned");
}

/// A node that is killed posts nothing: another one posts the outcome, with what the history has of the text.
#[tokio::test]
async fn the_outcome_of_a_killed_node_is_posted_by_another() {
    let engine = Engine::redis().await;
    let (stream, running) = Reply::stream(SSE);
    let upstream = Upstream::start(in_turn([running])).await;
    let receiver = Upstream::accepting().await;
    let settings = || settings(&upstream, &receiver, "");
    let (one, two) = (engine.start(settings()).await, engine.start(settings()).await);
    let mut client = signed_in(&one).await;
    let mut listener = signed_in(&two).await;
    client.send_json(&json!({"message": "hello", "id": "m-1"})).await;
    let task_id = client.next_event("task_queued").await["task_id"].clone();
    for part in ["so \\u0066ar", " and on"] {
        stream.write(format!("data: {{\"event\":\"chunk\",\"chunk\":\"{part}\"}}\n\n"));
        wait_for(&mut listener, "chunk").await;
    }
    stream.write("data: {\"event\":\"usage\",\"input_tokens\":3}\n\n");
    wait_for(&mut listener, "usage").await;
    one.signal(Signal::KILL);
    assert_eq!(wait_for(&mut listener, "error").await["code"], "worker_lost");
    let post = receiver.next_request().await;
    assert_eq!(post.header("idempotency-key"), task_id.as_str());
    verify_signature(&post, SECRET);
    let mut reply = post.json();
    assert!(reply["connection_id"].take().is_string() && reply["request_id"].take().is_string());
    assert!(reply["timings"].take()["duration_ms"].is_u64());
    let expected = json!({
        "task_id": task_id, "message_id": "m-1", "upstream": "worker",
        "route": "/ws/chat/{conversation_id}/", "channel": "chat_42",
        "params": {"conversation_id": "42"}, "user": {"id": 7, "name": "ana"},
        "connection_id": null, "request_id": null, "outcome": "lost", "finish_reason": null,
        "error": {"code": "worker_lost", "text": "the gateway node that relayed the reply has failed"},
        "text": "so far and on", "tool_calls": [], "truncated": false,
        "usage": {"input_tokens": 3}, "timings": null,
    });
    assert_eq!(reply, expected);
    two.wait_for_metric(POSTS, &[("outcome", "taken")], 1.0).await;
}
