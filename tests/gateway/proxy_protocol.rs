//! `[server] proxy_protocol`: connections of load balancers that pass on TCP, with headers that are written here byte by
//! byte. `tests/deploy/proxy_protocol.py` has real load balancers.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::Value;

use crate::chat::{chat, open_to_all};
use crate::rig::raw::{Received, handshake};
use crate::rig::{Gateway, RawClient, Reply, Settings, Upstream, http};

const PATH: &str = "/ws/chat/1/";
const REQUIRED: &str = "proxy_protocol = \"required\"\ntrusted_proxies = [\"127.0.0.1\"]";

fn required() -> Settings {
    open_to_all().also("server", REQUIRED)
}

/// A line that names this client.
fn line(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let (family, server) = if client.is_ipv4() { (4, "192.0.2.1") } else { (6, "2001:db8::1") };
    let port = client.port();
    format!("PROXY TCP{family} {} {server} {port} 443\r\n", client.ip()).into_bytes()
}

/// A header of version 2, with this command, family and rest.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length[..], rest].concat()
}

/// Addresses of 203.0.113.`last` and a server.
fn v4(last: u8) -> Vec<u8> {
    [&[203, 0, 113, last, 192, 0, 2, 1][..], &51000_u16.to_be_bytes(), &443_u16.to_be_bytes()]
        .concat()
}

/// Connects as the load balancer and sends `header`.
async fn through(gateway: &Gateway, header: &[u8]) -> RawClient {
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(header).await;
    client
}

/// Opens a WebSocket behind `header`. Returns the status if there is none.
async fn open(gateway: &Gateway, header: &[u8]) -> Result<RawClient, Option<u16>> {
    let mut client = RawClient::connect(gateway.addr()).await;
    // A header and what follows may arrive together.
    let _ = client.try_write(&[header, handshake(PATH, &[]).as_bytes()].concat()).await;
    match client.try_read_status().await {
        Some(101) => Ok(client),
        status => Err(status),
    }
}

/// The addresses of the open connections, as the server API lists them.
async fn addresses(gateway: &Gateway) -> Vec<String> {
    let key = [("authorization", "Bearer test-api-key")];
    let list = http::send(gateway.admin(), "GET", "/v1/connections", &key, "".into()).await.json();
    let rows = list["connections"].as_array().unwrap();
    let mut all: Vec<_> =
        rows.iter().map(|row| row["address"].as_str().unwrap().to_owned()).collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn the_header_names_the_client_in_logs_and_lists() {
    let gateway = Gateway::start(required()).await;
    let unix = [[b'a'; 108], [b'b'; 108]].concat();
    let v6 = [&[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0; 20]].concat();
    let mapped = [&[0; 10][..], &[0xff, 0xff, 203, 0, 113, 9], &[0; 20]].concat();
    let mut held = Vec::new();
    for header in [
        line("203.0.113.1:51000"),
        line("[2001:db8::6]:51000"),
        b"PROXY UNKNOWN\r\n".to_vec(),
        binary(0x21, 0x11, &v4(2)),
        binary(0x21, 0x21, &v6),
        binary(0x21, 0x21, &mapped),
        binary(0x21, 0x31, &unix),
        binary(0x21, 0x00, b""),
        binary(0x20, 0x00, b""),
        // Fields that are not read.
        binary(0x21, 0x11, &[v4(3), vec![0xea, 0, 2, 1, 2]].concat()),
    ] {
        let mut client = open(&gateway, &header).await.unwrap_or_else(|_| panic!("{header:x?}"));
        client.expect_text("connected").await;
        held.push(client);
    }
    let mut expected = ["127.0.0.1"; 4].to_vec();
    expected.extend(["2001:db8::6", "2001:db8::7"]);
    expected.extend(["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.9"]);
    assert_eq!(addresses(&gateway).await, expected);
}

/// The client's request and the TLS of its connection follow directly: no byte behind the header may be lost.
#[tokio::test]
async fn a_header_may_come_byte_by_byte_and_with_what_follows() {
    let gateway = Gateway::start(required()).await;
    for header in [line("203.0.113.1:51000"), binary(0x21, 0x11, &v4(2))] {
        for size in [1, 7, 16, 4096] {
            let mut client = RawClient::connect(gateway.addr()).await;
            let bytes = [&header, handshake(PATH, &[]).as_bytes()].concat();
            client.try_write_chopped(&bytes, size).await.unwrap();
            assert_eq!(client.try_read_status().await, Some(101), "{size}");
        }
    }
}

#[tokio::test]
async fn whoever_is_no_trusted_proxy_is_closed_whatever_it_sends() {
    let gateway = Gateway::start(required()).await;
    for header in [line("203.0.113.1:51000"), Vec::new()] {
        let mut stranger = RawClient::connect_from("127.0.0.2", gateway.addr()).await;
        let request = [&header, handshake(PATH, &[]).as_bytes()].concat();
        // It may be closed before it has written.
        let _ = stranger.try_write(&request).await;
        assert_eq!(stranger.try_read_status().await, None);
    }
    let causes = [("cause", "untrusted")];
    assert_eq!(gateway.metric("tidegate_proxy_headers_refused_total", &causes).await, 2.0);
    let logged = gateway.wait_for_event("proxy_header_refused").await;
    assert_eq!((&logged["cause"], &logged["peer"]), (&"untrusted".into(), &"127.0.0.2".into()));
    assert_eq!(gateway.metric("tidegate_client_sockets", &[]).await, 0.0);
}

#[tokio::test]
async fn connections_without_a_good_header_are_closed_and_counted() {
    let gateway = Gateway::start(required().also("server", "header_timeout = \"300ms\"")).await;
    let unfinished = &line("203.0.113.1:51000")[..30];
    let too_long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    let mut refused = 0.0;
    for (cause, header, ends) in [
        ("malformed", &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], false),
        // A ClientHello.
        ("malformed", b"\x16\x03\x01\x02\x00\x01\x00", false),
        ("malformed", &binary(0x21, 0x12, &v4(1)), false),
        ("malformed", b"PROXY TCP4 203.0.113.1 192.0.2.1 51000\r\n", false),
        ("too_large", &too_long, false),
        ("too_large", &binary(0x21, 0x11, &[0; 5000])[..16], false),
        ("incomplete", unfinished, true),
        ("incomplete", &binary(0x21, 0x11, &v4(1))[..20], true),
        ("timeout", unfinished, false),
        ("timeout", b"", false),
    ] {
        let mut client = through(&gateway, header).await;
        if ends {
            client.shutdown().await;
        }
        client.expect(Received::End).await;
        refused += 1.0;
        let all = gateway.metric("tidegate_proxy_headers_refused_total", &[]).await;
        let of_cause =
            gateway.metric("tidegate_proxy_headers_refused_total", &[("cause", cause)]).await;
        assert!(all == refused && of_cause >= 1.0, "{cause}: {of_cause} of {all}");
    }
    // A load balancer that only looks whether the port is open.
    RawClient::connect(gateway.addr()).await.shutdown().await;
    gateway.wait_for_metric("tidegate_client_sockets", &[], 0.0).await;
    assert_eq!(gateway.metric("tidegate_proxy_headers_refused_total", &[]).await, refused);
    open(&gateway, &line("203.0.113.1:51000")).await.expect("a good header");
}

/// The shares of addresses are those of the clients: the load balancer has none that they could use up.
#[tokio::test]
async fn limits_count_the_client_and_not_the_load_balancer() {
    let settings = required()
        .also("server", "max_connections_per_ip = 2")
        .section("limits", "connects_per_ip = \"3/1h\"");
    let gateway = Gateway::start(settings).await;
    let mut held = Vec::new();
    for last in 1..=5 {
        for _ in 0..2 {
            held.push(open(&gateway, &binary(0x21, 0x11, &v4(last))).await.unwrap());
        }
        let third = open(&gateway, &line(&format!("203.0.113.{last}:1"))).await;
        assert_eq!(third.err(), Some(Some(429)));
    }
    let refusals = [("limit", "connections_per_ip")];
    assert_eq!(gateway.metric("tidegate_limit_refusals_total", &refusals).await, 5.0);
    drop(held);
    gateway.wait_for_metric("tidegate_client_sockets", &[], 0.0).await;
    let fourth = open(&gateway, &line("203.0.113.1:1")).await;
    assert_eq!(fourth.err(), Some(Some(429)));
    let refusals = [("limit", "connects_per_ip")];
    assert_eq!(gateway.metric("tidegate_limit_refusals_total", &refusals).await, 1.0);
    let logged = gateway.wait_for_event("connection_refused").await.to_string();
    assert!(logged.contains("203.0.113.") && !logged.contains("127.0.0.1"), "{logged}");
}

/// What a connection of the load balancer sends before its header takes a place of the process, and no other.
#[tokio::test]
async fn connections_without_their_header_count_for_the_process() {
    let gateway = Gateway::start(required().also("server", "max_connections = 3")).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(through(&gateway, b"PROXY ").await);
    }
    gateway.wait_for_metric("tidegate_client_sockets", &[], 3.0).await;
    assert_eq!(open(&gateway, &line("203.0.113.1:1")).await.err(), Some(Some(503)));
    held.clear();
    gateway.wait_for_metric("tidegate_client_sockets", &[], 0.0).await;
    open(&gateway, &line("203.0.113.1:1")).await.expect("room");
}

/// The header takes the place of the peer's address: whom it names is a proxy in turn, or a client whose own headers
/// say nothing.
#[tokio::test]
async fn forwarding_headers_count_if_the_named_peer_is_trusted() {
    let upstream = Upstream::start(|_| Reply::status(204)).await;
    let settings = required()
        .section("server", "listen = \"127.0.0.1:0\"\nthreads = 1\nproxy_protocol = \"required\"")
        .also("server", "trusted_proxies = [\"127.0.0.1\", \"198.51.100.0/24\"]")
        .section("proxy", &format!("upstream = {:?}", upstream.url("")));
    let gateway = Gateway::start(settings).await;
    let over_tls = binary(0x21, 0x11, &[v4(7), vec![0x20, 0, 5, 1, 0, 0, 0, 0]].concat());
    for (header, chain, proto) in [
        (line("203.0.113.7:1"), "203.0.113.7", "http"),
        (over_tls, "203.0.113.7", "https"),
        (line("198.51.100.9:1"), "192.0.2.44, 198.51.100.9", "gopher"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "192.0.2.44, 127.0.0.1", "gopher"),
    ] {
        let mut client = through(&gateway, &header).await;
        client
            .write(
                b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 192.0.2.44\r\n\
                  x-forwarded-proto: gopher\r\n\r\n",
            )
            .await;
        let request = upstream.next_request().await;
        assert_eq!(request.header("x-forwarded-for"), Some(chain));
        assert_eq!(request.header("x-forwarded-proto"), Some(proto));
        assert_eq!(client.read_head().await.status, 204);
    }
}

/// A TLV of version 2 says that the client uses TLS, so a page of the gateway's own origin has the scheme https.
#[tokio::test]
async fn the_own_origin_has_the_scheme_of_the_client() {
    let settings = chat("auth = [\"anonymous\"]\nreject = \"http\"")
        .also("server", REQUIRED)
        .section("origins", "allow = [\"self\"]");
    let gateway = Gateway::start(settings).await;
    let tls = binary(0x21, 0x11, &[v4(7), vec![0x20, 0, 5, 1, 0, 0, 0, 0]].concat());
    for (header, scheme, expected) in [
        (&tls, "https", 101),
        (&tls, "http", 403),
        (&line("203.0.113.7:1"), "http", 101),
        (&line("203.0.113.7:1"), "https", 403),
    ] {
        let mut client = through(&gateway, header).await;
        let origin = format!("{scheme}://gateway.test");
        client.write(handshake(PATH, &[("origin", &origin)]).as_bytes()).await;
        assert_eq!(client.try_read_status().await, Some(expected), "{scheme}");
    }
}

/// A drain does not wait for connections that never say whose they are.
#[tokio::test]
async fn a_drain_ends_connections_without_a_header() {
    let mut gateway = Gateway::start(required()).await;
    let mut silent = through(&gateway, b"PROXY ").await;
    gateway.wait_for_metric("tidegate_client_sockets", &[], 1.0).await;
    assert_eq!(gateway.stop().await, Some(0));
    silent.expect(Received::End).await;
    let forced: Vec<Value> = gateway.log_events("shutdown_forced");
    assert!(forced.is_empty(), "{forced:?}");
}

#[tokio::test]
async fn a_reload_applies_to_new_connections() {
    let gateway = Gateway::start(open_to_all().also("server", "trusted_proxies = [\"127.0.0.1\"]"));
    let gateway = gateway.await;
    let mut open_before = open(&gateway, b"").await.unwrap();
    let config = std::fs::read_to_string(gateway.config_file()).unwrap();
    let changed = config.replace("[server]\n", "[server]\nproxy_protocol = \"required\"\n");
    std::fs::write(gateway.config_file(), changed).unwrap();
    gateway.signal(Signal::HUP);
    gateway.wait_for_event("config_reloaded").await;
    assert_eq!(open(&gateway, b"").await.err(), Some(None));
    open(&gateway, &line("203.0.113.1:1")).await.expect("a header");
    open_before.expect_text("connected").await;
}
