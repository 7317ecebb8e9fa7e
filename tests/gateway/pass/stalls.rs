//! Sides that take nothing for a while: their peer is slowed down and nobody else, and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{UNLIMITED, pair, pass};
use crate::rig::frame::{binary, text};
use crate::rig::raw::{Received, handshake};
use crate::rig::raw_server::server_frame;
use crate::rig::{Gateway, RawClient, RawPeer, RawServer, until, within};

/// More than all buffers between the two ends hold.
const MESSAGES: usize = 160;

/// More than a message needs to pass through every buffer between two ends.
const ROUND_TRIPS: usize = 100;

/// What a gateway with a stalled connection may take in all.
const MAX_MEMORY: u64 = 48 << 20;

/// A gateway with one thread, which serves every connection in turn.
async fn start(server: &RawServer, more: &str) -> Gateway {
    // The other connection has a route of its own, whose pings nobody has to answer.
    let calm = format!(
        "path = \"/calm\"\nprotocol = \"pass\"\nupstream = \"app\"\nauth = [\"anonymous\"]\n{UNLIMITED}"
    );
    let settings = pass(&server.url(), &format!("{more}\n{UNLIMITED}"))
        .route(&calm)
        .section("server", "listen = \"127.0.0.1:0\"\nthreads = 1");
    Gateway::start(settings).await
}

/// A message that begins with its number.
fn numbered(number: usize) -> Vec<u8> {
    let mut message = vec![7; 256 * 1024];
    message[..8].copy_from_slice(&(number as u64).to_be_bytes());
    message
}

/// Sends all messages as `frame` encodes them, for as long as it takes. Returns how many are sent so far, and the task.
fn send_all(
    mut stream: TcpStream,
    frame: fn(&[u8]) -> Vec<u8>,
) -> (Arc<AtomicUsize>, JoinHandle<TcpStream>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let task = tokio::spawn(async move {
        for number in 0..MESSAGES {
            stream.write_all(&frame(&numbered(number))).await.expect("an open connection");
            counter.fetch_add(1, Ordering::SeqCst);
        }
        stream
    });
    (sent, task)
}

/// Waits until nothing more is sent because nobody reads: while the gateway served [`ROUND_TRIPS`] of another connection,
/// which nobody slows down, not one message of this one has moved.
async fn stalled(sent: &AtomicUsize, client: &mut RawClient, peer: &mut RawPeer) -> usize {
    within("stall of the sender", async {
        loop {
            let before = sent.load(Ordering::SeqCst);
            for _ in 0..ROUND_TRIPS {
                client.send(&text("ping")).await;
                assert_eq!(peer.expect(0x81).await, b"ping");
                peer.send(0x81, b"pong").await;
                client.expect(Received::Text(b"pong".to_vec())).await;
            }
            if before > 0 && before == sent.load(Ordering::SeqCst) {
                return before;
            }
        }
    })
    .await
}

/// Returns what comes next, apart from pings.
async fn next(client: &mut RawClient) -> Received {
    loop {
        match client.next().await {
            Received::Ping(_) => {}
            received => return received,
        }
    }
}

async fn calm_pair(gateway: &Gateway, server: &RawServer) -> (RawClient, RawPeer) {
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(handshake("/calm", &[]).as_bytes()).await;
    let peer = server.open().await;
    assert_eq!(client.read_head().await.status, 101);
    (client, peer)
}

/// Completes when a client that has come after the stall was closed because it answered no ping.
async fn heartbeat(gateway: &Gateway, server: &RawServer) {
    let (mut silent, _peer) = pair(gateway, server).await;
    let received = next(&mut silent).await;
    assert!(matches!(received, Received::Close(Some(4009), _)), "{received:?}");
}

async fn all_arrive_at_client(client: &mut RawClient) {
    for number in 0..MESSAGES {
        let Received::Binary(message) = next(client).await else { panic!("message {number}") };
        assert!(message == numbered(number), "message {number} is another");
    }
}

async fn all_arrive_at_upstream(peer: &mut RawPeer) {
    for number in 0..MESSAGES {
        assert!(peer.expect(0x82).await == numbered(number), "message {number} is another");
    }
}

fn of_server(message: &[u8]) -> Vec<u8> {
    server_frame(0x82, message)
}

fn of_client(message: &[u8]) -> Vec<u8> {
    binary(message).bytes()
}

#[tokio::test]
async fn a_client_that_takes_nothing_slows_its_upstream_and_loses_nothing() {
    let server = RawServer::start().await;
    let gateway = start(&server, "idle_ping = \"1s\"\npong_timeout = \"1s\"").await;
    let (mut slow, sender) = pair(&gateway, &server).await;
    let (mut other, mut other_peer) = calm_pair(&gateway, &server).await;
    let (sent, sending) = send_all(sender.into_stream(), of_server);
    assert!(stalled(&sent, &mut other, &mut other_peer).await < MESSAGES);
    // The time of a client that could answer is over.
    heartbeat(&gateway, &server).await;
    assert!(gateway.memory("RssAnon") < MAX_MEMORY);
    all_arrive_at_client(&mut slow).await;
    // It is still open, and its upstream gets what it sends.
    slow.send(&text("last")).await;
    let mut stream = within("end of the sender", sending).await.expect("all sent");
    let mut head = [0; 2];
    within("a message", stream.read_exact(&mut head)).await.expect("an open connection");
    assert_eq!(head, [0x81, 0x84]);
}

#[tokio::test]
async fn an_upstream_that_takes_nothing_slows_its_client_and_loses_nothing() {
    let server = RawServer::start().await;
    let gateway = start(&server, "idle_ping = \"1s\"\npong_timeout = \"1s\"").await;
    let (sender, mut slow) = pair(&gateway, &server).await;
    let (mut other, mut other_peer) = calm_pair(&gateway, &server).await;
    let (sent, sending) = send_all(sender.into_stream(), of_client);
    assert!(stalled(&sent, &mut other, &mut other_peer).await < MESSAGES);
    heartbeat(&gateway, &server).await;
    assert!(gateway.memory("RssAnon") < MAX_MEMORY);
    all_arrive_at_upstream(&mut slow).await;
    slow.send(0x89, b"last").await;
    let mut stream = within("end of the sender", sending).await.expect("all sent");
    let mut head = [0; 2];
    within("a ping", stream.read_exact(&mut head)).await.expect("an open connection");
    // The gateway may have pinged it as well.
    assert_eq!(head[0], 0x89);
}

/// The same for a minute, and for longer than is waited for: `cargo test --test gateway -- --ignored stalls_of_minutes`.
#[tokio::test]
#[ignore = "takes more than two minutes"]
async fn stalls_of_minutes() {
    let server = RawServer::start().await;
    let gateway = start(&server, "idle_ping = \"5s\"\npong_timeout = \"5s\"").await;
    let (mut slow_client, sender) = pair(&gateway, &server).await;
    let (_, _sending) = send_all(sender.into_stream(), of_server);
    let (sender, mut slow_upstream) = pair(&gateway, &server).await;
    let (_, _other_sending) = send_all(sender.into_stream(), of_client);
    let (dead_client, sender) = pair(&gateway, &server).await;
    let (_, _third_sending) = send_all(sender.into_stream(), of_server);
    let (sender, dead_upstream) = pair(&gateway, &server).await;
    let (_, _fourth_sending) = send_all(sender.into_stream(), of_client);
    tokio::time::sleep(Duration::from_secs(65)).await;
    all_arrive_at_client(&mut slow_client).await;
    all_arrive_at_upstream(&mut slow_upstream).await;
    assert_eq!(gateway.events("connection_closed"), 0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    until("the ends of both", async || {
        let closed = gateway.log_events("connection_closed");
        let codes: Vec<_> = closed.iter().map(|event| event["code"].as_u64()).collect();
        (codes.contains(&Some(4009)) && codes.contains(&Some(1014))).then_some(())
    })
    .await;
    drop((dead_client, dead_upstream));
}
