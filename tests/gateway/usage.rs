//! Tokens of AI models: they are counted, and limit what a user may send.

use serde_json::{Value, json};

use crate::chat::{relayed, session, session_with};
use crate::engine::Engine;
use crate::outcome::attempt;
use crate::rig::upstream::{StreamWriter, in_turn};
use crate::rig::{API_KEY, Client, Gateway, Redis, Reply, Settings, Upstream, http, until};

const PATH: &str = "/ws/chat/42/";
const SSE: &str = "text/event-stream";
const USAGE: &str = "tidegate_generation_usage_tokens_total";

/// A reply of OpenAI's Chat Completions that took this many tokens.
fn openai(input: u64, output: u64) -> Reply {
    let body = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"hi\"}}}}]}}\n\n\
         data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n\
         data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output},\
         \"prompt_tokens_details\":{{\"cached_tokens\":3}},\
         \"completion_tokens_details\":{{\"reasoning_tokens\":2}}}}}}\n\n\
         data: [DONE]\n\n"
    );
    sse(body)
}

fn sse(body: String) -> Reply {
    let headers = vec![("content-type", SSE.to_owned())];
    Reply::Answer { status: 200, headers, body: body.into() }
}

fn settings(upstream: &Upstream, dialect: &str, route: &str) -> Settings {
    let url = upstream.url("/chat");
    let lines = format!("kind = \"http\"\nurl = {url:?}\nretries = 0\ndialect = {dialect:?}");
    relayed(&url, route).upstream("worker", &lines)
}

async fn signed_in(gateway: &Gateway, session: &str) -> Client {
    let cookie = format!("access_token={session}");
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

/// Sends a message and waits for the end of its reply, or for its refusal.
async fn ask(client: &mut Client, id: &str) -> Value {
    client.send_json(&json!({"message": "hello", "id": id})).await;
    loop {
        let event = client.next_json().await;
        if ["complete", "error", "cancelled"].iter().any(|name| event["event"] == *name) {
            return event;
        }
    }
}

#[track_caller]
fn assert_refused(event: &Value, id: &str, seconds: std::ops::RangeInclusive<u64>) {
    assert_eq!((&event["code"], &event["id"]), (&json!("rate_limited"), &json!(id)), "{event}");
    assert!(event["error"].as_str().is_some_and(|text| text.contains("tokens")), "{event}");
    let wait = event["retry_after"].as_u64().expect("a retry_after");
    assert!(seconds.contains(&wait), "{event}");
}

async fn limits(gateway: &Gateway, user: &str) -> Value {
    try_limits(gateway, user).await.expect("limits")
}

/// `None` if the engine does not answer.
async fn try_limits(gateway: &Gateway, user: &str) -> Option<Value> {
    let key = format!("Bearer {API_KEY}");
    let path = format!("/v1/limits?user_id={user}");
    let headers = [("authorization", &*key)];
    let answer = http::send(gateway.admin(), "GET", &path, &headers, Default::default()).await;
    let body = answer.json();
    let limits = body["routes"][0]["limits"].as_array()?;
    limits.iter().find(|limit| limit["limit"] == "usage_per_user").cloned()
}

on_both_engines!(a_user_is_refused_until_tokens_are_left, a_window_counts_tokens);

async fn a_user_is_refused_until_tokens_are_left(engine: Engine) {
    let upstream = Upstream::start(in_turn([openai(50, 10), openai(60, 40), openai(1, 1)])).await;
    let route = "[route.limits]\nusage_per_user = \"100/1d\"";
    let gateway = engine.start(settings(&upstream, "openai-chat", route)).await;
    let mut client = signed_in(&gateway, &session()).await;
    assert_eq!(ask(&mut client, "a").await["event"], "complete");
    assert_eq!(limits(&gateway, "7").await["standing"]["used"], 60);
    assert_eq!(ask(&mut client, "b").await["event"], "complete", "40 are left");
    // 60 are owed, and one must be left: 61 times 864 seconds.
    assert_refused(&ask(&mut client, "c").await, "c", 52_000..=52_704);
    let standing = limits(&gateway, "7").await["standing"].clone();
    assert_eq!((&standing["max"], &standing["used"]), (&json!(100), &json!(160)), "{standing}");
    assert_eq!(standing["remaining"], 0);
    assert!((52_000..=52_704).contains(&standing["retry_after"].as_u64().unwrap()), "{standing}");
    // Other users have their own.
    let mut other = signed_in(&gateway, &session_with(json!({"user_id": "x"}))).await;
    assert_eq!(ask(&mut other, "d").await["event"], "complete");
    assert_eq!(upstream.requests().len(), 3, "what is refused is not relayed");
    let route = "/ws/chat/{conversation_id}/";
    for (kind, tokens) in
        [("input", 111.0), ("output", 51.0), ("cached_input", 9.0), ("reasoning", 6.0)]
    {
        gateway.wait_for_metric(USAGE, &[("route", route), ("kind", kind)], tokens).await;
    }
    let refusals = [("limit", "usage_per_user")];
    gateway.wait_for_metric("tidegate_limit_refusals_total", &refusals, 1.0).await;
    // The server API gives them back, as a rate.
    let reset = gateway.api("/v1/limits/reset", json!({"user_id": 7})).await.json();
    assert!(reset["reset"].as_u64().is_some_and(|reset| reset >= 1), "{reset}");
    assert_eq!(limits(&gateway, "7").await["standing"]["used"], 0);
}

async fn a_window_counts_tokens(engine: Engine) {
    let upstream = Upstream::start(in_turn([openai(50, 10), openai(30, 40)])).await;
    let route = "[route.limits]\nusage_per_user = \
        { limit = \"100/1h\", window = \"fixed\", key = \"app:tokens:{user_id}\" }";
    let gateway = engine.start(settings(&upstream, "openai-chat", route)).await;
    let mut client = signed_in(&gateway, &session()).await;
    assert_eq!(ask(&mut client, "a").await["event"], "complete");
    assert_eq!(ask(&mut client, "b").await["event"], "complete");
    assert_refused(&ask(&mut client, "c").await, "c", 3500..=3600);
    if let Some(redis) = engine.server() {
        assert_eq!(redis.run::<String>(&["GET", "app:tokens:7"]).await, "130");
        let ttl = redis.run::<i64>(&["TTL", "app:tokens:7"]).await;
        assert!((3500..=3600).contains(&ttl), "{ttl}");
    }
}

#[tokio::test]
async fn two_nodes_count_the_tokens_of_a_user_together() {
    let engine = Engine::redis().await;
    let upstream = Upstream::start(in_turn([openai(90, 30)])).await;
    let settings =
        settings(&upstream, "openai-chat", "[route.limits]\nusage_per_user = \"100/1d\"");
    let (one, two) = (engine.start(settings.clone()).await, engine.start(settings).await);
    let mut on_one = signed_in(&one, &session()).await;
    // On another channel, so that it does not get the events of the first.
    let cookie = format!("access_token={}", session());
    let on_two = attempt(&two, "/ws/chat/43/", &[("cookie", &cookie)]).await;
    let mut on_two = on_two.expect("a session");
    assert_eq!(ask(&mut on_one, "a").await["event"], "complete");
    // Its end may be here before its charge, which took another connection.
    until("the charge", async || {
        (limits(&two, "7").await["standing"]["used"] == 120).then_some(())
    })
    .await;
    assert_refused(&ask(&mut on_two, "b").await, "b", 17_000..=18_144);
}

/// A reply that is broken off or cancelled has taken what its stream has said so far.
#[tokio::test]
async fn replies_that_do_not_complete_are_charged_for_what_is_known() {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":\
        {\"usage\":{\"input_tokens\":70,\"output_tokens\":1}}}\n\n";
    let (cancelled, reply) = Reply::stream(SSE);
    let lost = sse(start.to_owned());
    let failed =
        sse(format!("{start}event: error\ndata: {{\"error\":{{\"message\":\"no\"}}}}\n\n"));
    let upstream = Upstream::start(in_turn([lost, failed, reply])).await;
    let route = "[route.limits]\nusage_per_user = \"1000/1d\"";
    let gateway = Gateway::start(settings(&upstream, "anthropic", route)).await;
    let mut client = signed_in(&gateway, &session()).await;
    assert_eq!(ask(&mut client, "a").await["code"], "worker_lost");
    assert_eq!(limits(&gateway, "7").await["standing"]["used"], 71);
    assert_eq!(ask(&mut client, "b").await["code"], "task_failed");
    assert_eq!(limits(&gateway, "7").await["standing"]["used"], 142);
    cancel_after(&mut client, &cancelled, start).await;
    assert_eq!(limits(&gateway, "7").await["standing"]["used"], 213);
}

async fn cancel_after(client: &mut Client, stream: &StreamWriter, written: &str) {
    client.send_json(&json!({"message": "hello", "id": "c"})).await;
    let task_id = client.next_event("task_queued").await["task_id"].clone();
    assert!(stream.write(written.to_owned()));
    let text = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
        \"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n";
    assert!(stream.write(text));
    wait_for(client, "chunk").await;
    client.send_json(&json!({"type": "cancel", "task_id": task_id})).await;
    wait_for(client, "cancelled").await;
    stream.closed().await;
}

/// An upstream that writes events of its own says what it took in one that is called `usage`.
#[tokio::test]
async fn own_events_of_usage_count() {
    let body = "data: {\"event\":\"chunk\",\"chunk\":\"hi\"}\n\n\
        data: {\"event\":\"usage\",\"input_tokens\":90,\"output_tokens\":20}\n\n";
    let upstream = Upstream::start(in_turn([sse(body.to_owned())])).await;
    let route = "auth = [\"anonymous\"]\n[route.limits]\nusage_per_user = \"100/1d\"";
    let gateway = Gateway::start(settings(&upstream, "events", route)).await;
    let (mut client, _) = Client::connected(&gateway, PATH).await;
    assert_eq!(ask(&mut client, "a").await["event"], "complete");
    // The anonymous clients of an address share one limit.
    let (mut second, _) = Client::connected(&gateway, PATH).await;
    assert_refused(&ask(&mut second, "b").await, "b", 9_000..=9_504);
    assert_eq!(limits(&gateway, "ip:127.0.0.1").await["standing"]["used"], 110);
}

/// A message that waited for its turn is checked again when it has it.
#[tokio::test]
async fn a_message_that_waits_is_refused_for_what_the_reply_before_it_took() {
    let (first, reply) = Reply::stream(SSE);
    let upstream = Upstream::start(in_turn([reply])).await;
    let route =
        "[route.limits]\nusage_per_user = \"10/1d\"\n[route.generations]\nconcurrent = \"queue\"";
    let gateway = Gateway::start(settings(&upstream, "events", route)).await;
    let mut client = signed_in(&gateway, &session()).await;
    client.send_json(&json!({"message": "hello", "id": "a"})).await;
    client.next_event("task_queued").await;
    let mut second = signed_in(&gateway, &session()).await;
    second.send_json(&json!({"message": "hello", "id": "b"})).await;
    gateway.wait_for_metric("tidegate_messages_waiting", &[], 1.0).await;
    assert!(first.write("data: {\"event\":\"usage\",\"input_tokens\":11}\n\ndata: [DONE]\n\n"));
    assert_refused(&wait_for(&mut second, "error").await, "b", 1..=86_400);
    assert_eq!(upstream.requests().len(), 1);
}

/// APIs that say their usage again and again say all of it each time; parts of the input and the output are in them.
#[tokio::test]
async fn usage_that_is_said_several_times_counts_once() {
    // vLLM's `continuous_usage_stats`.
    let continuous = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":\
        {\"prompt_tokens\":20,\"total_tokens\":21,\"completion_tokens\":1}}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}],\"usage\":\
        {\"prompt_tokens\":20,\"total_tokens\":22,\"completion_tokens\":2}}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"total_tokens\":23,\"completion_tokens\":3,\
        \"prompt_tokens_details\":{\"cached_tokens\":16}}}\n\ndata: [DONE]\n\n";
    // The output of `message_delta` is that of the whole message; the cached input comes on top of `input_tokens`.
    let cumulative = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":10,\
        \"cache_read_input_tokens\":7,\"cache_creation_input_tokens\":3,\"output_tokens\":1}}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":4}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":\
        {\"input_tokens\":10,\"cache_read_input_tokens\":7,\"cache_creation_input_tokens\":3,\"output_tokens\":9}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    for (dialect, body, used) in [("openai-chat", continuous, 23), ("anthropic", cumulative, 29)] {
        let upstream = Upstream::start(in_turn([sse(body.to_owned())])).await;
        let route = "[route.limits]\nusage_per_user = \"1000/1d\"";
        let gateway = Gateway::start(settings(&upstream, dialect, route)).await;
        let mut client = signed_in(&gateway, &session()).await;
        assert_eq!(ask(&mut client, "a").await["event"], "complete");
        assert_eq!(limits(&gateway, "7").await["standing"]["used"], used, "{dialect}");
    }
}

/// A reply of 130 tokens that ends while the Redis of the limits is down.
async fn uncharged(engine: &Engine, counts: &mut Redis) -> (Gateway, Client) {
    let (stream, reply) = Reply::stream(SSE);
    let upstream = Upstream::start(in_turn([reply])).await;
    let url = engine.server().expect("a Redis").url();
    let route = "[route.limits]\nusage_per_user = \"100/1d\"\ngenerations_per_user = 0";
    let settings = settings(&upstream, "events", route)
        .redis(&url)
        .also("engine.redis", &format!("limits_url = {:?}", counts.url()))
        .section("shutdown", "drain = \"100ms\"\ngrace = \"500ms\"");
    let gateway = Gateway::start(settings).await;
    let mut client = signed_in(&gateway, &session()).await;
    client.send_json(&json!({"message": "hello", "id": "a"})).await;
    wait_for(&mut client, "processing_started").await;
    counts.stop();
    stream.write("data: {\"event\":\"usage\",\"input_tokens\":130}\n\n");
    drop(stream);
    wait_for(&mut client, "complete").await;
    let failures = [("limit", "usage_per_user")];
    gateway.wait_for_metric("tidegate_limit_engine_down_total", &failures, 1.0).await;
    (gateway, client)
}

/// The charge of a reply that ends while the limits cannot be reached is made up for.
#[tokio::test]
async fn a_charge_waits_for_the_engine() {
    let (engine, mut counts) = (Engine::redis().await, Redis::start().await);
    let (gateway, mut client) = uncharged(&engine, &mut counts).await;
    counts.restart().await;
    until("the charge", async || {
        let standing = try_limits(&gateway, "7").await?["standing"].clone();
        (standing["used"] == 130).then_some(())
    })
    .await;
    assert_refused(&ask(&mut client, "b").await, "b", 20_000..=26_784);
    assert_eq!(gateway.metric("tidegate_usage_not_charged_tokens_total", &[]).await, 0.0);
}

/// One that cannot be made up for is said to be lost.
#[tokio::test]
async fn a_charge_that_is_lost_is_counted() {
    let (engine, mut counts) = (Engine::redis().await, Redis::start().await);
    let (mut gateway, _client) = uncharged(&engine, &mut counts).await;
    gateway.stop().await;
    let line = gateway.wait_for_event("usage_not_charged").await;
    assert_eq!((&line["tokens"], &line["user"]), (&json!(130), &json!("7")), "{line}");
}

/// A user `1` and a user `"1"` are one. A window begins anew when it is over, and forgets what was owed.
#[tokio::test]
async fn a_window_begins_anew_and_a_reload_changes_the_limit() {
    let upstream = Upstream::start(in_turn([openai(100, 30), openai(1, 1), openai(1, 1)])).await;
    let window = |limit: &str| {
        let route =
            format!("[route.limits]\nusage_per_user = {{ limit = {limit:?}, window = \"fixed\" }}");
        settings(&upstream, "openai-chat", &route).section("reload", "watch = \"0s\"")
    };
    let gateway = Gateway::start(window("100/3s")).await;
    let mut number = signed_in(&gateway, &session_with(json!({"user_id": 1}))).await;
    // On another channel, so that it does not get the events of the first.
    let cookie = format!("access_token={}", session_with(json!({"user_id": "1"})));
    let text = attempt(&gateway, "/ws/chat/43/", &[("cookie", &cookie)]).await;
    let mut text = text.expect("a session");
    assert_eq!(ask(&mut number, "a").await["event"], "complete");
    assert_refused(&ask(&mut text, "b").await, "b", 1..=3);
    until("the next window", async || {
        (limits(&gateway, "1").await["standing"]["used"] == 0).then_some(())
    })
    .await;
    assert_eq!(ask(&mut text, "c").await["event"], "complete");
    let larger = window("1000/1d").to_string();
    std::fs::write(gateway.config_file(), larger).expect("a new config");
    gateway.signal(rustix::process::Signal::HUP);
    gateway.wait_for_event("config_reloaded").await;
    assert_eq!(limits(&gateway, "1").await["standing"]["max"], 1000);
    assert_eq!(ask(&mut number, "d").await["event"], "complete");
}

/// Replies that run at the same time reserve nothing. What they take together is owed, and `retry_after` says how long.
#[tokio::test]
async fn what_concurrent_replies_take_over_the_limit_is_owed() {
    let ((first, one), (second, two)) = (Reply::stream(SSE), Reply::stream(SSE));
    let upstream = Upstream::start(in_turn([one, two])).await;
    let route = "[route.limits]\nusage_per_user = \"100/1d\"\ngenerations_per_user = 3";
    let gateway = Gateway::start(settings(&upstream, "events", route)).await;
    let mut client = signed_in(&gateway, &session()).await;
    for id in ["a", "b"] {
        client.send_json(&json!({"message": "hello", "id": id})).await;
        wait_for(&mut client, "processing_started").await;
    }
    for stream in [first, second] {
        stream.write("data: {\"event\":\"usage\",\"input_tokens\":80}\n\ndata: [DONE]\n\n");
        wait_for(&mut client, "complete").await;
    }
    assert_eq!(limits(&gateway, "7").await["standing"]["used"], 160);
    // 60 are owed, and one must be left: 61 times 864 seconds.
    assert_refused(&ask(&mut client, "c").await, "c", 52_000..=52_704);
}
