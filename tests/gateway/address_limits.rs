//! The limits per client address: nobody behind another address notices who exceeds them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::json;

use crate::chat::{chat, open_to_all};
use crate::outcome::Outcome::{Closed, Connected, Http};
use crate::outcome::{attempt, outcome};
use crate::rig::raw::{Received, handshake};
use crate::rig::{Client, Gateway, RawClient, Reply, Settings, Upstream, http, until};

const PATH: &str = "/ws/chat/1/";
const TRUST_ALL: &str = "trusted_proxies = [\"127.0.0.0/8\"]";

fn with_limits(lines: &str) -> Settings {
    open_to_all().section("limits", lines)
}

fn from(address: &str) -> [(&'static str, &str); 1] {
    [("x-forwarded-for", address)]
}

/// Opens a WebSocket from an address of this machine. `None` = it was refused.
async fn open_from(source: &str, addr: SocketAddr) -> Option<RawClient> {
    let mut client = RawClient::connect_from(source, addr).await;
    client.try_write(handshake(PATH, &[]).as_bytes()).await.ok()?;
    (client.try_read_status().await == Some(101)).then_some(client)
}

/// Regression test: connections over the limit of their address kept permits of the process.
#[tokio::test]
async fn an_address_over_its_limit_takes_no_place_of_others() {
    let limits = "max_connections = 60\nmax_connections_per_ip = 10";
    let gateway = Gateway::start(open_to_all().also("server", limits)).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(RawClient::connect_from("127.0.0.1", gateway.addr()).await);
    }
    gateway.wait_for_metric("tidegate_client_sockets", &[], 10.0).await;
    for _ in 0..70 {
        held.push(RawClient::connect_from("127.0.0.1", gateway.addr()).await);
    }
    for refused in &mut held[10..] {
        let head = refused.read_head().await;
        assert_eq!((head.status, head.header("connection")), (429, Some("close")));
        assert_eq!(head.header("retry-after"), Some("10"));
        let length = head.header("content-length").unwrap().parse().unwrap();
        refused.read_exact(length).await;
        refused.expect(Received::End).await;
    }
    let mut others = Vec::new();
    for number in 2..52 {
        let other = open_from(&format!("127.0.0.{number}"), gateway.addr()).await;
        others.push(other.unwrap_or_else(|| panic!("127.0.0.{number} is refused")));
    }
    assert_eq!(gateway.metric("tidegate_client_sockets", &[]).await, 60.0);
    let refusals = [("limit", "connections_per_ip")];
    assert_eq!(gateway.metric("tidegate_limit_refusals_total", &refusals).await, 70.0);
    // The first lines are written, the others are counted.
    let lines = gateway.log_events("connection_refused");
    assert!((1..=10).contains(&lines.len()), "{lines:?}");
    let line = lines[0].to_string();
    assert!(line.contains("127.0.0.1") && line.contains("connections_per_ip"), "{line}");
    drop(held);
    until("room after the address has left", async || open_from("127.0.0.1", gateway.addr()).await)
        .await;
}

#[tokio::test]
async fn a_refused_client_reads_the_answer_to_its_request() {
    let gateway = Gateway::start(open_to_all().also("server", "max_connections_per_ip = 1")).await;
    let _first = attempt(&gateway, PATH, &[]).await.unwrap();
    for _ in 0..20 {
        let body = vec![b'x'; 20_000];
        let answer = http::send(gateway.addr(), "POST", "/upload", &[], body.into()).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (429, Some("too_many_connections"))
        );
    }
}

/// Regression test: what was not read of an upload reset the connection, and with it the answer.
#[tokio::test]
async fn a_refused_upload_gets_its_answer() {
    let gateway = Gateway::start(with_limits("requests_per_ip = \"1/1h\"")).await;
    for status in [404, 429, 429, 429] {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 400000\r\n\r\n").await;
        for _ in 0..40 {
            client.write(&[b'x'; 10_000]).await;
            tokio::task::yield_now().await;
        }
        let head = client.read_head().await;
        assert_eq!(head.status, status);
        client.read_exact(head.header("content-length").unwrap().parse().unwrap()).await;
        client.expect(Received::End).await;
    }
}

/// Regression test: peers of a dual-stack listener are `::ffff:…`, which no IPv4 block contained.
#[tokio::test]
async fn a_dual_stack_listener_knows_ipv4_proxies() {
    let settings = open_to_all()
        .section("server", "listen = \"[::]:0\"\nthreads = 2\nmax_connections_per_ip = 2")
        .also("server", TRUST_ALL);
    let gateway = Gateway::start(settings).await;
    let addr = SocketAddr::from(([127, 0, 0, 1], gateway.addr().port()));
    let mut held = Vec::new();
    for number in 1..=5 {
        let address = format!("203.0.113.{number}");
        let mut client = Client::open(addr, PATH, &from(&address)).await;
        client.next_event("connected").await;
        held.push(client);
    }
    let spellings = ["203.0.113.1", "::ffff:203.0.113.1", "[::ffff:203.0.113.1]:4711"];
    held.push(Client::open(addr, PATH, &from(spellings[1])).await);
    for spelling in spellings {
        let mut third = Client::open(addr, PATH, &from(spelling)).await;
        assert_eq!(third.closed().await, Some(4029), "{spelling}");
    }
    let key = [("authorization", "Bearer test-api-key")];
    let list = http::send(gateway.admin(), "GET", "/v1/connections", &key, "".into()).await.json();
    let rows = list["connections"].as_array().unwrap();
    let shown: BTreeSet<_> = rows.iter().map(|row| row["address"].as_str().unwrap()).collect();
    assert_eq!(
        shown,
        (1..=5)
            .map(|n| format!("203.0.113.{n}"))
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str)
            .collect()
    );
    let line = gateway.wait_for_event("handshake_refused").await.to_string();
    assert!(line.contains("203.0.113.1") && !line.contains("ffff"), "{line}");
}

#[tokio::test]
async fn an_ipv4_peer_of_a_dual_stack_listener_is_an_ipv4_address() {
    let settings = open_to_all()
        .section("server", "listen = \"[::]:0\"\nthreads = 1\nmax_connections_per_ip = 1");
    let gateway = Gateway::start(settings).await;
    let port = gateway.addr().port();
    let _first = open_from("127.0.0.1", SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
    assert!(open_from("127.0.0.1", SocketAddr::from(([127, 0, 0, 1], port))).await.is_none());
    let line = gateway.wait_for_event("connection_refused").await.to_string();
    assert!(line.contains("127.0.0.1") && !line.contains("ffff"), "{line}");
    open_from("127.0.0.2", SocketAddr::from(([127, 0, 0, 1], port))).await.expect("another one");
}

#[tokio::test]
async fn an_ipv6_network_is_one_client_in_each_limit() {
    for (prefix, second) in [("64", Closed(4029)), ("128", Connected)] {
        let settings = with_limits(&format!("ipv6_prefix = {prefix}"))
            .also("server", &format!("max_connections_per_ip = 1\n{TRUST_ALL}"));
        let gateway = Gateway::start(settings).await;
        let _first = attempt(&gateway, PATH, &from("2001:db8::1")).await.unwrap();
        assert_eq!(outcome(&gateway, PATH, &from("2001:db8::2")).await, second, "/{prefix}");
        assert_eq!(outcome(&gateway, PATH, &from("2001:db8:0:1::1")).await, Connected);
    }
    let settings = with_limits("connects_per_ip = \"2/1h\"\nrequests_per_ip = \"1/1h\"")
        .also("server", TRUST_ALL);
    let gateway = Gateway::start(settings).await;
    for (address, expected) in [
        ("2001:db8::1", Connected),
        ("2001:db8::2", Connected),
        ("2001:db8::3", Closed(4029)),
        ("2001:db8:0:1::1", Connected),
    ] {
        assert_eq!(outcome(&gateway, PATH, &from(address)).await, expected, "{address}");
    }
    for (address, status) in [("2001:db8::1", 404), ("2001:db8::2", 429), ("192.0.2.1", 404)] {
        let answer = http::send(gateway.addr(), "GET", "/", &from(address), "".into()).await;
        assert_eq!(answer.status, status, "{address}");
        assert_eq!(answer.header("retry-after").is_some(), status == 429, "{address}");
    }
}

#[tokio::test]
async fn connects_of_an_address_have_a_rate() {
    let gateway = Gateway::start(with_limits("connects_per_ip = \"1/1h burst 5\"")).await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        let mut client = RawClient::connect_from("127.0.0.1", gateway.addr()).await;
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        // A refused client may be answered before it has written.
        let _ = client.try_write(request).await;
        statuses.push(client.try_read_status().await);
    }
    assert_eq!(statuses, [vec![Some(404); 5], vec![Some(429); 3]].concat());
    open_from("127.0.0.2", gateway.addr()).await.expect("another address");
    let refusals = [("limit", "connects_per_ip")];
    assert_eq!(gateway.metric("tidegate_limit_refusals_total", &refusals).await, 3.0);
}

/// A connection that is kept alive is no way round the rate.
#[tokio::test]
async fn each_handshake_counts_as_a_connect() {
    let settings = chat("auth = [\"cookie\"]\nreject = \"http\"")
        .section("limits", "connects_per_ip = \"1/1h burst 3\"");
    let gateway = Gateway::start(settings).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    for status in [401, 401, 401, 429] {
        client.write(handshake(PATH, &[]).as_bytes()).await;
        let head = client.read_head().await;
        assert_eq!(head.status, status);
        let length = head.header("content-length").unwrap().parse().unwrap();
        client.read_exact(length).await;
    }
    client.expect(Received::End).await;
}

#[tokio::test]
async fn without_a_count_per_address_there_is_no_rate_by_default() {
    // Everybody may be behind one address then.
    for (lines, refused) in [("max_connections_per_ip = 0", false), ("", true)] {
        let gateway = Gateway::start(open_to_all().also("server", lines)).await;
        let mut refusals = 0;
        // The rate gives room again meanwhile, so that a slow machine needs more of them.
        for _ in 0..if refused { 100_000 } else { 2600 } {
            let mut client = RawClient::connect(gateway.addr()).await;
            // The first bytes of a refusal come unasked.
            let _ = client.try_write(b"X\r\n\r\n").await;
            refusals += usize::from(client.try_read_status().await == Some(429));
            if refusals > 0 {
                break;
            }
        }
        assert_eq!(refusals > 0, refused, "{lines}");
    }
}

/// Requests in progress hold connections of the process too, whoever's proxy they come through.
#[tokio::test]
async fn requests_in_progress_behind_a_proxy_count_for_their_address() {
    let (stream, reply) = Reply::stream("text/plain");
    let reply = std::sync::Arc::new(std::sync::Mutex::new(Some(reply)));
    let upstream =
        Upstream::start(move |_| reply.lock().unwrap().take().unwrap_or(Reply::status(204))).await;
    let settings = open_to_all()
        .section("proxy", &format!("upstream = {:?}", upstream.url("")))
        .also("server", &format!("max_connections_per_ip = 1\n{TRUST_ALL}"));
    let gateway = Gateway::start(settings).await;
    let mut held = http::stream(gateway.addr(), "/slow", &from("203.0.113.1")).await;
    assert!(stream.write("a"));
    assert!(held.next().await.is_some());
    let get = async |address: &str| {
        http::send(gateway.addr(), "GET", "/", &from(address), "".into()).await.status
    };
    assert_eq!((get("203.0.113.1").await, get("203.0.113.2").await), (429, 204));
    assert_eq!(outcome(&gateway, PATH, &from("203.0.113.1")).await, Closed(4029));
    drop(held);
    until("room after the request", async || (get("203.0.113.1").await == 204).then_some(())).await;
}

/// Refused handshakes wait before their close, and count for their address meanwhile.
#[tokio::test]
async fn refused_clients_behind_a_proxy_count_for_their_address() {
    let settings = chat("auth = [\"cookie\"]").also(
        "server",
        &format!("max_connections_per_ip = 2\nrefusal_delay = \"5s\"\n{TRUST_ALL}"),
    );
    let gateway = Gateway::start(settings).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(handshake(PATH, &from("203.0.113.1")).as_bytes()).await;
        assert_eq!(client.read_head().await.status, 101);
        waiting.push(client);
    }
    assert_eq!(outcome(&gateway, PATH, &from("203.0.113.1")).await, Closed(4029));
    assert_eq!(outcome(&gateway, PATH, &from("203.0.113.2")).await, Closed(4001));
}

#[tokio::test]
async fn a_reload_changes_the_rates() {
    let settings = with_limits("connects_per_ip = \"1/1h\"").section("reload", "watch = \"50ms\"");
    let gateway = Gateway::start(&settings).await;
    assert_eq!(outcome(&gateway, PATH, &[]).await, Connected);
    assert_eq!(outcome(&gateway, PATH, &[]).await, Http(429));
    let off = settings.section("limits", "connects_per_ip = \"off\"");
    std::fs::write(gateway.config_file(), off.to_string()).unwrap();
    gateway.wait_for_event("config_reloaded").await;
    assert_eq!(outcome(&gateway, PATH, &[]).await, Connected);
}

/// One address does its worst at each limit, while fifty others connect, send and receive.
#[tokio::test]
async fn others_are_served_while_one_address_does_its_worst() {
    let upstream = Upstream::accepting().await;
    let settings = Settings::chat(&upstream.url("/"))
        .also("server", "max_connections = 200\nmax_connections_per_ip = 20")
        // Clients that wait for the others of the fifty do not answer pings.
        .each_route(|route| format!("{route}\nidle_ping = \"5m\""))
        .section("limits", "connects_per_ip = \"50/1s burst 100\"\nrequests_per_ip = \"20/1s\"");
    let gateway = Gateway::start(settings).await;
    let addr = gateway.addr();
    let attack = async {
        let mut held = Vec::new();
        loop {
            for number in 0..10 {
                let mut client = RawClient::connect_from("127.0.0.1", addr).await;
                let request = match number % 3 {
                    0 => handshake(PATH, &[]),
                    1 => "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(20),
                    _ => "GET / HTTP/1.1\r\nx-slow: ".to_owned(),
                };
                // It is refused most of the time.
                let _ = client.try_write(request.as_bytes()).await;
                held.push(client);
            }
            if held.len() > 300 {
                held.drain(..100);
            }
            tokio::task::yield_now().await;
        }
    };
    let others = async {
        let mut clients = Vec::new();
        for number in 2..52 {
            let source = format!("127.0.0.{number}");
            let mut client = open_from(&source, addr).await.expect("a place");
            let connected = client.next().await;
            assert!(matches!(&connected, Received::Text(_)), "{connected:?}");
            client.send(&crate::rig::frame::text("{\"message\":\"hi\"}")).await;
            clients.push(client);
        }
        for client in &mut clients {
            wait_for(client, "task_queued").await;
        }
        gateway.publish("chat_1", json!({"event": "chunk"})).await;
        for client in &mut clients {
            wait_for(client, "chunk").await;
        }
    };
    tokio::select! {
        () = others => {}
        () = attack => unreachable!("the attack goes on until the others are done"),
    }
    let refusals = gateway.metric("tidegate_limit_refusals_total", &[]).await;
    assert!(refusals > 50.0, "the limits were reached: {refusals}");
    assert_eq!(
        gateway.metric("tidegate_limit_refusals_total", &[("limit", "connections_total")]).await,
        0.0
    );
}

/// Reads until the event called `name`.
async fn wait_for(client: &mut RawClient, name: &str) {
    loop {
        match client.next().await {
            Received::Text(text) if String::from_utf8_lossy(&text).contains(name) => return,
            Received::Text(_) => {}
            other => panic!("no {name}: {other:?}"),
        }
    }
}
