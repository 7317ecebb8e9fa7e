//! Section 2: pings and pongs.

use super::super::rig::frame::{PING, PONG, continuation, frame, ping, pong, text};
use super::super::rig::raw::Received;
use super::{Case, End, PROTOCOL_ERROR, Target, echoed, run};

#[tokio::test]
async fn pings_are_answered_with_their_payload() {
    let target = Target::start().await;
    let binary = [0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];
    let longest = [0xfe; 125];
    for payload in [&b""[..], b"Hello, world!", &binary, &longest] {
        let name = format!("ping of {} bytes", payload.len());
        let case = Case::new(name, &[ping(payload)], End::Open);
        case.answers([Received::Pong(payload.into())]).run(&target).await;
    }
    let tens: Vec<String> = (0..10).map(|n| format!("payload-{n}")).collect();
    let frames: Vec<_> = tens.iter().map(ping).collect();
    let pongs: Vec<_> = tens.iter().map(|payload| Received::Pong(payload.clone().into())).collect();
    Case::new("10 pings", &frames, End::Open).answers(pongs).run(&target).await;
}

#[tokio::test]
async fn pongs_nobody_asked_for_are_ignored() {
    let target = Target::start().await;
    let unsolicited = [pong(""), pong("unsolicited pong payload"), ping("ping payload")];
    run(
        &target,
        [
            Case::new("an empty pong", &unsolicited[..1], End::Open),
            Case::new("a pong with payload", &unsolicited[1..2], End::Open),
            Case::new("a pong, then a ping", &unsolicited[1..], End::Open)
                .answers([Received::Pong(b"ping payload".into())]),
            Case::new("a pong of 125", &[pong([0x80; 125])], End::Open),
        ],
    )
    .await;
}

#[tokio::test]
async fn control_frames_are_short_and_whole() {
    let target = Target::start().await;
    let long = [0xfe; 126];
    run(
        &target,
        [
            Case::new("ping of 126", &[ping(long)], PROTOCOL_ERROR),
            Case::new("pong of 126", &[pong(long)], PROTOCOL_ERROR),
            Case::new("ping of 65536", &[ping([0; 65_536])], PROTOCOL_ERROR),
            Case::new("ping that says 2^40", &[ping("").declaring(1 << 40)], PROTOCOL_ERROR),
            Case::new("long form", &[ping("a").two_byte_length()], PROTOCOL_ERROR),
            Case::new(
                "fragmented ping",
                &[frame(PING, "fragment1").more(), continuation("fragment2")],
                PROTOCOL_ERROR,
            ),
            Case::new(
                "fragmented pong",
                &[frame(PONG, "fragment1").more(), continuation("fragment2")],
                PROTOCOL_ERROR,
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_long_ping_is_refused_by_its_head_alone() {
    let target = Target::start().await;
    let mut client = target.open().await;
    // Two bytes: FIN and ping, then the mask bit and "the length follows".
    client.write(&[0x89, 0xfe]).await;
    assert_eq!(client.read_close().await, Some(1002));
}

#[tokio::test]
async fn a_message_after_pings_is_still_a_message() {
    let target = Target::start().await;
    let mut client = target.open().await;
    client.send(&ping("first")).await;
    client.expect(Received::Pong(b"first".into())).await;
    client.send(&text("then this")).await;
    client.expect(echoed("then this")).await;
    super::close_normally(client).await;
}
