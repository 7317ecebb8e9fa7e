//! Section 7: the closing handshake.

use super::super::rig::frame::{
    CLOSE, ClientFrame, close, continuation, frame, join, ping, pong, text,
};
use super::super::rig::raw::Received;
use super::{Case, INVALID_UTF8, PROTOCOL_ERROR, Target, echoed, run};

/// Sends `frames`, and expects one close frame with `code` and then the end of the connection.
async fn expect_closed(target: &Target, name: &str, frames: &[ClientFrame], code: u16) {
    println!("{name}");
    let mut client = target.open().await;
    client.write(&join(frames)).await;
    assert_eq!(client.read_close().await, Some(code));
}

#[tokio::test]
async fn a_close_is_echoed() {
    let target = Target::start().await;
    // IANA's registry (RFC 6455 section 7.4.1 and later), then the two ranges of section 7.4.2.
    let registered = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    for code in registered.into_iter().chain([3000, 3999, 4000, 4999]) {
        expect_closed(&target, &format!("close {code}"), &[close(code, "")], code).await;
    }
    expect_closed(&target, "with a reason", &[close(1000, "Hello World!")], 1000).await;
    expect_closed(&target, "with the longest reason", &[close(1000, [b'*'; 123])], 1000).await;
    expect_closed(&target, "with a reason of two bytes a letter", &[close(1000, "κόσμε")], 1000)
        .await;
}

#[tokio::test]
async fn a_close_without_a_code_is_answered() {
    let target = Target::start().await;
    let mut client = target.open().await;
    client.send(&frame(CLOSE, "")).await;
    assert!(matches!(client.read_close().await, None | Some(1000)));
}

#[tokio::test]
async fn a_message_before_the_close_is_echoed_before_it() {
    let target = Target::start().await;
    let mut client = target.open().await;
    client.send(&text("Hello World!")).await;
    client.expect(echoed("Hello World!")).await;
    client.send(&close(1000, "")).await;
    assert_eq!(client.read_close().await, Some(1000));
}

#[tokio::test]
async fn what_follows_a_close_is_ignored() {
    let target = Target::start().await;
    let bye = close(1000, "");
    let unfinished = text("fragment1").more();
    expect_closed(&target, "a second close", &[bye.clone(), close(1001, "")], 1000).await;
    expect_closed(&target, "a ping", &[bye.clone(), ping("")], 1000).await;
    expect_closed(&target, "a message", &[bye.clone(), text("Hello World!")], 1000).await;
    expect_closed(&target, "an error", &[bye.clone(), text("").rsv(7), pong("")], 1000).await;
    expect_closed(
        &target,
        "a message's rest",
        &[unfinished, bye.clone(), continuation("fragment2")],
        1000,
    )
    .await;
    expect_closed(&target, "256 KiB", &[bye, text(vec![b'*'; 256 << 10])], 1000).await;
}

#[tokio::test]
async fn wrong_close_frames_are_protocol_errors() {
    let target = Target::start().await;
    let reserved = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
    for code in reserved {
        for reason in ["", "Bad code"] {
            Case::new(format!("close {code}"), &[close(code, reason)], PROTOCOL_ERROR)
                .run(&target)
                .await;
        }
    }
    run(
        &target,
        [
            Case::new("one byte", &[frame(CLOSE, [3])], PROTOCOL_ERROR),
            Case::new("126 bytes", &[close(1000, [b'*'; 124])], PROTOCOL_ERROR),
            Case::new("not final", &[close(1000, "").more()], PROTOCOL_ERROR),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_reason_is_utf8() {
    let target = Target::start().await;
    let reasons: [&[u8]; 4] = [
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64",
        b"\xff",
        b"ends inside a letter \xce",
        b"\xc0\x80",
    ];
    for reason in reasons {
        Case::new("invalid reason", &[close(1000, reason)], INVALID_UTF8).run(&target).await;
    }
}

#[tokio::test]
async fn a_large_message_and_its_close_may_come_together() {
    let target = Target::start().await;
    let mut client = target.open().await;
    let large = vec![b'*'; 256 << 10];
    client.write(&join(&[text(&large), close(1000, ""), ping("")])).await;
    // Informational in the suite: the echo may be overtaken by the close, but nothing else may come.
    match client.next().await {
        Received::Text(echo) => {
            assert_eq!(echo, large);
            assert_eq!(client.read_close().await, Some(1000));
        }
        Received::Close(code, _) => {
            assert_eq!(code, Some(1000));
            client.expect(Received::End).await;
        }
        _ => panic!("neither the echo nor the close"),
    }
}

#[tokio::test]
async fn a_client_that_ends_without_a_close_ends_its_connection() {
    let target = Target::start().await;
    for before in [&[][..], &text("fragment1").more().bytes(), &[0x81]] {
        let mut client = target.open().await;
        client.write(before).await;
        client.shutdown().await;
        match client.next().await {
            Received::Close(..) => client.expect(Received::End).await,
            Received::End => {}
            _ => panic!("neither a close nor the end"),
        }
    }
}
