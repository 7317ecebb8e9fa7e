//! 10,000 upgrades to an upstream that does not work: bounded in what they take, few of them reach it, and those that come
//! when it works again are served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};

use super::pass;
use crate::rig::frame::text;
use crate::rig::raw::{Received, handshake};
use crate::rig::{Gateway, RawClient, RawPeer, RawServer, Settings, until};

/// Clients at a time, from so many addresses: the failures of one sender count as one.
const CLIENTS: usize = 100;
const ADDRESSES: usize = 20;
const UPGRADES_OF_EACH: usize = 100;

const MAX_IN_FLIGHT: usize = 16;

/// The time between two looks at what the gateway takes.
const SAMPLE: Duration = Duration::from_millis(20);

/// What the process may take on top, in bytes and descriptors: for its clients, and for what is in flight.
const MAX_GROWTH: u64 = 32 << 20;
const MAX_DESCRIPTORS: usize = CLIENTS + MAX_IN_FLIGHT + 16;
const MAX_THREADS: usize = 8;

fn settings(addr: SocketAddr, timeout: &str) -> Settings {
    let upstream = format!(
        "kind = \"websocket\"\nurl = \"ws://{addr}\"\ntimeout = {timeout:?}\nmax_in_flight = {MAX_IN_FLIGHT}\n\
         max_in_flight_per_user = 4\ncircuit = {{ failures = 5, window = \"1m\", open = \"200ms\" }}"
    );
    pass("ws://x", "").upstream("app", &upstream).section("limits", "connects_per_ip = \"off\"")
}

fn descriptors(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("a process").count()
}

fn threads(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).expect("a process").count()
}

/// Sends every upgrade, and returns how often each status came.
async fn storm(gateway: &Gateway) -> BTreeMap<u16, usize> {
    let addr = gateway.addr();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(async move {
            let source = format!("127.0.1.{}", 1 + number % ADDRESSES);
            let request = handshake("/app/x", &[]);
            let mut client = RawClient::connect_from(&source, addr).await;
            let mut statuses = BTreeMap::new();
            for _ in 0..UPGRADES_OF_EACH {
                client.write(request.as_bytes()).await;
                let head = client.read_head().await;
                let length = head.header("content-length").expect("a body").parse().unwrap();
                client.read_exact(length).await;
                *statuses.entry(head.status).or_insert(0) += 1;
            }
            statuses
        });
    }
    let mut statuses = BTreeMap::new();
    let sampling = async {
        loop {
            let in_flight = gateway.metric("tidegate_upstream_in_flight", &[]).await;
            assert!(in_flight <= MAX_IN_FLIGHT as f64, "{in_flight} in flight");
            tokio::time::sleep(SAMPLE).await;
        }
    };
    let finishing = async {
        while let Some(of_client) = clients.join_next().await {
            for (status, count) in of_client.expect("a client that gets its answers") {
                *statuses.entry(status).or_insert(0) += count;
            }
        }
    };
    tokio::select! {
        () = sampling => {}
        () = finishing => {}
    }
    statuses
}

/// Runs the storm against a gateway, and returns it with the statuses. `failure` is the status of an upgrade that was tried.
async fn survive(addr: SocketAddr, failure: u16) -> Gateway {
    // Longer than anything but silence takes.
    let timeout = if failure == 504 { "100ms" } else { "10s" };
    let gateway = Gateway::start(settings(addr, timeout)).await;
    let (memory, files, started) =
        (gateway.memory("VmRSS"), descriptors(&gateway), threads(&gateway));
    let most = Arc::new(AtomicUsize::new(0));
    let statuses = tokio::select! {
        statuses = storm(&gateway) => statuses,
        () = async {
            loop {
                most.fetch_max(descriptors(&gateway), Ordering::Relaxed);
                tokio::time::sleep(SAMPLE).await;
            }
        } => unreachable!("it only samples"),
    };
    assert_eq!(statuses.values().sum::<usize>(), CLIENTS * UPGRADES_OF_EACH, "{statuses:?}");
    let kinds: Vec<u16> = statuses.keys().copied().collect();
    assert_eq!(kinds, if failure > 503 { [503, failure] } else { [failure, 503] }, "{statuses:?}");
    // Each of them costs more than one that is answered at once.
    assert!(statuses[&failure] < statuses[&503] / 10, "{statuses:?}");
    gateway.wait_for_event("upstream_circuit_opened").await;
    let more_files = most.load(Ordering::Relaxed).saturating_sub(files);
    assert!(more_files <= MAX_DESCRIPTORS, "{more_files} descriptors");
    let grown = gateway.memory("VmRSS").saturating_sub(memory);
    assert!(grown < MAX_GROWTH, "{grown} bytes");
    let more_threads = threads(&gateway).saturating_sub(started);
    assert!(more_threads <= MAX_THREADS, "{more_threads} threads");
    gateway.wait_for_metric("tidegate_upstream_in_flight", &[], 0.0).await;
    until("closed connections", async || (descriptors(&gateway) < CLIENTS / 2).then_some(())).await;
    gateway
}

/// The upstream works again: an upgrade is served, as soon as the circuit lets one through.
async fn expect_service(gateway: &Gateway, server: &RawServer) {
    let serving = async {
        loop {
            let mut peer = server.open().await;
            if let Some(frame) = peer.next().await {
                assert_eq!(frame.payload, b"alive?");
                peer.send(0x81, b"alive").await;
                return peer;
            }
        }
    };
    let connecting = until("an upgrade that is served", async || {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(handshake("/app/x", &[]).as_bytes()).await;
        (client.read_head().await.status == 101).then_some(client)
    });
    let asking = async {
        let mut client = connecting.await;
        client.send(&text("alive?")).await;
        client
    };
    let (mut client, _peer) = tokio::join!(asking, serving);
    client.expect(Received::Text(b"alive".to_vec())).await;
}

/// Accepts every connection, and does `with` it. Returns the number of them so far.
fn accept_all(server: &Arc<RawServer>, with: fn(RawPeer)) -> (Arc<AtomicUsize>, JoinHandle<()>) {
    let accepted = Arc::new(AtomicUsize::new(0));
    let (counter, server) = (Arc::clone(&accepted), Arc::clone(server));
    let task = tokio::spawn(async move {
        loop {
            with(server.accept_silently().await);
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    (accepted, task)
}

#[tokio::test]
async fn an_upstream_that_refuses_connections() {
    // Nobody else gets its port, and nobody listens on it yet.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().unwrap()).expect("a free port");
    let gateway = survive(socket.local_addr().expect("bound"), 502).await;
    let listener: TcpListener = socket.listen(64).expect("a listening socket");
    expect_service(&gateway, &RawServer::on(listener)).await;
}

#[tokio::test]
async fn an_upstream_that_accepts_and_never_answers() {
    let server = Arc::new(RawServer::start().await);
    let (accepted, accepting) = accept_all(&server, |mut peer| {
        tokio::spawn(async move { peer.ended().await });
    });
    let gateway = survive(server.addr(), 504).await;
    accepting.abort();
    assert!(accepted.load(Ordering::Relaxed) < CLIENTS * UPGRADES_OF_EACH / 10);
    expect_service(&gateway, &server).await;
}

#[tokio::test]
async fn an_upstream_that_accepts_and_closes() {
    let server = Arc::new(RawServer::start().await);
    let (accepted, accepting) = accept_all(&server, drop);
    let gateway = survive(server.addr(), 502).await;
    accepting.abort();
    assert!(accepted.load(Ordering::Relaxed) < CLIENTS * UPGRADES_OF_EACH / 10);
    expect_service(&gateway, &server).await;
}
