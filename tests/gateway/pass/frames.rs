//! Frames as they are: fragments, control frames, close codes, sizes and slow sides.

use super::{UNLIMITED, pair, pass, start};
use crate::rig::frame::{self, ServerFrame, binary, continuation, ping, pong, text};
use crate::rig::raw::Received;
use crate::rig::raw_server::server_frame;
use crate::rig::{Gateway, RawClient, RawServer};

async fn read(client: &mut RawClient) -> (bool, u8, Vec<u8>) {
    let ServerFrame { fin, compressed, opcode, payload } =
        client.read_frame().await.expect("a frame");
    assert!(!compressed, "nothing was negotiated");
    (fin, opcode, payload)
}

#[tokio::test]
async fn frames_pass_as_they_are() {
    let (_gateway, _server, mut client, mut peer) = start(UNLIMITED).await;
    let sent = [
        text("grüße"),
        binary([0, 255]),
        text("").more(),
        continuation("frag").more(),
        ping("in between"),
        continuation("ment"),
        pong("unasked"),
        // A text that is not UTF-8 is for its receiver to judge.
        text([0xff, 0xfe]),
        binary(vec![7; 70_000]),
    ];
    client.write(&frame::join(&sent)).await;
    for expected in [
        (true, 1, "grüße".as_bytes()),
        (true, 2, &[0, 255]),
        (false, 1, b""),
        (false, 0, b"frag"),
        (true, 9, b"in between"),
        (true, 0, b"ment"),
        (true, 10, b"unasked"),
        (true, 1, &[0xff, 0xfe]),
        (true, 2, &[7; 70_000]),
    ] {
        let found = peer.next().await.expect("a frame");
        assert_eq!((found.fin, found.opcode, &found.payload[..]), expected);
        assert_ne!(found.mask, [0x37, 0xfa, 0x21, 0x3d], "the client's own mask");
        let first = u8::from(expected.0) << 7 | expected.1;
        peer.send(first, expected.2).await;
        let (fin, opcode, payload) = read(&mut client).await;
        assert_eq!((fin, opcode, &payload[..]), expected);
    }
}

#[tokio::test]
async fn frames_pass_in_any_pieces() {
    let (_gateway, _server, mut client, mut peer) = start(UNLIMITED).await;
    let sent = frame::join(&[text("one"), ping("two"), binary(vec![3; 300]), text("four")]);
    let answers = [
        server_frame(0x81, b"one"),
        server_frame(0x89, b"two"),
        server_frame(0x82, &[3; 300]),
        server_frame(0x81, b"four"),
    ]
    .concat();
    for size in [1, 2, 5] {
        client.try_write_chopped(&sent, size).await.unwrap();
        for (first, payload) in
            [(0x81, &b"one"[..]), (0x89, b"two"), (0x82, &[3; 300]), (0x81, b"four")]
        {
            assert_eq!(peer.expect(first).await, payload);
        }
        for piece in answers.chunks(size) {
            peer.write(piece).await;
            tokio::task::yield_now().await;
        }
        for payload in [&b"one"[..], b"two", &[3; 300], b"four"] {
            assert_eq!(read(&mut client).await.2, payload);
        }
    }
}

#[tokio::test]
async fn frames_behind_the_handshakes_pass() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    let mut request = crate::rig::raw::handshake("/app/x", &[]).into_bytes();
    request.extend(text("early").bytes());
    client.write(&request).await;
    let mut peer = server.accept().await;
    let mut answer = peer.response(&[]).into_bytes();
    answer.extend(server_frame(0x81, b"welcome"));
    answer.extend(server_frame(0x01, b"half"));
    peer.write(&answer).await;
    assert_eq!(client.read_head().await.status, 101);
    assert_eq!(read(&mut client).await, (true, 1, b"welcome".to_vec()));
    // A fragment does not wait for the rest of its message.
    assert_eq!(read(&mut client).await, (false, 1, b"half".to_vec()));
    assert_eq!(peer.expect(0x81).await, b"early");
}

#[tokio::test]
async fn a_part_of_a_frame_does_not_wait_for_the_rest() {
    let (_gateway, _server, mut client, mut peer) = start(UNLIMITED).await;
    let sent = binary(vec![9; 100_000]).bytes();
    client.write(&sent[..50_000]).await;
    peer.skip(50_000).await;
    client.write(&sent[50_000..]).await;
    peer.skip(sent.len() - 50_000).await;
    let answer = server_frame(0x82, &[9; 100_000]);
    peer.write(&answer[..50_000]).await;
    assert_eq!(client.read_exact(50_000).await, answer[..50_000]);
    peer.write(&answer[50_000..]).await;
    assert_eq!(client.read_exact(answer.len() - 50_000).await, answer[50_000..]);
}

#[tokio::test]
async fn close_codes_and_reasons_pass_both_ways() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    for (code, reason) in [(1000, "done"), (1001, ""), (3000, "grüße"), (4999, "mine")] {
        // The client begins, and gets the upstream's own answer.
        let (mut client, mut peer) = pair(&gateway, &server).await;
        client.send(&text("last words")).await;
        client.send(&frame::close(code, reason)).await;
        assert_eq!(peer.expect(0x81).await, b"last words");
        assert_eq!(peer.expect_close().await, (code, reason.to_owned()));
        peer.send(0x81, b"mine").await;
        peer.send(0x88, &[&4001u16.to_be_bytes()[..], b"answer"].concat()).await;
        client.expect(Received::Text(b"mine".to_vec())).await;
        client.expect(Received::Close(Some(4001), b"answer".to_vec())).await;
        drop(peer);
        client.expect(Received::End).await;
        // The upstream begins, and gets the client's own answer.
        let (mut client, mut peer) = pair(&gateway, &server).await;
        peer.send(0x81, b"last words").await;
        peer.send(0x88, &[&code.to_be_bytes()[..], reason.as_bytes()].concat()).await;
        client.expect(Received::Text(b"last words".to_vec())).await;
        client.expect(Received::Close(Some(code), reason.as_bytes().to_vec())).await;
        client.send(&frame::close(4002, "answer")).await;
        assert_eq!(peer.expect_close().await, (4002, "answer".to_owned()));
        drop(peer);
        client.expect(Received::End).await;
    }
    // A close frame without a code.
    let (mut client, mut peer) = pair(&gateway, &server).await;
    client.send(&frame::frame(frame::CLOSE, "")).await;
    assert_eq!(peer.expect(0x88).await, b"");
    peer.send(0x88, b"").await;
    client.expect(Received::Close(None, Vec::new())).await;
}

#[tokio::test]
async fn a_connection_that_is_lost_is_lost_for_the_other_side() {
    let (_gateway, _server, mut client, peer) = start("").await;
    drop(peer);
    client.expect(Received::End).await;
    let (_gateway, _server, mut client, mut peer) = start("").await;
    client.send(&text("last words")).await;
    client.shutdown().await;
    assert_eq!(peer.expect(0x81).await, b"last words");
    assert_eq!(peer.next().await, None, "no close frame");
}
