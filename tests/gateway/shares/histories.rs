//! Connects of strangers cost nobody the history of a channel.

use serde_json::{Value, json};

use super::{address, others_are_served};
use crate::chat::chat;
use crate::engine::Engine;
use crate::outcome::Outcome::{Connected, Http};
use crate::outcome::outcome;
use crate::rig::{Client, Gateway, until};

on_both_engines! {
    new_channels_of_an_address_have_a_rate,
    joins_and_leaves_of_strangers_push_no_message_out,
    empty_channels_evict_no_history,
}

/// Strangers that connect and leave again.
const STRANGERS: usize = 200;

async fn publish(gateway: &Gateway, numbers: std::ops::Range<u64>) {
    for n in numbers {
        gateway.publish("chat_42", json!({"event": "news", "n": n})).await;
    }
}

/// The path by which a client resumes that has received everything up to `offset`.
fn resume_path(connected: &Value, offset: u64) -> String {
    let epoch = connected["epoch"].as_str().expect("an epoch");
    format!("/ws/chat/42/?since={offset}&epoch={epoch}")
}

/// Resumes after the first publication, and expects the others of `numbers` without a gap.
async fn expect_recovery(gateway: &Gateway, connected: &Value, numbers: std::ops::Range<u64>) {
    let (mut client, resumed) = Client::connected(gateway, &resume_path(connected, 1)).await;
    assert_eq!(resumed["recovered"], true, "{resumed}");
    for n in numbers {
        let event = client.next_event("news").await;
        assert_eq!((&event["n"], &event["offset"]), (&json!(n), &json!(n + 1)));
    }
}

async fn joins_and_leaves_of_strangers_push_no_message_out(engine: Engine) {
    let lines = "auth = [\"anonymous\"]\npresence = \"events\"\nhistory = { size = 100 }";
    let gateway = engine.start(chat(lines)).await;
    let (mut victim, connected) = Client::connected(&gateway, "/ws/chat/42/").await;
    assert_eq!(victim.next_json().await["event"], "join", "its own");
    publish(&gateway, 0..1).await;
    assert_eq!(victim.next_json().await["offset"], 1, "its own join has taken no offset");
    publish(&gateway, 1..20).await;
    drop(victim);
    let (mut watcher, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    let mut strangers = Vec::new();
    // The victim may leave before or after the watcher has joined.
    let mut victims = 0;
    // Its own join comes first.
    for _ in 0..=STRANGERS {
        let event = loop {
            let event = watcher.next_json().await;
            if event["event"] == "join" {
                break event;
            }
            victims += 1;
        };
        assert_eq!((&event["offset"], victims < 2), (&Value::Null, true), "{event}");
        strangers.push(Client::connected(&gateway, "/ws/chat/42/").await);
    }
    drop(strangers);
    for _ in 0..STRANGERS {
        let event = watcher.next_json().await;
        assert_eq!(event["offset"], Value::Null, "{event}");
    }
    let (mut client, resumed) = Client::connected(&gateway, &resume_path(&connected, 1)).await;
    assert_eq!(resumed["recovered"], true, "{resumed}");
    for n in 1..20 {
        let event = client.next_json().await;
        assert_eq!((&event["n"], &event["offset"]), (&json!(n), &json!(n + 1)), "{event}");
    }
    // One of the leaves above may have been the first client's, so that one of the strangers leaves only now.
    while client.next_json().await["event"] != "join" {}
}

async fn empty_channels_evict_no_history(engine: Engine) {
    let lines = "auth = [\"anonymous\"]";
    let settings = chat(lines).section(
        "server",
        "listen = \"127.0.0.1:0\"\nthreads = 2\ntrusted_proxies = [\"127.0.0.1\"]",
    );
    let gateway = engine.start(settings.also("engine", "max_history_bytes = \"64KiB\"")).await;
    let (mut victim, connected) = Client::connected(&gateway, "/ws/chat/42/").await;
    publish(&gateway, 0..20).await;
    victim.next_event("news").await;
    drop(victim);
    // Together they are larger than all histories may be.
    for number in 0..300_u16 {
        let (name, stranger) = address(u8::try_from(number % 200).expect("below 200"));
        let path = format!("/ws/chat/empty{number}/");
        let mut client = Client::open(gateway.addr(), &path, &[(name, &stranger)]).await;
        client.next_event("connected").await;
    }
    expect_recovery(&gateway, &connected, 1..20).await;
    others_are_served(&gateway, async |client, number| {
        gateway.publish(&format!("chat_other{number}"), json!({"event": "news"})).await;
        client.next_event("news").await;
    })
    .await;
    // The newest of the channels can still be resumed as well.
    until("recovered channel", async || {
        let path = "/ws/chat/empty299/";
        let (_, connected) = Client::connected(&gateway, path).await;
        let epoch = connected["epoch"].as_str()?.to_owned();
        let path = format!("{path}?since=0&epoch={epoch}");
        let (_, resumed) = Client::connected(&gateway, &path).await;
        (resumed["recovered"] == true).then_some(())
    })
    .await;
}

async fn new_channels_of_an_address_have_a_rate(engine: Engine) {
    let settings = chat("auth = [\"anonymous\"]\nreject = \"http\"")
        .section("server", super::BEHIND_PROXY)
        .section("limits", "channels_per_ip = \"3/1h\"");
    let gateway = engine.start(settings).await;
    let join = async |id: &str, client: &str| {
        let path = format!("/ws/chat/{id}/");
        outcome(&gateway, &path, &[("x-forwarded-for", client)]).await
    };
    // All addresses of a network are one customer's.
    for (id, client) in [("a", "2001:db8::1"), ("b", "2001:db8::2"), ("a", "2001:db8::3")] {
        assert_eq!(join(id, client).await, Connected, "{id}");
    }
    assert_eq!(join("c", "2001:db8::1").await, Connected);
    for id in ["d", "e"] {
        assert_eq!(join(id, "2001:db8::4").await, Http(429), "{id}");
    }
    assert_eq!(join("a", "2001:db8::4").await, Connected, "a channel that exists");
    let refused = [("limit", "channels_per_ip")];
    gateway.wait_for_metric("tidegate_limit_refusals_total", &refused, 2.0).await;
    others_are_served(&gateway, async |client, number| {
        gateway.publish(&format!("chat_other{number}"), json!({"event": "news"})).await;
        client.next_event("news").await;
    })
    .await;
}
