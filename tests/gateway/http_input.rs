//! HTTP input from untrusted clients: slow, endless, malformed, pipelined, or in one piece with what follows.

use serde_json::{Value, json};

use crate::chat::{open_to_all, relayed};
use crate::outcome::Outcome::Connected;
use crate::outcome::outcome;
use crate::rig::raw::{Received, handshake};
use crate::rig::{Gateway, RawClient, Upstream, frame};

const PING: &str = r#"{"type":"ping"}"#;
const PONG: &[u8] = br#"{"event":"pong"}"#;

async fn assert_serves(gateway: &Gateway) {
    assert_eq!(outcome(gateway, "/ws/chat/42/", &[]).await, Connected);
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_not_waited_for() {
    let timeouts = "header_timeout = \"300ms\"\nkeep_alive = \"600ms\"";
    let gateway = Gateway::start(open_to_all().also("server", timeouts)).await;
    let whole = handshake("/ws/chat/42/", &[]);
    for length in [0, 1, 20, whole.len() - 2, whole.len() - 1] {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(&whole.as_bytes()[..length]).await;
        let status = client.try_read_status().await;
        assert!(matches!(status, None | Some(408)), "{status:?} after {length} bytes");
    }
    // The same holds after a request that was served.
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\nGET ").await;
    assert_eq!(read_answer(&mut client).await, 404);
    let status = client.try_read_status().await;
    assert!(matches!(status, None | Some(408)), "{status:?} in the second head");
    // The same holds where no second request follows.
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(read_answer(&mut client).await, 404);
    assert_eq!(client.try_read_status().await, None, "an idle connection");
    assert_serves(&gateway).await;
}

#[tokio::test]
async fn a_trickle_is_not_progress() {
    let gateway = Gateway::start(open_to_all().also("server", "header_timeout = \"300ms\"")).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(b"GET /ws/chat/42/ HTTP/1.1\r\n").await;
    crate::rig::until("end of a connection that sends a header now and then", async || {
        client.try_write(b"a: b\r\n").await.err()
    })
    .await;
    assert_serves(&gateway).await;
}

#[tokio::test]
async fn a_flood_of_headers_is_cut() {
    let gateway = Gateway::start(open_to_all()).await;
    let long = format!("X-Long: {}\r\n", "x".repeat(40_000));
    let many: String = (0..1000).map(|n| format!("X-{n}: 1\r\n")).collect();
    let wide: String = (0..50).map(|n| format!("X-{n}: {}\r\n", "x".repeat(1000))).collect();
    let path = format!("GET /{} HTTP/1.1\r\n", "x".repeat(40_000));
    for (case, head) in [
        ("one long header", format!("GET /ws/chat/42/ HTTP/1.1\r\n{long}\r\n")),
        ("many headers", format!("GET /ws/chat/42/ HTTP/1.1\r\n{many}\r\n")),
        ("wide headers", format!("GET /ws/chat/42/ HTTP/1.1\r\n{wide}\r\n")),
        ("a long path", format!("{path}\r\n")),
        ("no end", "x".repeat(200_000)),
    ] {
        let mut client = RawClient::connect(gateway.addr()).await;
        let _ = client.try_write(head.as_bytes()).await;
        let status = client.try_read_status().await;
        assert!(matches!(status, None | Some(400 | 414 | 431)), "{case}: {status:?}");
    }
    assert_serves(&gateway).await;
}

#[tokio::test]
async fn garbage_is_a_bad_request() {
    let gateway = Gateway::start(open_to_all()).await;
    for garbage in [
        &b"rubbish\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET /ws/chat/42/ HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(garbage).await;
        let shown = String::from_utf8_lossy(garbage);
        assert_eq!(client.try_read_status().await, Some(400), "{shown:?}");
    }
    assert_serves(&gateway).await;
}

/// The status of an answer; its body is read and ignored.
async fn read_answer(client: &mut RawClient) -> u16 {
    let head = client.read_head().await;
    let length = head.header("content-length").map_or(0, |it| it.parse().expect("a length"));
    client.read_exact(length).await;
    head.status
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_may_end_in_an_upgrade() {
    let gateway = Gateway::start(open_to_all()).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = "POST /ws/chat/42/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let nowhere = get("/nowhere");
    let all = [nowhere.as_str(), &get("/ws/chat/42/"), post, &nowhere].concat();
    client.write(all.as_bytes()).await;
    for status in [404, 426, 405, 404] {
        assert_eq!(read_answer(&mut client).await, status);
    }
    client.write(get("/ws/chat/42/").as_bytes()).await;
    assert_eq!(read_answer(&mut client).await, 426, "the connection was kept");

    let upgrade = handshake("/ws/chat/42/", &[]);
    client.write([get("/nowhere"), upgrade].concat().as_bytes()).await;
    client.write(&frame::text(PING).bytes()).await;
    assert_eq!(read_answer(&mut client).await, 404);
    assert_eq!(client.read_head().await.status, 101);
    assert!(matches!(client.next().await, Received::Text(_)), "connected");
    client.expect(Received::Text(PONG.to_vec())).await;
}

#[tokio::test]
async fn frames_right_behind_the_upgrade_are_read() {
    let upstream = Upstream::accepting().await;
    let gateway = Gateway::start(relayed(&upstream.url("/"), "auth = [\"anonymous\"]")).await;
    // This is more than the buffer that the request's head is read into.
    let large = json!({"message": "m", "more": "x".repeat(40_000)}).to_string();
    let frames =
        [frame::text(PING).bytes(), frame::text(&large).bytes(), frame::close(1000, "").bytes()]
            .concat();
    let whole = [handshake("/ws/chat/42/", &[]).into_bytes(), frames].concat();
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(&whole).await;
    assert_eq!(client.read_head().await.status, 101);
    let Received::Text(first) = client.next().await else { panic!("no connected") };
    let first: Value = serde_json::from_slice(&first).unwrap();
    assert_eq!(first["event"], "connected");
    client.expect(Received::Text(PONG.to_vec())).await;
    assert_eq!(upstream.next_request().await.json()["message"], "m");
    assert_eq!(client.read_close().await, Some(1000));
}

#[tokio::test]
async fn a_handshake_may_come_in_single_bytes_and_a_frame_in_two_parts() {
    let gateway = Gateway::start(open_to_all()).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    let ping = frame::text(PING).bytes();
    let whole = [handshake("/ws/chat/42/", &[]).into_bytes(), ping[..3].to_vec()].concat();
    client.try_write_chopped(&whole, 1).await.expect("an open connection");
    assert_eq!(client.read_head().await.status, 101);
    assert!(matches!(client.next().await, Received::Text(_)), "connected");
    client.write(&ping[3..]).await;
    client.expect(Received::Text(PONG.to_vec())).await;
}
