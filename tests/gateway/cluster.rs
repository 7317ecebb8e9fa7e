//! Gateways on a real Redis Cluster: conversations on all shards, a slot that moves and a master that dies in the middle of
//! replies, and a shard that stays dead.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::rig::upstream::StreamWriter;
use crate::rig::{Client, Cluster, Gateway, Reply, Settings, Upstream, http, until};

/// How many conversations there are: with these names, at least one on each of three shards.
const CONVERSATIONS: usize = 8;

pub type Writers = Arc<Mutex<Vec<StreamWriter>>>;

/// An upstream whose replies the test writes, in the order of the messages.
pub async fn streaming_upstream() -> (Upstream, Writers) {
    let writers = Writers::default();
    let kept = Arc::clone(&writers);
    let upstream = Upstream::start(move |_| {
        let (writer, reply) = Reply::stream("text/event-stream");
        kept.lock().unwrap().push(writer);
        reply
    })
    .await;
    (upstream, writers)
}

fn settings(cluster: &Cluster, upstream: &str) -> Settings {
    let limits = "[route.limits]\nconnects_per_user = \"1000/1m\"\nconnections_per_user = 100\n\
                  messages_per_user = \"1000/1m\"\ngenerations_per_user = 100\n";
    // Some clients are not read while the cluster fails over, and then answer no pings.
    Settings::chat(upstream)
        .redis(&cluster.url())
        .each_route(|route| format!("{route}\nidle_ping = \"5m\"\n{limits}"))
}

async fn ready(gateway: &Gateway) {
    until("readiness", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
}

async fn client(
    gateway: &Gateway,
    user: usize,
    conversation: usize,
    more: &str,
) -> (Client, Value) {
    let token = gateway.token(json!({"user_id": user})).await;
    let path = format!("/ws/chat/{conversation}/?connection_token={token}{more}");
    Client::connected(gateway, &path).await
}

pub fn chunk(number: usize) -> String {
    format!("data: {}\n\n", json!({"event": "token", "number": number}))
}

fn message(id: usize) -> Value {
    json!({"type": "message", "message": "?", "id": format!("m{id}")})
}

const END: &str = "data: {\"event\":\"complete\"}\n\n";

/// Sends a message, whose id the user has not used before, and returns what writes the reply to it.
pub async fn ask(client: &mut Client, writers: &Writers, id: usize) -> StreamWriter {
    let before = writers.lock().unwrap().len();
    client.send_json(&message(id)).await;
    client.next_event("task_queued").await;
    until("request of the gateway", async || writers.lock().unwrap().get(before).cloned()).await
}

/// Reads these chunks of a reply: they are there once and in order.
pub async fn expect_chunks(client: &mut Client, numbers: Range<usize>) {
    for number in numbers {
        let mut event = client.next_json().await;
        if event["event"] == "processing_started" {
            event = client.next_json().await;
        }
        assert_eq!((&event["event"], &event["number"]), (&json!("token"), &json!(number)));
    }
}

/// Reads these chunks, and the end of the reply.
pub async fn expect_reply(client: &mut Client, numbers: Range<usize>) {
    expect_chunks(client, numbers).await;
    assert_eq!(client.next_json().await["event"], "complete");
}

/// Waits until the replica of `master` has what the clients have received. Redis does not keep the rest if the master dies.
async fn replicated(cluster: &Cluster, master: usize) {
    let replicas: i64 = cluster.nodes[master].run(&["WAIT", "1", "10000"]).await;
    assert_eq!(replicas, 1);
}

#[tokio::test]
async fn conversations_on_all_shards_are_those_of_one_gateway() {
    let cluster = Cluster::start().await;
    let (upstream, writers) = streaming_upstream().await;
    let settings = settings(&cluster, &upstream.url("/"));
    let nodes = [Gateway::start(&settings).await, Gateway::start(&settings).await];
    for node in &nodes {
        ready(node).await;
    }
    let mut shards = [0; 3];
    for conversation in 0..CONVERSATIONS {
        let channel = format!("chat_{conversation}");
        shards[cluster.master_of(&channel).await] += 1;
        let (mut here, connected) = client(&nodes[0], 7, conversation, "").await;
        let (mut there, _) = client(&nodes[1], 8, conversation, "").await;
        nodes[1].publish(&channel, json!({"event": "note", "n": conversation})).await;
        for client in [&mut here, &mut there] {
            assert_eq!(client.next_event("note").await["n"], conversation);
        }
        let writer = ask(&mut here, &writers, conversation).await;
        (0..3).for_each(|number| assert!(writer.write(chunk(number))));
        assert!(writer.write(END));
        drop(writer);
        writers.lock().unwrap().clear();
        expect_reply(&mut here, 0..3).await;
        expect_reply(&mut there, 0..3).await;
        // The same message is not relayed again, whichever node it comes to.
        let epoch = connected["epoch"].as_str().expect("an epoch");
        let (mut again, _) =
            client(&nodes[1], 7, conversation, &format!("&since=1&epoch={epoch}")).await;
        expect_reply(&mut again, 0..3).await;
        again.send_json(&message(conversation)).await;
        again.next_event("task_queued").await;
    }
    assert!(shards.iter().all(|count| *count > 0), "{shards:?}");
    assert_eq!(upstream.requests().len(), CONVERSATIONS);
    // Commands reach both nodes.
    let (mut one, _) = client(&nodes[0], 9, 1, "").await;
    let (mut other, _) = client(&nodes[1], 9, 2, "").await;
    let closed = nodes[0].api("/v1/disconnect", json!({"user_id": 9})).await;
    assert_eq!(closed.json(), json!({"closed": 2, "nodes": 2}));
    assert_eq!((one.closed().await, other.closed().await), (Some(4001), Some(4001)));
}

#[tokio::test]
async fn a_name_with_braces_has_its_channel_and_its_history_on_one_shard() {
    let cluster = Cluster::start().await;
    let route = "path = \"/ws/{name}/\"\nchannel = \"x_{name}\"\nauth = [\"anonymous\"]";
    let gateway = Gateway::start(Settings::new().redis(&cluster.url()).route(route)).await;
    ready(&gateway).await;
    for (name, path) in [("a}b", "a%7Db"), ("{}c", "%7B%7Dc"), ("d{e}f", "d%7Be%7Df")] {
        let path = format!("/ws/{path}/");
        let (mut live, connected) = Client::connected(&gateway, &path).await;
        gateway.publish(&format!("x_{name}"), json!({"event": "note", "n": name})).await;
        assert_eq!(live.next_event("note").await["offset"], 1, "{name}");
        let epoch = connected["epoch"].as_str().expect("an epoch");
        let resumed = format!("{path}?since=0&epoch={epoch}");
        let (mut resumed, _) = Client::connected(&gateway, &resumed).await;
        assert_eq!(resumed.next_event("note").await["n"], name);
    }
}

#[tokio::test]
async fn replies_go_on_while_their_slots_move() {
    let cluster = Cluster::start().await;
    let (upstream, writers) = streaming_upstream().await;
    let settings = settings(&cluster, &upstream.url("/"));
    let nodes = [Gateway::start(&settings).await, Gateway::start(&settings).await];
    for node in &nodes {
        ready(node).await;
    }
    let channel = "chat_5";
    let (slot, from) = (cluster.slot_of(channel).await, cluster.master_of(channel).await);
    let to = (from + 1) % 3;
    let (mut here, _) = client(&nodes[0], 7, 5, "").await;
    let (mut there, _) = client(&nodes[1], 8, 5, "").await;
    let writer = ask(&mut here, &writers, 0).await;
    let write = |numbers: Range<usize>| {
        numbers.for_each(|number| assert!(writer.write(chunk(number))));
    };
    write(0..5);
    cluster.begin_move(slot, from, to).await;
    write(5..10);
    cluster.move_keys(slot, from, to).await;
    write(10..15);
    // What was published since is at the target.
    cluster.move_keys(slot, from, to).await;
    cluster.end_move(slot, from, to).await;
    write(15..20);
    assert!(writer.write(END));
    drop(writer);
    writers.lock().unwrap().clear();
    expect_reply(&mut here, 0..20).await;
    expect_reply(&mut there, 0..20).await;
    // And back, with a message that begins in between.
    cluster.begin_move(slot, to, from).await;
    cluster.move_keys(slot, to, from).await;
    cluster.end_move(slot, to, from).await;
    nodes[1].publish(channel, json!({"event": "note"})).await;
    here.next_event("note").await;
    there.next_event("note").await;
}

#[tokio::test]
async fn replies_go_on_when_a_master_dies_and_its_replica_is_promoted() {
    let mut cluster = Cluster::start_with_replicas().await;
    let (upstream, writers) = streaming_upstream().await;
    let settings = settings(&cluster, &upstream.url("/"));
    let nodes = [Gateway::start(&settings).await, Gateway::start(&settings).await];
    for node in &nodes {
        ready(node).await;
    }
    let mut conversations = Vec::new();
    for conversation in 0..4 {
        let (mut here, _) = client(&nodes[conversation % 2], 7, conversation, "").await;
        let (mut there, _) = client(&nodes[(conversation + 1) % 2], 8, conversation, "").await;
        let writer = ask(&mut here, &writers, conversation).await;
        (0..5).for_each(|number| assert!(writer.write(chunk(number))));
        expect_chunks(&mut here, 0..5).await;
        expect_chunks(&mut there, 0..5).await;
        conversations.push((here, there, writer));
    }
    writers.lock().unwrap().clear();
    let dies = cluster.master_of("chat_0").await;
    replicated(&cluster, dies).await;
    cluster.nodes[dies].pause();
    for (_, _, writer) in &conversations {
        (5..10).for_each(|number| assert!(writer.write(chunk(number))));
    }
    cluster.nodes[dies].stop();
    cluster.promoted(3 + dies).await;
    for (_, _, writer) in conversations.iter_mut() {
        (10..15).for_each(|number| assert!(writer.write(chunk(number))));
        assert!(writer.write(END));
    }
    for (mut here, mut there, writer) in conversations {
        drop(writer);
        expect_reply(&mut here, 5..15).await;
        expect_reply(&mut there, 5..15).await;
    }
    for node in &nodes {
        ready(node).await;
    }
}

#[tokio::test]
async fn a_master_that_hangs_is_replaced_and_not_used_when_it_wakes() {
    let cluster = Cluster::start_with_replicas().await;
    let (upstream, writers) = streaming_upstream().await;
    let settings = settings(&cluster, &upstream.url("/"));
    let nodes = [Gateway::start(&settings).await, Gateway::start(&settings).await];
    for node in &nodes {
        ready(node).await;
    }
    let (mut here, _) = client(&nodes[0], 7, 0, "").await;
    let (mut there, _) = client(&nodes[1], 8, 0, "").await;
    let writer = ask(&mut here, &writers, 0).await;
    (0..5).for_each(|number| assert!(writer.write(chunk(number))));
    let hangs = cluster.master_of("chat_0").await;
    expect_chunks(&mut here, 0..5).await;
    expect_chunks(&mut there, 0..5).await;
    replicated(&cluster, hangs).await;
    cluster.nodes[hangs].pause();
    (5..10).for_each(|number| assert!(writer.write(chunk(number))));
    cluster.promoted(3 + hangs).await;
    // Until then its clients would hear what it says before it knows that it was replaced, and be told that it is lost.
    for node in &nodes {
        node.wait_for_event("subscription_lost").await;
    }
    (10..15).for_each(|number| assert!(writer.write(chunk(number))));
    cluster.nodes[hangs].resume();
    (15..20).for_each(|number| assert!(writer.write(chunk(number))));
    assert!(writer.write(END));
    drop(writer);
    writers.lock().unwrap().clear();
    expect_reply(&mut here, 5..20).await;
    expect_reply(&mut there, 5..20).await;
    // It follows the new master, and nobody listens to it.
    until("old master that is a replica without subscribers", async || {
        let info: String = cluster.nodes[hangs].run(&["INFO", "replication"]).await;
        let heard: Vec<String> = cluster.nodes[hangs].run(&["PUBSUB", "SHARDCHANNELS"]).await;
        (info.contains("role:slave") && heard.is_empty()).then_some(())
    })
    .await;
    nodes[0].publish("chat_0", json!({"event": "note"})).await;
    here.next_event("note").await;
    there.next_event("note").await;
}

#[tokio::test]
async fn a_dead_shard_takes_nothing_from_the_others() {
    let mut cluster = Cluster::start().await;
    let settings = settings(&cluster, "http://127.0.0.1:1/");
    let gateway = Gateway::start(&settings).await;
    ready(&gateway).await;
    let mut names = [None; 3];
    for conversation in 0..CONVERSATIONS {
        names[cluster.master_of(&format!("chat_{conversation}")).await] = Some(conversation);
    }
    let names = names.map(|name| name.expect("a conversation on each shard"));
    // The commands to all nodes are on one shard, which stays.
    let dies = (cluster.master_of("{control}").await + 1) % 3;
    let lives = (dies + 1) % 3;
    let open = async |conversation: usize| {
        Client::open(gateway.addr(), &format!("/ws/chat/{conversation}/"), &[]).await
    };
    let (mut hit, mut spared) = (open(names[dies]).await, open(names[lives]).await);
    hit.next_event("connected").await;
    spared.next_event("connected").await;
    gateway.publish(&format!("chat_{}", names[dies]), json!({"event": "note"})).await;
    hit.next_event("note").await;
    cluster.nodes[dies].stop();
    gateway.wait_for_event("subscription_lost").await;
    let lost = json!({"channel": format!("chat_{}", names[dies]), "data": {"event": "note"}});
    assert_eq!(gateway.api("/v1/publish", lost).await.status, 503);
    gateway.publish(&format!("chat_{}", names[lives]), json!({"event": "note"})).await;
    spared.next_event("note").await;
    let mut new = open(names[lives]).await;
    new.next_event("connected").await;
    assert_eq!(http::get(gateway.admin(), "/readyz").await.status, 200, "what works goes on");
    let mut refused = open(names[dies]).await;
    assert_eq!(refused.closed().await, Some(1013));
    // It comes back without its data, so that its clients are told.
    cluster.nodes[dies].restart().await;
    assert!(hit.closed().await.is_some());
    until("client of the shard", async || {
        let mut client = open(names[dies]).await;
        let event = client.next().await;
        matches!(event, crate::rig::Event::Text(_)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_shard_has_a_canary_in_one_of_its_slots() {
    let cluster = Cluster::start().await;
    let gateway = Gateway::start(settings(&cluster, "http://127.0.0.1:1/")).await;
    ready(&gateway).await;
    let canary_of = async |node: usize| {
        let pattern = ["PUBSUB", "SHARDCHANNELS", "tg:*:canary:*"];
        let mut channels: Vec<String> = cluster.nodes[node].run(&pattern).await;
        assert!(channels.len() <= 1, "{channels:?}");
        channels.pop()
    };
    let first = canary_of(0).await.expect("a canary");
    let body = json!({"channel": first, "data": {}});
    assert_eq!(gateway.api("/v1/publish", body).await.status, 400, "the name is reserved");
    // It moves to another slot of its shard when the shard loses its own.
    let slot = cluster.slot_of(&first).await;
    cluster.begin_move(slot, 0, 1).await;
    cluster.end_move(slot, 0, 1).await;
    until("canary in another slot", async || {
        canary_of(0).await.filter(|channel| *channel != first)
    })
    .await;
    // A shard that takes no publications is named, and the others are used.
    let pause = ["CLIENT", "PAUSE", "600000", "WRITE"];
    let () = cluster.nodes[0].run(&pause).await;
    let failed = gateway.wait_for_event("canary_failed").await;
    assert_eq!(failed["shard"], cluster.nodes[0].address());
    assert_eq!(http::get(gateway.admin(), "/readyz").await.status, 200);
    for node in [1, 2] {
        let () = cluster.nodes[node].run(&pause).await;
    }
    until("readiness that names a shard", async || {
        let answer = http::get(gateway.admin(), "/readyz").await;
        let canary = answer.json()["checks"]["canary"].as_str()?.to_owned();
        (answer.status == 503 && canary.contains("does not take a publication")).then_some(())
    })
    .await;
    for node in &cluster.nodes {
        let () = node.run(&["CLIENT", "UNPAUSE"]).await;
    }
    ready(&gateway).await;
    gateway.wait_for_event("canary_recovered").await;
}
