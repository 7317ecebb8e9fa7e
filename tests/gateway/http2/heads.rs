//! Heads of requests, and what is not HTTP/2.

use super::{PATH, on};
use crate::chat::open_to_all;
use crate::rig::h2::{Http2, connect, head};
use crate::rig::{Gateway, RawClient, http, until, within};

#[tokio::test]
async fn heads_that_are_no_websockets_are_answered_by_their_kind() {
    let gateway = Gateway::start(on(open_to_all())).await;
    let mut client = Http2::connect(gateway.addr()).await;
    for (request, status, code) in [
        (connect(PATH, "webtransport", &[]), 501, "protocol"),
        (connect(PATH, "connect-udp", &[]), 501, "protocol"),
        (connect(PATH, "websocket", &[("host", "evil.test")]), 400, "host"),
        (head("GET", "/", &[("host", "evil.test")]).body(()).unwrap(), 400, "host"),
    ] {
        let shown = format!("{request:?}");
        let (_send, response) = client.begin(request, false).await.unwrap();
        let response = within("a response", response).await.unwrap();
        assert_eq!(response.status(), status, "{shown}");
        let mut body = response.into_body();
        let data = within("a body", body.data()).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&data).contains(code), "{shown}: {data:?}");
    }
    let mut tunnel = hyper::Request::new(());
    *tunnel.method_mut() = hyper::Method::CONNECT;
    *tunnel.uri_mut() = "gateway.test:443".parse().unwrap();
    let (_send, response) = client.begin(tunnel, false).await.unwrap();
    assert_eq!(within("a response", response).await.unwrap().status(), 501);
    // An old version, and none.
    for version in [Some("8"), None] {
        let mut request = connect(PATH, "websocket", &[]);
        request.headers_mut().remove("sec-websocket-version");
        if let Some(version) = version {
            request.headers_mut().insert("sec-websocket-version", version.parse().unwrap());
        }
        let (_send, response) = client.begin(request, false).await.unwrap();
        let response = within("a response", response).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["sec-websocket-version"]),
            (426, &"13".parse().unwrap())
        );
    }
    // A plain request of a route's path.
    let plain = client.request("GET", PATH, &[], b"").await;
    assert_eq!(plain.status, 426);
    client.open(PATH, &[]).await.unwrap().expect_text("connected").await;
}

#[tokio::test]
async fn http_1_goes_on_beside_it_and_alone_by_default() {
    let gateway = Gateway::start(on(open_to_all())).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    // Its first bytes might be those of the preface.
    for piece in ["P", "R", "I * HTTP/1.1\r\nhost: a\r\n\r\n"] {
        client.write(piece.as_bytes()).await;
        tokio::task::yield_now().await;
    }
    let head = client.read_head().await;
    assert_eq!(head.status, 400, "{head:?}");
    let answer = http::send(gateway.addr(), "PUT", "/", &[], "x".into()).await;
    assert_eq!(answer.status, 404);
    RawClient::open(gateway.addr(), PATH).await.expect_text("connected").await;
    let plain = Gateway::start(open_to_all()).await;
    let mut client = RawClient::connect(plain.addr()).await;
    client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let refused = client.read_to_end().await;
    assert!(!refused.contains(&0), "{refused:?}");
    until("the counter", async || {
        (plain.metric("tidegate_http_errors_total", &[]).await >= 1.0).then_some(())
    })
    .await;
}

/// Frames that no client library sends: each ends its stream or the connection, and no panic.
#[tokio::test]
async fn malformed_heads_reset_their_stream() {
    let gateway = Gateway::start(on(open_to_all())).await;
    let pseudo =
        [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")];
    let without = |name: &str| -> Vec<(&str, &str)> {
        pseudo.iter().copied().filter(|(other, _)| *other != name).collect()
    };
    let with = |more: (&'static str, &'static str)| [&pseudo[..], &[more]].concat();
    for fields in [
        without(":path"),
        without(":scheme"),
        without(":method"),
        with(("Upper", "case")),
        with(("connection", "close")),
        with(("transfer-encoding", "chunked")),
        with(("te", "gzip")),
        with((":status", "200")),
        with((":path", "/again")),
        [&[("x", "1")][..], &pseudo].concat(),
    ] {
        let mut client = RawClient::connect(gateway.addr()).await;
        let mut block = Vec::new();
        for (name, value) in &fields {
            // A literal without indexing and with a new name (RFC 7541 section 6.2.2).
            block.extend_from_slice(&[0, name.len() as u8]);
            block.extend_from_slice(name.as_bytes());
            block.push(value.len() as u8);
            block.extend_from_slice(value.as_bytes());
        }
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let headers = [&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1][..], &block].concat();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        client.write(&[&preface[..], &settings, &headers].concat()).await;
        // RST_STREAM or GOAWAY, and no HEADERS.
        loop {
            let head = client.read_exact(9).await;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            client.read_exact(length).await;
            assert_ne!(head[3], 1, "{fields:?} is answered");
            if matches!(head[3], 3 | 7) {
                break;
            }
        }
    }
    let mut client = Http2::connect(gateway.addr()).await;
    client.open(PATH, &[]).await.unwrap().expect_text("connected").await;
}
