//! Metrics: service levels of replies, resumes and repeats, and that the reference lists exactly what is exported.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::chat::{relayed, session};
use crate::engine::Engine;
use crate::outcome::attempt;
use crate::rig::upstream::{Reply, StreamWriter, Upstream};
use crate::rig::{Client, Gateway, Settings, http, until};

const PATH: &str = "/ws/chat/42/";
const ROUTE: (&str, &str) = ("route", "/ws/chat/{conversation_id}/");

on_both_engines! {
    a_streamed_reply_is_timed,
    a_workers_reply_is_timed,
    a_worker_that_is_faster_than_its_upstream_is_timed,
    replies_are_timed_by_how_they_end,
    resumes_are_counted_by_outcome,
    repeated_messages_are_counted,
    everything_is_there_before_the_first_client,
}

fn settings(upstream: &Upstream) -> Settings {
    Settings::chat(&upstream.url("/"))
}

/// An upstream that answers each message with a stream of events that the test writes.
async fn streaming_upstream() -> (Upstream, Arc<Mutex<Vec<StreamWriter>>>) {
    let writers = Arc::new(Mutex::new(Vec::new()));
    let replies = Arc::clone(&writers);
    let upstream = Upstream::start(move |_| {
        let (writer, reply) = Reply::stream("text/event-stream");
        replies.lock().unwrap().push(writer);
        reply
    })
    .await;
    (upstream, writers)
}

async fn queue_message(client: &mut Client) -> Value {
    client.send_json(&json!({"message": "tell me"})).await;
    client.next_event("task_queued").await["task_id"].clone()
}

/// The histograms of first chunks, gaps and completed replies, each with its count and sum.
struct Times([(f64, f64); 3]);

impl Times {
    async fn of(gateway: &Gateway) -> Self {
        let mut times = [(0.0, 0.0); 3];
        for (time, (name, outcome)) in times.iter_mut().zip([
            ("first_chunk", None),
            ("chunk_gap", None),
            ("duration", Some(("outcome", "completed"))),
        ]) {
            let labels: Vec<_> = [ROUTE].into_iter().chain(outcome).collect();
            let series = |part: &str| format!("tidegate_generation_{name}_seconds_{part}");
            time.0 = gateway.metric(&series("count"), &labels).await;
            time.1 = gateway.metric(&series("sum"), &labels).await;
            assert_eq!(
                gateway.metric(&series("bucket"), &[&labels[..], &[("le", "+Inf")]].concat()).await,
                time.0
            );
        }
        Self(times)
    }

    fn counts(&self) -> [f64; 3] {
        self.0.map(|(count, _)| count)
    }

    /// The first chunk comes before the end of its reply, and the gaps add up to the time between.
    fn add_up(&self) {
        let [(_, first), (_, gaps), (_, durations)] = self.0;
        assert!(first > 0.0 && gaps >= 0.0 && first + gaps <= durations, "{:?}", self.0);
    }
}

async fn completed(gateway: &Gateway, count: f64) {
    let completed = [ROUTE, ("outcome", "completed")];
    gateway.wait_for_metric("tidegate_generations_total", &completed, count).await;
}

async fn a_streamed_reply_is_timed(engine: Engine) {
    let (upstream, writers) = streaming_upstream().await;
    let gateway = engine.start(settings(&upstream)).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    queue_message(&mut client).await;
    client.next_event("processing_started").await;
    assert_eq!(Times::of(&gateway).await.counts(), [0.0, 0.0, 0.0], "it has only started");
    let writer = writers.lock().unwrap().pop().unwrap();
    for chunk in ["one", "two", "three"] {
        writer.write(format!("data: {chunk}\n\n"));
        client.next_event("chunk").await;
    }
    drop(writer);
    client.next_event("complete").await;
    completed(&gateway, 1.0).await;
    let times = Times::of(&gateway).await;
    assert_eq!(times.counts(), [1.0, 2.0, 1.0]);
    times.add_up();

    // One reply arrives in a single piece, the other is empty.
    for end in ["event: complete\ndata: {}\n\n", "event: error\ndata: {}\n\n"] {
        queue_message(&mut client).await;
        client.next_event("processing_started").await;
        writers.lock().unwrap().pop().unwrap().write(end);
        client.next_json().await;
    }
    completed(&gateway, 2.0).await;
    let failed = [ROUTE, ("outcome", "task_failed")];
    gateway.wait_for_metric("tidegate_generations_total", &failed, 1.0).await;
    assert_eq!(Times::of(&gateway).await.counts(), [2.0, 2.0, 2.0]);
}

async fn a_workers_reply_is_timed(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let gateway = engine.start(settings(&upstream)).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    for (number, names_its_task) in [(1.0, true), (2.0, false)] {
        let task_id = queue_message(&mut client).await;
        let mut events = vec!["processing_started", "chunk", "tool_start", "chunk", "completed"];
        for name in events.drain(..) {
            let mut event = json!({"event": name});
            if names_its_task {
                event["task_id"] = task_id.clone();
            }
            gateway.publish("chat_42", event).await;
            client.next_event(name).await;
        }
        completed(&gateway, number).await;
        let times = Times::of(&gateway).await;
        assert_eq!(times.counts(), [number, 2.0 * number, number], "task named: {names_its_task}");
        times.add_up();
    }
    for (end, first_chunks) in [("completed", 3.0), ("error", 3.0)] {
        let task_id = queue_message(&mut client).await;
        gateway.publish("chat_42", json!({"event": end, "task_id": task_id})).await;
        client.next_event(end).await;
        completed(&gateway, if end == "error" { 4.0 } else { 3.0 }).await;
        assert_eq!(Times::of(&gateway).await.counts()[..2], [first_chunks, 4.0], "{end}");
    }
}

/// The reply has ended before the gateway knows its task.
async fn a_worker_that_is_faster_than_its_upstream_is_timed(engine: Engine) {
    let (answer, may_answer) = watch::channel(false);
    let upstream = Upstream::start(move |_| {
        let accepted = Reply::json(202, &json!({"task_id": "t-1"}));
        Reply::Delayed(may_answer.clone(), Box::new(accepted))
    })
    .await;
    let gateway = engine.start(settings(&upstream)).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let (mut other, _) = Client::connected(&gateway, PATH).await;
    client.send_json(&json!({"message": "quick"})).await;
    upstream.next_request().await;
    for name in ["processing_started", "chunk", "chunk", "completed"] {
        gateway.publish("chat_42", json!({"event": name, "task_id": "t-1"})).await;
        other.next_event(name).await;
    }
    answer.send(true).unwrap();
    client.next_event("task_queued").await;
    completed(&gateway, 1.0).await;
    let times = Times::of(&gateway).await;
    assert_eq!(times.counts(), [1.0, 0.0, 1.0]);
    times.add_up();
}

async fn replies_are_timed_by_how_they_end(engine: Engine) {
    let (upstream, writers) = streaming_upstream().await;
    let gateway = engine.start(settings(&upstream)).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    let task_id = queue_message(&mut client).await;
    client.next_event("processing_started").await;
    client.send_json(&json!({"type": "cancel", "task_id": task_id})).await;
    client.next_event("cancelled").await;
    queue_message(&mut client).await;
    client.next_event("processing_started").await;
    writers.lock().unwrap().pop().unwrap().abort();
    client.next_event("error").await;
    for outcome in ["cancelled", "worker_lost"] {
        let labels = [ROUTE, ("outcome", outcome)];
        gateway.wait_for_metric("tidegate_generations_total", &labels, 1.0).await;
        assert_eq!(
            gateway.metric("tidegate_generation_duration_seconds_count", &labels).await,
            1.0
        );
    }
    assert_eq!(Times::of(&gateway).await.counts(), [0.0, 0.0, 0.0]);
}

async fn resumes_are_counted_by_outcome(engine: Engine) {
    let route =
        "path = \"/live/\"\nchannel = \"live\"\nauth = [\"anonymous\"]\n[route.history]\nsize = 0";
    let upstream = Upstream::accepting().await;
    let gateway = engine.start(settings(&upstream).route(route)).await;
    let (client, connected) = Client::connected(&gateway, PATH).await;
    drop(client);
    let here =
        format!("since={}&epoch={}", connected["offset"], connected["epoch"].as_str().unwrap());
    for (path, recovered) in [
        (format!("{PATH}?{here}"), true),
        (format!("{PATH}?since=7&epoch=abc"), false),
        (format!("/live/?{here}"), false),
    ] {
        let (_client, connected) = Client::connected(&gateway, &path).await;
        assert_eq!(connected["recovered"], recovered, "{path}");
    }
    let count =
        async |outcome| gateway.metric("tidegate_resumes_total", &[("outcome", outcome)]).await;
    assert_eq!((count("recovered").await, count("not_recovered").await), (1.0, 2.0));
    assert_eq!(count("engine_down").await, 0.0);
}

async fn repeated_messages_are_counted(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let settings = relayed(&upstream.url("/"), "auth = [\"cookie\", \"anonymous\"]");
    let gateway = engine.start(settings).await;
    let cookie = format!("access_token={}", session());
    let mut client = attempt(&gateway, PATH, &[("cookie", &cookie)]).await.expect("a session");
    for _ in 0..3 {
        client.send_json(&json!({"message": "hello", "id": "m-1"})).await;
        client.next_event("task_queued").await;
    }
    for event in ["complete", "error", "seen"] {
        gateway.publish("chat_42", json!({"event": event, "task_id": "t"})).await;
    }
    client.next_event("complete").await;
    client.next_event("seen").await;
    for _ in 0..2 {
        let call = json!({"channel": "chat_42", "data": {"event": "once"}, "idempotency_key": "k"});
        assert_eq!(gateway.api("/v1/publish", call).await.status, 200);
    }
    let count = async |kind| gateway.metric("tidegate_duplicates_total", &[("kind", kind)]).await;
    assert_eq!(count("message").await, 2.0);
    assert_eq!(count("terminal_event").await, 1.0);
    assert_eq!(count("publication").await, 1.0);
    assert_eq!((count("replayed").await, count("channel_layer").await), (0.0, 0.0));
    let duplicate = [ROUTE, ("outcome", "duplicate")];
    assert_eq!(gateway.metric("tidegate_messages_total", &duplicate).await, 2.0);
}

/// The names of metrics in the first column of docs/metrics.md, and whether they appear late.
fn documented() -> Vec<(String, bool)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(page).expect("docs/metrics.md");
    let row = |line: &str| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((name.to_owned(), rest.contains("*late*")))
    };
    page.split("## Buckets").next().unwrap().lines().filter_map(row).collect()
}

async fn everything_is_there_before_the_first_client(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let gateway = engine.start(settings(&upstream)).await;
    let page = http::get(gateway.admin(), "/metrics").await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let page = page.text();
    let found: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let documented = documented();
    for name in &found {
        assert!(documented.iter().any(|(other, _)| other == name), "{name} is not documented");
        assert!(page.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    let in_memory = engine.server().is_none();
    for (name, late) in &documented {
        let of_redis = name.starts_with("tidegate_redis_") && !name.contains("subscription");
        if !(*late || of_redis && in_memory) {
            assert!(found.contains(&**name), "{name} is missing");
        }
    }
    for line in [
        "tidegate_ready 1",
        "tidegate_draining 0",
        "tidegate_connections{route=\"/ws/chat/{conversation_id}/\"} 0",
        "tidegate_closes_total{route=\"/ws/chat/{conversation_id}/\",by=\"gateway\",reason=\"too_slow\"} 0",
        "tidegate_messages_total{route=\"/ws/chat/{conversation_id}/\",outcome=\"rate_limited\"} 0",
        "tidegate_generations_total{route=\"/ws/chat/{conversation_id}/\",outcome=\"worker_lost\"} 0",
        "tidegate_generation_first_chunk_seconds_count{route=\"/ws/chat/{conversation_id}/\"} 0",
        "tidegate_upstream_requests_total{upstream=\"worker\",outcome=\"unavailable\"} 0",
    ] {
        assert!(page.lines().any(|other| other == line), "no {line} in\n{page}");
    }
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(gateway.metric("tidegate_build_info", &version).await, 1.0);
    let process = async |name: &str| gateway.metric(&format!("process_{name}"), &[]).await;
    assert!(process("resident_memory_bytes").await > 1e6);
    assert!(
        process("open_fds").await >= 3.0 && process("open_fds").await <= process("max_fds").await
    );
    assert!(process("threads").await >= 3.0, "two workers and the engine");
    assert!(process("start_time_seconds").await > 1.6e9);
    until("time on a processor", async || (process("cpu_seconds_total").await > 0.0).then_some(()))
        .await;
}

#[tokio::test]
async fn a_gateway_without_its_engine_is_not_ready() {
    let mut engine = Engine::redis().await;
    let upstream = Upstream::accepting().await;
    let gateway = engine.start(settings(&upstream)).await;
    gateway.wait_for_metric("tidegate_ready", &[], 1.0).await;
    engine.server_mut().unwrap().stop();
    gateway.wait_for_metric("tidegate_ready", &[], 0.0).await;
}

#[tokio::test]
async fn a_draining_gateway_is_reported() {
    let upstream = Upstream::accepting().await;
    let settings = settings(&upstream).section("shutdown", "drain = \"30s\"\ngrace = \"5s\"");
    let mut gateway = Gateway::start(settings).await;
    let (client, _) = Client::connected(&gateway, PATH).await;
    gateway.signal(Signal::TERM);
    gateway.wait_for_event("draining").await;
    gateway.wait_for_metric("tidegate_draining", &[], 1.0).await;
    assert_eq!(gateway.metric("tidegate_ready", &[]).await, 0.0);
    drop(client);
    assert_eq!(gateway.wait_exit().await, Some(0));
}
