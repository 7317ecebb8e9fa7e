//! Handshakes, good and bad, and their bounds.

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{open, read_until, start};
use crate::rig::{Gateway, RawClient, TlsClient, until, within};

const HANDSHAKES: &str = "tidegate_tls_handshakes_total";

async fn wait_for_outcome(gateway: &Gateway, outcome: &str, count: f64) {
    gateway.wait_for_metric(HANDSHAKES, &[("port", "public"), ("outcome", outcome)], count).await;
}

#[tokio::test]
async fn both_versions_carry_a_session() {
    let gateway = start("").await;
    for (versions, version) in
        [(&[&TLS12], ProtocolVersion::TLSv1_2), (&[&TLS13], ProtocolVersion::TLSv1_3)]
    {
        for protocols in [&[][..], &["http/1.1"], &["h2", "http/1.1"]] {
            let client = TlsClient::with_versions(versions).with_protocols(protocols);
            let mut stream = open(client.connect(gateway.addr()).await).await;
            let connection = stream.get_ref().1;
            assert_eq!(connection.protocol_version(), Some(version));
            let expected = (!protocols.is_empty()).then_some(&b"http/1.1"[..]);
            assert_eq!(connection.alpn_protocol(), expected);
            gateway.publish("open", json!({"event": "note", "text": "over TLS"})).await;
            read_until(&mut stream, "over TLS").await;
        }
    }
    wait_for_outcome(&gateway, "full", 6.0).await;
}

#[tokio::test]
async fn sessions_are_resumed() {
    let gateway = start("").await;
    for versions in [&[&TLS12], &[&TLS13]] {
        let client = TlsClient::with_versions(versions);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let stream = open(client.connect(gateway.addr()).await).await;
            kinds.push(stream.get_ref().1.handshake_kind());
        }
        assert_eq!(kinds[1], Some(HandshakeKind::Resumed), "{kinds:?}");
    }
    wait_for_outcome(&gateway, "resumed", 2.0).await;
}

#[tokio::test]
async fn what_both_sides_share_has_to_be_enough() {
    let gateway = start("min_version = \"1.3\"").await;
    let old = TlsClient::with_versions(&[&TLS12]);
    let error = old.try_connect(gateway.addr()).await.unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
    let other = TlsClient::new().with_protocols(&["acme-tls/1"]);
    let error = other.try_connect(gateway.addr()).await.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    let stranger = TlsClient::new().asking_for("stranger.test");
    let error = stranger.try_connect(gateway.addr()).await.unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
    wait_for_outcome(&gateway, "nothing_shared", 2.0).await;
    wait_for_outcome(&gateway, "alert", 1.0).await;
    open(TlsClient::new().connect(gateway.addr()).await).await;
}

#[tokio::test]
async fn other_protocols_are_refused() {
    let gateway = start("").await;
    for request in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /upload HTTP/1.1\r\n"] {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(request.as_bytes()).await;
        let answer = String::from_utf8(client.read_to_end().await).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a response");
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["code"], "tls_expected");
    }
    wait_for_outcome(&gateway, "plain_http", 2.0).await;
    for bytes in
        [&b"\0\0\0\x01"[..], b"SSH-2.0-x\r\n", b"\x80\x2e\x01\0\x02", b"\x17\x03\x03\0\x01\0"]
    {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(bytes).await;
        client.read_to_end().await;
    }
    // A record of a handshake that is none.
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(b"\x16\x03\x01\0\x05hello").await;
    assert_eq!(client.read_to_end().await.first(), Some(&21), "an alert");
    wait_for_outcome(&gateway, "malformed", 1.0).await;
    open(TlsClient::new().connect(gateway.addr()).await).await;
}

#[tokio::test]
async fn clients_that_leave_give_everything_back() {
    let gateway = start("max_handshakes = 4").await;
    for round in 1..=20 {
        let mut client = RawClient::connect(gateway.addr()).await;
        // A quarter of four.
        client.write(b"\x16\x03\x01\x02\x00\x01").await;
        match round % 2 {
            0 => client.reset(),
            _ => drop(client),
        }
        wait_for_outcome(&gateway, "closed", f64::from(round)).await;
    }
    gateway.wait_for_metric("tidegate_client_sockets", &[], 0.0).await;
    open(TlsClient::new().connect(gateway.addr()).await).await;
}

#[tokio::test]
async fn a_slow_client_has_a_time_limit_and_a_share() {
    let gateway = start("max_handshakes = 8\nhandshake_timeout = \"5s\"").await;
    let slow = async || {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(b"\x16\x03\x01\x02\x00").await;
        client
    };
    let mut slow_ones = vec![slow().await, slow().await];
    // The gateway has begun both.
    gateway.wait_for_metric("tidegate_client_sockets", &[], 2.0).await;
    let refused = TlsClient::new().try_connect(gateway.addr()).await;
    assert!(refused.is_err(), "a third of this address");
    wait_for_outcome(&gateway, "too_many", 1.0).await;
    // Another address has its own share.
    let mut other = RawClient::connect_from("127.0.0.2", gateway.addr()).await;
    other.write(b"\x16\x03\x01\x02\x00").await;
    for client in &mut slow_ones {
        client.read_to_end().await;
    }
    other.read_to_end().await;
    wait_for_outcome(&gateway, "timeout", 3.0).await;
    open(TlsClient::new().connect(gateway.addr()).await).await;
}

#[tokio::test]
async fn a_flood_of_handshakes_does_not_keep_deliveries_waiting() {
    let gateway = start("").await;
    let mut client = open(TlsClient::new().connect(gateway.addr()).await).await;
    let addr = gateway.addr();
    let flood: Vec<_> = (0..64)
        .map(|_| tokio::spawn(async move { TlsClient::new().try_connect(addr).await.is_ok() }))
        .collect();
    for number in 0..20 {
        let text = format!("number {number}");
        gateway.publish("open", json!({"event": "note", "text": text})).await;
        read_until(&mut client, &text).await;
    }
    for connecting in flood {
        assert!(within("handshake", connecting).await.unwrap());
    }
}

#[tokio::test]
async fn limits_of_connections_end_them_with_an_alert() {
    let settings = super::settings("").also("server", "max_connections_per_ip = 1");
    let gateway = Gateway::start(settings).await;
    let first = open(TlsClient::new().connect(gateway.addr()).await).await;
    let error = TlsClient::new().try_connect(gateway.addr()).await.unwrap_err().to_string();
    assert!(error.contains("InternalError"), "{error}");
    drop(first);
    until("a place", async || TlsClient::new().try_connect(gateway.addr()).await.ok().map(drop))
        .await;
}

#[tokio::test]
async fn a_handshake_ends_with_the_gateway() {
    let mut gateway = start("").await;
    let mut waiting = TcpStream::connect(gateway.addr()).await.unwrap();
    waiting.write_all(b"\x16\x03\x01").await.unwrap();
    gateway.wait_for_metric("tidegate_client_sockets", &[], 1.0).await;
    assert_eq!(gateway.stop().await, Some(0), "a drain that does not wait for a stranger");
    let mut rest = Vec::new();
    let _ = within("the end", waiting.read_to_end(&mut rest)).await;
}
