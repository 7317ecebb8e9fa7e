//! `tidegate tail` and `tidegate replay`.

use rustix::process::Signal;

use super::*;
use crate::engine::Engine;
use crate::rig::Client;

on_both_engines!(
    a_channel_is_watched_until_interrupted,
    the_history_is_printed_first,
    what_was_recorded_is_published_again,
    a_history_is_published_to_another_channel,
);

fn settings() -> Settings {
    Settings::chat("http://127.0.0.1:1/")
}

/// A config file that leads to the gateway, whose port was chosen when it started.
fn at(gateway: &Gateway) -> [String; 4] {
    let url = format!("http://{}", gateway.admin());
    ["--config".into(), text(&gateway.config_file()).into(), "--url".into(), url]
}

fn arguments<'a>(command: &'a str, at: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    let at = at.iter().map(String::as_str);
    std::iter::once(command).chain(at).chain(more.iter().copied()).collect()
}

/// A tail that is subscribed: what is published from now on reaches it.
async fn tail(gateway: &Gateway, more: &[&str]) -> Running {
    let before = open_tails(gateway).await;
    let at = at(gateway);
    let tail = Running::start(&arguments("tail", &at, more));
    until("a live tail", async || (open_tails(gateway).await > before).then_some(())).await;
    tail
}

/// The number of open tails, as the server API counts them.
async fn open_tails(gateway: &Gateway) -> f64 {
    gateway.metric("tidegate_api_calls_total", &[("call", "tail"), ("outcome", "ok")]).await
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

async fn a_channel_is_watched_until_interrupted(engine: Engine) {
    let gateway = engine.start(settings()).await;
    let people = tail(&gateway, &["chat_42"]).await;
    let machine = tail(&gateway, &["chat_42", "--json"]).await;
    gateway.publish("chat_42", json!({"event": "chunk", "chunk": "Hello\n", "task_id": "t"})).await;
    gateway.publish("chat_42", json!({"event": "complete"})).await;
    let lines = people.lines(2).await;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let first = words(&lines[0]);
    assert_eq!(
        (first[0].as_str(), &first[2..]),
        ("1", &["chunk", "Hello\\n", "task_id=t"].map(str::to_owned)[..])
    );
    assert_eq!(words(&lines[1])[2], "complete");
    let lines = machine.lines(2).await;
    let (first, second) = (json(&lines[0]), json(&lines[1]));
    assert_eq!(first["data"], json!({"event": "chunk", "chunk": "Hello\n", "task_id": "t"}));
    assert_eq!((&first["channel"], &first["offset"]), (&json!("chat_42"), &json!(1)));
    assert_eq!((&second["offset"], &second["epoch"]), (&json!(2), &first["epoch"]));
    assert!(first["epoch"].is_string() && first["time"].as_str().unwrap().ends_with('Z'));
    people.signal(Signal::INT);
    machine.signal(Signal::TERM);
    for mut running in [people, machine] {
        assert_eq!(running.wait_exit().await, Some(0));
        assert_eq!(running.stderr.all(), Vec::<String>::new());
    }
}

async fn the_history_is_printed_first(engine: Engine) {
    let gateway = engine.start(settings()).await;
    // This is more than one page of the history.
    for n in 1..=250 {
        gateway.publish("chat_42", json!({"event": "n", "n": n})).await;
    }
    let whole = tail(&gateway, &["chat_42", "--history", "--json"]).await;
    let some = tail(&gateway, &["chat_42", "--since", "248", "--json", "-n", "3"]).await;
    whole.lines(250).await;
    gateway.publish("chat_42", json!({"event": "n", "n": 251})).await;
    let lines = whole.lines(251).await;
    let numbers: Vec<Value> = lines.iter().map(|line| json(line)["data"]["n"].clone()).collect();
    assert_eq!(numbers, (1..=251).map(Value::from).collect::<Vec<_>>());
    assert_eq!(json(&lines[0])["time"], Value::Null);
    assert!(json(&lines[250])["time"].is_string());
    let offsets = some.lines(3).await;
    let offsets: Vec<Value> = offsets.iter().map(|line| json(line)["offset"].clone()).collect();
    assert_eq!(offsets, [249, 250, 251]);
    let mut some = some;
    assert_eq!(some.wait_exit().await, Some(0), "after so many it ends");
}

#[tokio::test]
async fn a_tail_outlives_its_gateway() {
    let redis = Redis::start().await;
    let listen =
        format!("listen = \"{}\"\napi_keys = [{:?}]", unused_address(), crate::rig::API_KEY);
    let settings = settings().redis(&redis.url()).section("admin", &listen);
    let mut gateway = Gateway::start(settings.clone()).await;
    let tail = tail(&gateway, &["chat_42", "--json"]).await;
    gateway.publish("chat_42", json!({"n": 1})).await;
    tail.lines(1).await;
    assert_eq!(gateway.stop().await, Some(0));
    tail.wait_for_error("reconnecting").await;
    // Nobody is subscribed, and the gateway has another port.
    let other = Gateway::start(settings.clone().section(
        "admin",
        &format!("listen = \"127.0.0.1:0\"\napi_keys = [{:?}]", crate::rig::API_KEY),
    ))
    .await;
    for n in 2..=4 {
        other.publish("chat_42", json!({"n": n})).await;
    }
    let gateway = Gateway::start(settings).await;
    tail.wait_for_error("reconnected").await;
    tail.lines(4).await;
    gateway.publish("chat_42", json!({"n": 5})).await;
    let numbers: Vec<Value> =
        tail.lines(5).await.iter().map(|line| json(line)["data"]["n"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_gap_without_history_is_reported() {
    let listen =
        format!("listen = \"{}\"\napi_keys = [{:?}]", unused_address(), crate::rig::API_KEY);
    let settings = settings().without_history().section("admin", &listen);
    let mut gateway = Gateway::start(settings.clone()).await;
    let tail = tail(&gateway, &["chat_42"]).await;
    gateway.publish("chat_42", json!([1, 2])).await;
    let line = tail.lines(1).await.remove(0);
    assert!(line.contains("(json)") && line.ends_with("[1,2]"), "{line}");
    gateway.stop().await;
    let _gateway = Gateway::start(settings).await;
    tail.wait_for_error("may be missing").await;
}

#[tokio::test]
async fn a_tail_ends_with_its_reader() {
    let gateway = Gateway::start(settings()).await;
    let at = at(&gateway);
    let mut child = command(&arguments("tail", &at, &["chat_42"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    until("a live tail", async || (open_tails(&gateway).await > 0.0).then_some(())).await;
    let end = tokio::task::spawn_blocking(|| child.wait_with_output());
    gateway.publish("chat_42", json!({"event": "x"})).await;
    let output = CommandOutput::of(&within("its end", end).await.unwrap().unwrap());
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn what_cannot_be_tailed_is_explained() {
    let gateway = Gateway::start(settings().without_history()).await;
    let ways = at(&gateway);
    for (more, expected) in [
        (&["chat_42", "--history"][..], "keeps no history"),
        (&["chat_42", "--since", "3"], "keeps no history"),
    ] {
        let output = tidegate(&arguments("tail", &ways, more)).await.failed();
        assert!(output.contains(expected), "{output}");
    }
    let url = format!("http://{}", gateway.admin());
    let output =
        tidegate_with(&[("TIDEGATE_API_KEY", "wrong")], &["tail", "--url", &url, "c"]).await;
    assert!(output.failed().contains("(401)"));
    let output = tidegate(&["tail", "--url", &url, "c"]).await.failed();
    assert!(output.contains("admin.api_keys"), "{output}");
    let url = format!("http://{}", unused_address());
    let output = tidegate_with(&[("TIDEGATE_API_KEY", "k")], &["tail", "--url", &url, "c"]).await;
    assert!(output.failed().contains("is the gateway running?"));
    for wrong in [
        &["tail", "--url", &url][..],
        &["tail", "c"],
        &["tail", "--url", &url, "c", "--history", "--since", "1"],
        &["tail", "--url", &url, "c", "-n", "0"],
        &["replay", "--url", &url, "--to", "c"],
        &["replay", "--url", &url, "f"],
        &["replay", "--url", &url, "f", "--from-history", "a", "--to", "c"],
        &["replay", "--url", &url, "f", "--to", "c", "--speed", "0"],
    ] {
        assert_eq!(tidegate(wrong).await.code, Some(2), "{wrong:?}");
    }
}

async fn what_was_recorded_is_published_again(engine: Engine) {
    let gateway = engine.start(settings()).await;
    let recording = tail(&gateway, &["chat_1", "--json"]).await;
    let events = [
        json!({"event": "processing_started", "task_id": "t"}),
        json!({"event": "chunk", "chunk": "Hello ", "task_id": "t"}),
        json!({"event": "complete", "task_id": "t"}),
    ];
    for event in &events {
        gateway.publish("chat_1", event.clone()).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recorded.jsonl");
    std::fs::write(&file, recording.lines(3).await.join("\n")).unwrap();
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/2/").await;
    let at = at(&gateway);
    for more in [&["--speed", "100"][..], &["--every", "1ms", "--new-task-ids"]] {
        let replay = [&[text(&file), "--to", "chat_2"], more].concat();
        let output = tidegate(&arguments("replay", &at, &replay)).await;
        assert!(output.stderr.contains("3 publications published to chat_2"), "{output:?}");
        assert_eq!(output.ok(), "");
        for event in &events {
            let mut received = client.next_json().await;
            let is_new = received["task_id"] != "t";
            assert_eq!(is_new, more.contains(&"--new-task-ids"), "{received}");
            received["task_id"] = json!("t");
            for field in ["offset", "epoch"] {
                received.as_object_mut().unwrap().remove(field);
            }
            assert_eq!(received, *event);
        }
    }
    let dry = [text(&file), "--to", "chat_2", "--dry-run", "--speed", "max"];
    assert_eq!(tidegate(&arguments("replay", &at, &dry)).await.ok().lines().count(), 3);
    std::fs::write(&file, "{\"data\":{\"event\":\"x\"}}\n\n{\"event\":\"chunk\"}\n").unwrap();
    let output =
        tidegate(&arguments("replay", &at, &[text(&file), "--to", "chat_3"])).await.failed();
    assert!(output.contains("line 3") && output.contains("1 publications published"), "{output}");
}

async fn a_history_is_published_to_another_channel(engine: Engine) {
    let gateway = engine.start(settings()).await;
    for n in 1..=120 {
        gateway.publish("chat_1", json!({"n": n})).await;
    }
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/2/").await;
    let at = at(&gateway);
    let replay = ["--from-history", "chat_1", "--to", "chat_2"];
    tidegate(&arguments("replay", &at, &replay)).await.ok();
    for n in 1..=120 {
        let received = client.next_json().await;
        assert_eq!((&received["n"], &received["offset"]), (&json!(n), &json!(n)));
    }
}
