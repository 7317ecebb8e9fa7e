//! Every frame is charged, and after the close frame nothing is parsed.

use super::{BEHIND_PROXY, others_are_served, send_and_receive};
use crate::chat::{open_to_all, relayed};
use crate::rig::echo::Echo;
use crate::rig::frame::{self, ClientFrame};
use crate::rig::raw::Received;
use crate::rig::{Gateway, RawClient, Settings, Upstream, until};

/// Frames that are no messages, none of which was counted once: what a flooder sends first, and what it repeats.
fn floods() -> [(&'static str, Vec<u8>, Vec<u8>); 6] {
    let first = |frame: ClientFrame| frame.more().bytes();
    [
        ("pongs", Vec::new(), frame::pong("").bytes()),
        ("pongs with payload", Vec::new(), frame::pong([b'x'; 125]).bytes()),
        ("pings", Vec::new(), frame::ping("").bytes()),
        ("empty fragments", first(frame::text("a")), first(frame::continuation(""))),
        ("small fragments", first(frame::text("a")), first(frame::continuation("b"))),
        (
            "pongs between fragments",
            first(frame::text("a")),
            [first(frame::continuation("")), frame::pong("").bytes()].concat(),
        ),
    ]
}

/// Sends `frames` until the connection breaks. Returns the close code.
async fn flood(client: &mut RawClient, first: &[u8], frames: &[u8]) -> Option<u16> {
    client.write(first).await;
    let block = frames.repeat(10_000);
    // The connection is closed before all of it is sent: 160 MB are more than a closed connection discards.
    let most = (160 << 20) / block.len();
    let mut is_cut_off = false;
    for _ in 0..most {
        if client.try_write(&block).await.is_err() {
            is_cut_off = true;
            break;
        }
    }
    assert!(is_cut_off, "a flooder is read on after its close frame");
    loop {
        match client.next().await {
            Received::Close(code, _) => return code,
            Received::Pong(_) | Received::Text(_) => {}
            // A connection with unread bytes is reset, and the reset may overtake the close frame.
            Received::End => return None,
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until `count` connections were closed because they flooded.
async fn wait_for_floods(gateway: &Gateway, count: usize) {
    until("closed flooders", async || {
        let closed = gateway.log_events("connection_closed");
        let floods = closed.iter().filter(|closed| closed["code"] == 1008);
        (floods.count() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_frames_that_are_no_messages_is_closed_and_cut_off() {
    let upstream = Upstream::accepting().await;
    let settings = relayed(&upstream.url("/"), "auth = [\"anonymous\"]");
    let gateway = Gateway::start(settings.section("server", BEHIND_PROXY)).await;
    for (count, (name, first, frames)) in (1..).zip(floods()) {
        let mut client = RawClient::open(gateway.addr(), "/ws/chat/42/").await;
        client.expect_text("connected").await;
        let code = flood(&mut client, &first, &frames).await;
        assert!(matches!(code, Some(1008) | None), "{name}: {code:?}");
        wait_for_floods(&gateway, count).await;
    }
    let refused = [("limit", "frames_per_connection")];
    assert!(gateway.metric("tidegate_limit_refusals_total", &refused).await >= 5.0);
    others_are_served(&gateway, async |client, number| {
        send_and_receive(&gateway, client, number).await;
    })
    .await;
}

#[tokio::test]
async fn a_flood_on_a_bridged_route_is_closed_and_cut_off() {
    let echo = Echo::start().await;
    let settings = Settings::new()
        .upstream("echo", &format!("kind = \"websocket\"\nurl = {:?}", echo.url()))
        .route(
            "path = \"/small\"\nchannel = \"echo\"\nupstream = \"echo\"\nauth = [\"anonymous\"]\n\
             protocol = \"raw\"",
        );
    let gateway = Gateway::start(settings).await;
    for (count, (name, first, frames)) in (1..).zip(floods()) {
        let mut client = RawClient::open(gateway.addr(), "/small").await;
        let code = flood(&mut client, &first, &frames).await;
        assert!(matches!(code, Some(1008) | None), "{name}: {code:?}");
        wait_for_floods(&gateway, count).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_on_after_another_close_is_cut_off() {
    let gateway = Gateway::start(open_to_all()).await;
    for (number, frames) in
        [frame::text("{}"), frame::ping(""), frame::binary([0; 60_000])].iter().enumerate()
    {
        let mut client = RawClient::open(gateway.addr(), "/ws/chat/42/").await;
        client.expect_text("connected").await;
        // Binary messages are refused with 1003, which the client never answers.
        client.send(&frame::binary("no")).await;
        client
            .expect(Received::Close(Some(1003), b"binary messages are not accepted".to_vec()))
            .await;
        let block = frames.bytes().repeat(300);
        let mut is_cut_off = false;
        for _ in 0..200_000 {
            if client.try_write(&block).await.is_err() {
                is_cut_off = true;
                break;
            }
        }
        assert!(is_cut_off, "flood {number}");
    }
}

#[tokio::test]
async fn honest_clients_do_not_meet_the_rate_of_frames() {
    let upstream = Upstream::accepting().await;
    let limits = "auth = [\"anonymous\"]\n[route.limits]\nmessages_per_connection = \"off\"";
    let gateway = Gateway::start(relayed(&upstream.url("/"), limits)).await;
    let mut client = RawClient::open(gateway.addr(), "/ws/chat/42/").await;
    client.expect_text("connected").await;
    // A large message in many fragments, with a pong after each: 12,000 frames.
    let filler = "x".repeat(60_000);
    for id in 0..10 {
        let message = format!(r#"{{"message":"hello","id":"{id}","filler":"{filler}"}}"#);
        let fragments = frame::fragmented(frame::TEXT, message.as_bytes(), 100);
        client.write(&frame::join(&fragments)).await;
        client.expect_text("task_queued").await;
    }
    // A message written character by character, and a client that answers pings that nobody sent.
    let message = format!(r#"{{"message":"hello","id":"z","filler":"{}"}}"#, "x".repeat(500));
    for fragment in frame::fragmented(frame::TEXT, message.as_bytes(), 1) {
        client.write(&[fragment.bytes(), frame::pong("").bytes()].concat()).await;
    }
    client.expect_text("task_queued").await;
    client.send(&frame::close(1000, "")).await;
    assert_eq!(client.read_close().await, Some(1000));
}
