//! What goes over a stream: every kind of route, compression, and TLS below it.

use bytes::Bytes;
use serde_json::json;

use super::{PATH, STREAMS, on};
use crate::chat::open_to_all;
use crate::pass::{UNLIMITED, pass};
use crate::rig::deflate::{deflate, inflate};
use crate::rig::echo::Echo;
use crate::rig::h2::{Http2, head, write_all};
use crate::rig::raw_server::server_frame;
use crate::rig::tls_tunnel::certificate;
use crate::rig::{Gateway, RawServer, Reply, Settings, TlsClient, Upstream, frame, within};

#[tokio::test]
async fn raw_routes_relay_messages_of_any_size_in_both_directions() {
    let echo = Echo::start().await;
    let gateway = Gateway::start(on(Settings::echo(&echo.url()))).await;
    let mut client = Http2::connect(gateway.addr()).await;
    let mut socket = client.open("/echo", &[("sec-websocket-protocol", "a, b")]).await.unwrap();
    for size in [0, 1, 16_000, 70_000, 1_000_000] {
        let payload: Vec<u8> = (0..size).map(|index: usize| index as u8).collect();
        socket.write_all(frame::binary(&payload).bytes().into()).await;
        let read = socket.read().await;
        assert!(read.opcode == frame::BINARY && read.payload == payload, "{size}");
    }
}

#[tokio::test]
async fn pass_routes_carry_the_upstreams_handshake_and_every_frame() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(on(pass(&server.url(), UNLIMITED))).await;
    let mut client = Http2::connect(gateway.addr()).await;
    let headers = [("sec-websocket-protocol", "chat, other"), ("x-own", "1"), ("cookie", "a=1")];
    let opening = client.open("/app/x?y=z", &headers);
    let upstream = async {
        let mut peer = server.accept().await;
        assert_eq!(peer.request, "GET /app/x?y=z HTTP/1.1");
        for (name, value) in [
            ("host", "gateway.test"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat, other"),
            ("x-own", "1"),
            ("cookie", "a=1"),
            ("via", "2 tidegate"),
        ] {
            assert_eq!(peer.header(name), Some(value), "{name}");
        }
        assert!(peer.header("sec-websocket-key").is_some(), "the gateway's own");
        let more = [("sec-websocket-protocol", "other"), ("x-answer", "2")];
        let response = peer.response(&more);
        peer.write(response.as_bytes()).await;
        peer
    };
    let (opened, mut peer) = tokio::join!(opening, upstream);
    let mut socket = opened.unwrap();
    for (name, value) in [("sec-websocket-protocol", "other"), ("x-answer", "2")] {
        assert_eq!(socket.headers[name], value);
    }
    let large = vec![7; 300_000];
    let sent = [frame::text("part").more(), frame::continuation("s"), frame::ping("p")];
    socket.write_all(frame::join(&sent).into()).await;
    for (first, payload) in [(0x01, "part"), (0x80, "s"), (0x89, "p")] {
        assert_eq!(peer.expect(first).await, payload.as_bytes());
    }
    let from_client = async {
        socket.write_all(frame::binary(&large).bytes().into()).await;
        assert!(socket.read().await.payload == large);
        socket.read().await
    };
    let from_upstream = async {
        assert!(peer.expect(0x82).await == large);
        peer.write(&server_frame(0x82, &large)).await;
        peer.write(&server_frame(0x88, b"\x0f\xa3bye")).await;
    };
    let (closed, ()) = tokio::join!(from_client, from_upstream);
    assert_eq!((closed.opcode, &closed.payload[..]), (frame::CLOSE, &b"\x0f\xa3bye"[..]));
    // A refusal of the upstream is what the client gets.
    let (opened, ()) = tokio::join!(client.open("/app/y", &[]), async {
        let mut peer = server.accept().await;
        peer.write(b"HTTP/1.1 402 Pay\r\nx-why: unpaid\r\ncontent-length: 2\r\n\r\nno").await;
    });
    let refused = opened.err().unwrap();
    assert_eq!((refused.status, refused.header("x-why")), (402, Some("unpaid")));
}

/// The answer comes although the gateway does not read what it refuses.
#[tokio::test]
async fn an_upload_that_is_refused_has_its_answer() {
    let settings = open_to_all().route("path = \"/fixed\"\nreply = '\"fixed\"'");
    let gateway = Gateway::start(on(settings)).await;
    let mut client = Http2::connect(gateway.addr()).await;
    for path in ["/fixed", "/elsewhere", PATH] {
        let request = head("POST", path, &[]).body(()).unwrap();
        let (mut send, response) = client.begin(request, false).await.unwrap();
        // As much as the gateway lets a client send before it is read.
        send.send_data(vec![b'x'; 60_000].into(), false).unwrap();
        let response = within("a response", response).await.unwrap();
        assert!(response.status().is_client_error(), "{path}: {response:?}");
        let body = within("a body", response.into_body().data()).await.unwrap().unwrap();
        assert!(body.starts_with(b"{"), "{path}: {body:?}");
    }
    client.open(PATH, &[]).await.unwrap().expect_text("connected").await;
}

#[tokio::test]
async fn compression_is_agreed_on_by_each_stream() {
    let settings = open_to_all().each_route(|route| format!("compression = \"deflate\"\n{route}"));
    let gateway = Gateway::start(on(settings)).await;
    let mut client = Http2::connect(gateway.addr()).await;
    let mut plain = client.open(PATH, &[]).await.unwrap();
    assert!(!plain.headers.contains_key("sec-websocket-extensions"));
    let offer = [("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")];
    let mut compressed = client.open(PATH, &offer).await.unwrap();
    let agreed = compressed.headers["sec-websocket-extensions"].to_str().unwrap().to_owned();
    assert!(agreed.starts_with("permessage-deflate; server_no_context_takeover"), "{agreed}");
    for socket in [&mut plain, &mut compressed] {
        socket.expect_text("connected").await;
    }
    let ping = json!({"type": "ping", "padding": "many words ".repeat(100)}).to_string();
    compressed.write(&frame::text(deflate(ping.as_bytes())).rsv(4));
    compressed.expect_text("pong").await;
    let text = "news of the day ".repeat(200);
    gateway.publish("chat_1", json!({"event": "news", "text": text})).await;
    plain.expect_text(&text).await;
    let read = compressed.read().await;
    assert!(read.compressed && read.payload.len() < text.len() / 4);
    assert!(String::from_utf8(inflate(&read.payload)).unwrap().contains(&text));
    let inflates = "tidegate_compression_frames_total";
    let taken = [("direction", "in"), ("outcome", "done")];
    assert_eq!(gateway.metric(inflates, &taken).await, 1.0);
}

#[tokio::test]
async fn clients_choose_it_in_the_tls_handshake() {
    let settings = open_to_all().section("server.tls", &certificate("localhost"));
    let gateway = Gateway::start(on(settings)).await;
    for (offered, chosen) in
        [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1", "h2"], "h2"), (&["http/1.1"], "http/1.1")]
    {
        let stream = TlsClient::new().with_protocols(offered).connect(gateway.addr()).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(chosen.as_bytes()), "{offered:?}");
    }
    let tls = TlsClient::new().with_protocols(&["h2"]).connect(gateway.addr()).await;
    let mut client = Http2::on(tls).await;
    let (mut first, mut second) =
        (client.open(PATH, &[]).await.unwrap(), client.open(PATH, &[]).await.unwrap());
    gateway.wait_for_metric("tidegate_connections", &[], 2.0).await;
    let text = "x".repeat(100_000);
    gateway.publish("chat_1", json!({"event": "news", "text": text})).await;
    for socket in [&mut first, &mut second] {
        socket.expect_text("connected").await;
        socket.expect_text(&text).await;
        socket.write(&frame::close(1000, ""));
        assert_eq!(socket.read().await.opcode, frame::CLOSE);
    }
    assert_eq!(gateway.metric(STREAMS, &[("kind", "connect")]).await, 2.0);
    gateway.wait_for_metric("tidegate_connections", &[], 0.0).await;
    assert_eq!(client.request("GET", PATH, &[], b"").await.status, 426);
}

#[tokio::test]
async fn plain_requests_go_to_the_proxy() {
    let upstream = Upstream::start(|request| match request.method.as_str() {
        "POST" => Reply::Answer {
            status: 201,
            headers: vec![("connection", "close".into()), ("x-own", "1".into())],
            body: request.body.clone(),
        },
        _ => Reply::status(204),
    })
    .await;
    let settings =
        on(open_to_all()).section("proxy", &format!("upstream = {:?}", upstream.url("")));
    let gateway = Gateway::start(settings).await;
    let mut client = Http2::connect(gateway.addr()).await;
    let body = vec![b'x'; 200_000];
    let mut uploads = client
        .request("POST", "/upload?x=1", &[("cookie", "a=1"), ("cookie", "b=2")], b"small")
        .await;
    assert_eq!((uploads.status, uploads.body.as_slice()), (201, &b"small"[..]));
    assert_eq!((uploads.header("x-own"), uploads.header("connection")), (Some("1"), None));
    let request = upstream.next_request().await;
    assert_eq!(request.path, "/upload?x=1");
    for (name, value) in [
        ("host", "gateway.test"),
        ("cookie", "a=1; b=2"),
        ("via", "2 tidegate"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "gateway.test"),
        ("x-forwarded-proto", "http"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    uploads = client.request("GET", "/", &[], b"").await;
    assert_eq!(uploads.status, 204);
    assert_eq!(gateway.metric(STREAMS, &[("kind", "request")]).await, 2.0);
    // A response larger than all windows.
    upstream.next_request().await;
    let (mut send, response) =
        client.begin(head("POST", "/large", &[]).body(()).unwrap(), false).await.unwrap();
    write_all(&mut send, &mut body.clone().into(), true).await;
    let mut stream = within("a response", response).await.unwrap().into_body();
    let mut read = 0;
    while let Some(data) = within("a body", stream.data()).await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        read += data.len();
    }
    assert_eq!(read, body.len());
}

/// Each socket of a connection is served in its turn, also beside one that is written to all the time.
#[tokio::test]
async fn a_busy_socket_leaves_room_for_the_others() {
    let echo = Echo::start().await;
    let gateway = Gateway::start(on(Settings::echo(&echo.url()))).await;
    let mut client = Http2::connect(gateway.addr()).await;
    let mut busy = client.open("/echo", &[]).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..100 {
        others.push(client.open("/small", &[]).await.unwrap());
    }
    let busy = tokio::spawn(async move {
        // Until the end of the test: a message of a megabyte at a time, back and forth.
        let message = Bytes::from(frame::binary(vec![7; 1 << 20]).bytes());
        loop {
            busy.write_all(message.clone()).await;
            busy.read().await;
        }
    });
    for round in 0..5 {
        for socket in &mut others {
            socket.write(&frame::text(format!("round {round}")));
        }
        for socket in &mut others {
            socket.expect_text(&format!("round {round}")).await;
        }
        assert!(!busy.is_finished(), "the busy one goes on as well");
    }
    busy.abort();
}
