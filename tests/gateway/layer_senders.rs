//! A sender of the core layer reads the members of a group and then sends, so what it sends may go to earlier members
//! alone, which may have died or stopped. What it sends next goes to all.
//!
//! Regression tests: after 150 ms, a node relied on nobody being that slow. Then the clients got a reply's event after its
//! end, or its successors first, and were not told.

use rustix::process::Signal;

use crate::channel_layer::{PATH, chunk, expect, send, settings, start};
use crate::rig::{Backend, Client, Gateway, Redis, until};

const WIRE: &str = "channels-core";

async fn members(redis: &Redis) -> Vec<String> {
    redis.run(&["ZRANGE", "asgi:group:chat_42", "0", "-1"]).await
}

async fn kill(gateway: &mut Gateway) {
    gateway.signal(Signal::KILL);
    gateway.wait_exit().await;
}

/// Where a client has got to, to come back elsewhere.
struct Position {
    epoch: String,
    offset: u64,
}

impl Position {
    /// Connects to a node and expects that nothing is missing.
    async fn resume(&self, gateway: &Gateway) -> Client {
        let Self { epoch, offset } = self;
        let path = format!("{PATH}?since={offset}&epoch={epoch}");
        let (client, connected) = Client::connected(gateway, &path).await;
        assert_eq!(connected["recovered"], true, "{connected}");
        client
    }
}

/// Connects to a node, whose only member reads five chunks. Returns the member too.
async fn begin(redis: &Redis, backend: &mut Backend, gateway: &Gateway) -> (Position, String) {
    let (mut client, connected) = Client::connected(gateway, PATH).await;
    send(backend, WIRE, 0..5).await;
    let offset = expect(&mut client, 0..5).await.expect("an offset");
    let epoch = connected["epoch"].as_str().expect("an epoch").to_owned();
    let [member] = &members(redis).await[..] else { panic!("one member") };
    (Position { epoch, offset }, member.clone())
}

/// How the first node ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Killed,
    /// It is still there, and reads nothing.
    Paused,
    Stopped,
}

#[tokio::test]
async fn a_slow_sender_keeps_its_order() {
    for end in [End::Killed, End::Paused, End::Stopped] {
        let redis = Redis::start().await;
        let settings = settings(&redis, WIRE);
        let mut backend = Backend::new(&redis).await;
        let mut first = start(settings.clone()).await;
        let (position, member) = begin(&redis, &mut backend, &first).await;
        let second = start(settings).await;
        match end {
            End::Killed => kill(&mut first).await,
            End::Paused => first.signal(Signal::STOP),
            End::Stopped => assert_eq!(first.stop().await, Some(0)),
        }
        let mut client = position.resume(&second).await;
        // The sender has read the group before the client came.
        backend.put(&member, &chunk(5)).await;
        send(&mut backend, WIRE, 6..8).await;
        expect(&mut client, 5..8).await;
        backend.put(&member, &chunk(8)).await;
        backend.put(&member, &chunk(9)).await;
        send(&mut backend, WIRE, 10..11).await;
        expect(&mut client, 8..11).await;
        // Nothing may follow that tells the node to look.
        backend.put(&member, &chunk(11)).await;
        expect(&mut client, 11..12).await;
        if end == End::Paused {
            first.signal(Signal::CONT);
            send(&mut backend, WIRE, 12..14).await;
            expect(&mut client, 12..14).await;
        }
    }
}

/// The second node dies as well, with what only it could read.
#[tokio::test]
async fn a_slow_sender_keeps_its_order_when_two_nodes_die() {
    let redis = Redis::start().await;
    let settings = settings(&redis, WIRE);
    let mut backend = Backend::new(&redis).await;
    let mut first = start(settings.clone()).await;
    let (position, member) = begin(&redis, &mut backend, &first).await;
    let mut second = start(settings.clone()).await;
    let third = start(settings).await;
    kill(&mut first).await;
    let mut client = position.resume(&second).await;
    backend.put(&member, &chunk(5)).await;
    send(&mut backend, WIRE, 6..7).await;
    let offset = expect(&mut client, 5..7).await.expect("an offset");
    kill(&mut second).await;
    backend.put(&member, &chunk(7)).await;
    send(&mut backend, WIRE, 8..9).await;
    let position = Position { offset, ..position };
    let mut client = position.resume(&third).await;
    expect(&mut client, 7..9).await;
    backend.put(&member, &chunk(9)).await;
    send(&mut backend, WIRE, 10..11).await;
    expect(&mut client, 9..11).await;
    until("a layer without the dead nodes", async || {
        let mailboxes: Vec<String> = redis.run(&["KEYS", "asgi*specific*"]).await;
        (members(&redis).await.len() == 1 && mailboxes.is_empty()).then_some(())
    })
    .await;
    send(&mut backend, WIRE, 11..13).await;
    expect(&mut client, 11..13).await;
}

/// What was read from another node's mailbox is read again if the connection breaks before it was appended.
#[tokio::test]
async fn a_slow_sender_keeps_its_order_over_lost_connections() {
    let redis = Redis::start().await;
    let settings = settings(&redis, WIRE);
    let mut backend = Backend::new(&redis).await;
    let mut first = start(settings.clone()).await;
    let (position, member) = begin(&redis, &mut backend, &first).await;
    let second = start(settings).await;
    kill(&mut first).await;
    let mut client = position.resume(&second).await;
    let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    let mut backend = Backend::new(&redis).await;
    backend.put(&member, &chunk(5)).await;
    send(&mut backend, WIRE, 6..8).await;
    expect(&mut client, 5..8).await;
}

/// Regression test: a node that has just died still counted as one that would take what was in its mailbox, so clients
/// were not told that the backend had dropped messages.
#[tokio::test]
async fn clients_are_told_if_the_mailbox_of_a_dead_node_was_full() {
    let redis = Redis::start().await;
    let settings = settings(&redis, WIRE).also("engine.redis.channels", "capacity = 10");
    let mut backend = Backend::new(&redis).await;
    backend.capacity = 10;
    let mut first = start(settings.clone()).await;
    let (position, _) = begin(&redis, &mut backend, &first).await;
    let second = start(settings).await;
    kill(&mut first).await;
    for number in 5..20 {
        backend.send("chat_42", &chunk(number)).await;
    }
    let mut client = position.resume(&second).await;
    expect(&mut client, 5..15).await;
    assert_eq!(client.closed().await, Some(1012));
}
