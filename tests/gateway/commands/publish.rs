//! `tidegate publish`.

use super::*;
use crate::rig::{API_KEY, Client};

fn settings() -> Settings {
    Settings::chat("http://127.0.0.1:1/")
}

/// The arguments that lead to `gateway` by its config file, whose port was chosen when it started.
async fn publish(gateway: &Gateway, more: &[&str]) -> CommandOutput {
    let url = format!("http://{}", gateway.admin());
    let file = gateway.config_file();
    tidegate(&[&["publish", "--config", text(&file), "--url", &url], more].concat()).await
}

#[tokio::test]
async fn clients_get_what_is_published() {
    let gateway = Gateway::start(settings()).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    let answer = publish(&gateway, &["chat_42", r#"{"event":"note","n":1}"#]).await.ok();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["published"], &answer["offset"]), (&json!(1), &json!(1)));
    let note = client.next_event("note").await;
    assert_eq!(
        (&note["n"], &note["offset"], &note["epoch"]),
        (&json!(1), &json!(1), &answer["epoch"])
    );
    publish(&gateway, &["chat_42", "--text", "Hello \u{1f30a}"]).await.ok();
    assert_eq!(client.next_event("chunk").await["chunk"], "Hello \u{1f30a}");
    publish(&gateway, &["chat_42", "--event", "complete"]).await.ok();
    client.next_event("complete").await;
    for _ in 0..2 {
        publish(&gateway, &["chat_42", "--event", "once", "--idempotency-key", "k"]).await.ok();
    }
    publish(&gateway, &["chat_42", "--event", "after"]).await.ok();
    client.next_event("once").await;
    let after = client.next_json().await;
    assert_eq!(after["event"], "after", "the repeat was published");
}

#[tokio::test]
async fn standard_input_may_hold_many() {
    let gateway = Gateway::start(settings()).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    let directory = tempfile::tempdir().unwrap();
    let lines = directory.path().join("events.jsonl");
    std::fs::write(&lines, "{\"event\":\"a\"}\n{\"event\":\"b\"}\n{\"event\":\"c\"}\n").unwrap();
    let url = format!("http://{}", gateway.admin());
    // The key is given on a machine without a config file.
    let mut command = command(&["publish", "--url", &url, "chat_42", "-"]);
    command.env("TIDEGATE_API_KEY", API_KEY).stdin(std::fs::File::open(lines).unwrap());
    assert_eq!(output(command).await.ok().lines().count(), 3);
    for event in ["a", "b", "c"] {
        assert_eq!(client.next_json().await["event"], event);
    }
}

#[tokio::test]
async fn obstacles_are_explained() {
    let gateway = Gateway::start(settings()).await;
    let url = format!("http://{}", gateway.admin());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    // Without a key.
    std::fs::write(&file, format!("[admin]\nlisten = \"{}\"\n", gateway.admin())).unwrap();
    let output = tidegate(&["publish", "--config", text(&file), "chat_1", "{}"]).await.failed();
    assert!(output.contains("admin.api_keys") && output.contains(text(&file)), "{output}");
    let output = tidegate(&["publish", "--url", &url, "chat_1", "{}"]).await.failed();
    assert!(output.contains("TIDEGATE_API_KEY") && output.contains("admin.api_keys"), "{output}");
    // With a wrong key.
    let key = directory.path().join("key");
    std::fs::write(&key, "hunter2\n").unwrap();
    let arguments = ["publish", "--url", &url, "--api-key-file", text(&key), "chat_1", "{}"];
    let output = tidegate(&arguments).await.failed();
    assert!(output.contains("(401)") && !output.contains("hunter2"), "{output}");
    // A channel that cannot be published to, and data that is too large.
    let control = publish(&gateway, &["c", "not json"]).await.failed();
    assert!(control.contains("--text"), "{control}");
    // Nothing is listening.
    let unused_address = unused_address();
    let arguments = ["publish", "--url", &format!("http://{unused_address}"), "chat_1", "{}"];
    let output = tidegate_with(&[("TIDEGATE_API_KEY", "k")], &arguments).await.failed();
    assert!(
        output.contains(&unused_address) && output.contains("is the gateway running?"),
        "{output}"
    );
    for wrong in
        [&["publish", "c", "{}"][..], &["publish", "--url", &url], &["publish", "--url", &url, ""]]
    {
        assert_eq!(tidegate(wrong).await.code, Some(2), "{wrong:?}");
    }
}
