//! Upstreams that speak TLS, with certificates of a private authority.

use super::{UNLIMITED, pass};
use crate::rig::frame::{self, binary, text};
use crate::rig::raw::{Received, handshake};
use crate::rig::raw_server::server_frame;
use crate::rig::tls_front::upstream_tls_file;
use crate::rig::{Gateway, RawClient, RawPeer, RawServer, Settings, TlsFront};

/// The gateway trusts only the authority of the tests.
async fn start(settings: Settings) -> Gateway {
    Gateway::start_with_env(settings, &[("SSL_CERT_FILE", &upstream_tls_file("ca.pem"))]).await
}

async fn connect(gateway: &Gateway, server: &RawServer) -> (RawClient, RawPeer) {
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(handshake("/app/x", &[]).as_bytes()).await;
    let peer = server.open().await;
    assert_eq!(client.read_head().await.status, 101);
    (client, peer)
}

#[tokio::test]
async fn frames_pass_over_tls() {
    let server = RawServer::start().await;
    let front = TlsFront::start("localhost", server.addr()).await;
    let url = format!("wss://localhost:{}", front.port());
    for (host, expected) in [("client", "gateway.test"), ("upstream", &url["wss://".len()..])] {
        let gateway = start(pass(&url, &format!("host = {host:?}\n{UNLIMITED}"))).await;
        let (mut client, mut peer) = connect(&gateway, &server).await;
        assert_eq!(peer.all("host"), [expected]);
        assert_eq!(front.names().pop(), Some(Some("localhost".to_owned())), "that of the URL");
        client.send(&text("hello")).await;
        assert_eq!(peer.expect(0x81).await, b"hello");
        let large = vec![7; 3 << 20];
        let (sent, answer) = (binary(&large).bytes(), server_frame(0x82, &large));
        tokio::join!(
            async {
                client.write(&sent).await;
                assert!(client.next().await == Received::Binary(large.clone()));
            },
            async {
                assert!(peer.expect(0x82).await == large);
                peer.write(&answer).await;
            },
        );
        client.send(&frame::close(4001, "done")).await;
        assert_eq!(peer.expect_close().await, (4001, "done".to_owned()));
        peer.send(0x88, &4001u16.to_be_bytes()).await;
        assert_eq!(client.read_close().await, Some(4001));
    }
}

#[tokio::test]
async fn messages_of_a_raw_route_pass_over_tls() {
    let server = RawServer::start().await;
    let front = TlsFront::start("localhost", server.addr()).await;
    let url = format!("wss://localhost:{}", front.port());
    let raw = |route: &str| format!("{}\nchannel = \"c\"", route.replace("\"pass\"", "\"raw\""));
    let gateway = start(pass(&url, "").each_route(raw)).await;
    let (mut client, mut peer) = connect(&gateway, &server).await;
    client.send(&text("hello")).await;
    assert_eq!(peer.expect(0x81).await, b"hello");
    peer.send(0x81, b"answer").await;
    client.expect(Received::Text(b"answer".to_vec())).await;
}

#[tokio::test]
async fn an_upstream_that_cannot_show_who_it_is_gets_nothing() {
    let server = RawServer::start().await;
    let trusted = upstream_tls_file("ca.pem");
    let other = crate::rig::redis::tls_file("ca.pem");
    let localhost = TlsFront::start("localhost", server.addr()).await;
    let wrong_name = TlsFront::start("other", server.addr()).await;
    for (port, authority, reason) in [
        (localhost.port(), &other, "UnknownIssuer"),
        (wrong_name.port(), &trusted, "not valid for name"),
        // It does not speak TLS at all.
        (server.addr().port(), &trusted, "InvalidContentType"),
    ] {
        let url = format!("wss://localhost:{port}");
        let settings = pass(&url, "");
        let gateway = Gateway::start_with_env(settings, &[("SSL_CERT_FILE", authority)]).await;
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(handshake("/app/x", &[]).as_bytes()).await;
        if port == server.addr().port() {
            let mut peer = server.accept_silently().await;
            peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            peer.shutdown().await;
        }
        assert_eq!(client.read_head().await.status, 502, "{reason}");
        let event = gateway.wait_for_event("upstream_failed").await.to_string();
        assert!(event.contains(reason), "{event}");
    }
    assert_eq!(localhost.names(), []);
}

#[tokio::test]
async fn a_replica_with_another_certificate_is_left_out() {
    let server = RawServer::start().await;
    let good = TlsFront::start("localhost", server.addr()).await;
    let bad = TlsFront::start("other", server.addr()).await;
    let urls = [bad.port(), good.port()].map(|port| format!("wss://localhost:{port}"));
    let upstream = format!("kind = \"websocket\"\nurls = {urls:?}");
    let gateway = start(pass("ws://x", "").upstream("app", &upstream)).await;
    for _ in 0..4 {
        let (mut client, mut peer) = connect(&gateway, &server).await;
        client.send(&text("hello")).await;
        assert_eq!(peer.expect(0x81).await, b"hello");
    }
    assert_eq!(bad.names(), []);
    assert!(gateway.stderr_contains("not valid for name"));
}
