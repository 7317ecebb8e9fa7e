//! What goes over a connection: every protocol, closes, and peers that break TLS.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{open, settings, start};
use crate::rig::frame::{self, binary, text};
use crate::rig::raw::{Received, handshake};
use crate::rig::{
    Client, Event, Gateway, RawClient, RawServer, Reply, Settings, TlsClient, TlsTunnel, Upstream,
    http, within,
};

async fn tunnel(gateway: &Gateway) -> TlsTunnel {
    TlsTunnel::start(gateway.addr(), TlsClient::new()).await
}

#[tokio::test]
async fn messages_of_every_size_pass() {
    let server = RawServer::start().await;
    let settings = Settings::echo(&server.url())
        .section("server.tls", &crate::rig::tls_tunnel::certificate("localhost"));
    let gateway = Gateway::start(settings).await;
    let tunnel = tunnel(&gateway).await;
    let mut client = RawClient::connect(tunnel.addr()).await;
    client.write(handshake("/echo", &[]).as_bytes()).await;
    let mut peer = server.open().await;
    assert_eq!(client.read_head().await.status, 101);
    for length in [0, 1, 125, 126, 16_379, 16_380, 16_384, 16_385, 65_536, 3 << 20] {
        let message = vec![7; length];
        let sent = binary(&message).bytes();
        let answer = crate::rig::raw_server::server_frame(0x82, &message);
        tokio::join!(
            async {
                client.write(&sent).await;
                assert!(client.next().await == Received::Binary(message.clone()), "{length}");
            },
            async {
                assert!(peer.expect(0x82).await == message, "{length}");
                peer.write(&answer).await;
            },
        );
    }
    client.send(&text("é")).await;
    assert_eq!(peer.expect(0x81).await, "é".as_bytes());
}

#[tokio::test]
async fn a_drain_and_a_close_keep_their_codes() {
    let mut gateway = start("").await;
    let tunnel = tunnel(&gateway).await;
    let (mut first, mut second) = (
        Client::open(tunnel.addr(), "/open", &[]).await,
        Client::open(tunnel.addr(), "/open", &[]).await,
    );
    let connected = first.next_event("connected").await;
    second.next_event("connected").await;
    let body = json!({"connection_id": connected["connection_id"], "code": 4444, "reason": "why"});
    let answer = gateway.api("/v1/disconnect", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(first.next().await, Event::Closed(Some(4444), "why".to_owned()));
    let stopping = gateway.stop();
    let closed = async {
        loop {
            match second.next().await {
                Event::Closed(code, _) => break code,
                Event::Lost => panic!("no close frame"),
                // `going_away` comes first.
                _ => {}
            }
        }
    };
    let (code, closed) = tokio::join!(stopping, closed);
    assert_eq!((code, closed), (Some(0), Some(1012)));
}

#[tokio::test]
async fn an_orderly_end_has_close_notify() {
    let gateway = start("").await;
    let mut stream = open(TlsClient::new().connect(gateway.addr()).await).await;
    stream.write_all(&frame::close(1000, "").bytes()).await.unwrap();
    let mut rest = Vec::new();
    // rustls reports an end without `close_notify` as an error.
    within("the end", stream.read_to_end(&mut rest)).await.expect("an orderly end");
    assert!(rest.ends_with(&[0x88, 2, 3, 232]), "{rest:?}");
}

#[tokio::test]
async fn bytes_come_one_by_one() {
    let gateway = start("").await;
    let mut stream = TlsClient::new().connect(gateway.addr()).await;
    for byte in handshake("/open", &[]).as_bytes() {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("\"connected\"") {
        assert_ne!(within("connected", stream.read_buf(&mut read)).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_record_that_was_changed_ends_the_connection() {
    let gateway = start("").await;
    let stream = open(TlsClient::new().connect(gateway.addr()).await).await;
    let (mut tcp, _) = stream.into_inner();
    tcp.write_all(&[&[23, 3, 3, 0, 32][..], &[7; 32]].concat()).await.unwrap();
    let mut rest = Vec::new();
    let _ = within("the end", tcp.read_to_end(&mut rest)).await;
    assert_eq!(rest.first(), Some(&23), "an alert, which is sealed");
    gateway.wait_for_metric("tidegate_connections", &[], 0.0).await;
}

#[tokio::test]
async fn an_end_without_close_notify_is_a_lost_connection() {
    let gateway = start("").await;
    let stream = open(TlsClient::new().connect(gateway.addr()).await).await;
    let (tcp, _) = stream.into_inner();
    drop(tcp);
    gateway.wait_for_metric("tidegate_connections", &[], 0.0).await;
    let closed = gateway.wait_for_event("connection_closed").await;
    assert!(closed.to_string().contains("lost"), "{closed}");
}

#[tokio::test]
async fn requests_are_passed_on_with_their_scheme() {
    let upstream = Upstream::start(|request| Reply::Answer {
        status: 200,
        headers: vec![("set-cookie", "a=1; Secure; HttpOnly".to_owned())],
        body: request.body.clone(),
    })
    .await;
    let settings = settings("").section("proxy", &format!("upstream = {:?}", upstream.url("")));
    let gateway = Gateway::start(settings.section("origins", "allow = [\"self\"]")).await;
    let tunnel = tunnel(&gateway).await;
    let large = vec![b'x'; 300_000];
    let headers = [("host", "app.test"), ("x-forwarded-proto", "http")];
    let answer = http::send(tunnel.addr(), "POST", "/any", &headers, large.clone().into()).await;
    assert!(answer.body == large, "{} bytes", answer.body.len());
    assert_eq!(answer.header("set-cookie"), Some("a=1; Secure; HttpOnly"));
    let request = upstream.next_request().await;
    assert_eq!(
        request.header("x-forwarded-proto"),
        Some("https"),
        "what a stranger says is replaced"
    );
    assert_eq!(request.header("x-forwarded-host"), Some("app.test"));
    let host = tunnel.addr();
    let open = async |origin: &str| Client::try_open(host, "/open", &[("origin", origin)]).await;
    assert!(open(&format!("https://{host}")).await.is_ok());
    for origin in [format!("http://{host}"), "https://127.0.0.1".into(), "https://a.test".into()] {
        let origin = origin.as_str();
        let Ok(mut closed) = open(origin).await else { panic!("accepted in order to be closed") };
        let code = loop {
            match closed.next().await {
                Event::Closed(code, _) => break code,
                Event::Lost => panic!("{origin}"),
                // What the client is told before.
                _ => {}
            }
        };
        assert_eq!(code, Some(4003), "{origin}");
    }
}
