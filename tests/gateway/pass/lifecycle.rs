//! Connections of pass routes in the rest of the gateway: channels, presence, lists, disconnects, heartbeats and drains.

use std::cell::Cell;

use serde_json::{Value, json};

use super::{UNLIMITED, pair, pass, start};
use crate::rig::frame::{self, binary, continuation, ping, pong, text};
use crate::rig::raw::{Received, handshake};
use crate::rig::raw_server::server_frame;
use crate::rig::{API_KEY, Gateway, RawClient, RawPeer, RawServer, Settings, http, until};

const CHANNEL: &str = "channel = \"app_{name}\"\npresence = \"on\"";

/// One thread, which serves every connection in turn.
fn one_thread(settings: Settings) -> Settings {
    settings.section("server", "listen = \"127.0.0.1:0\"\nthreads = 1")
}

async fn list(gateway: &Gateway, path: &str) -> Value {
    let key = [("authorization", &*format!("Bearer {API_KEY}"))];
    http::send(gateway.admin(), "GET", path, &key, "".into()).await.json()
}

#[tokio::test]
async fn a_publication_comes_between_two_messages() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(one_thread(pass(&server.url(), CHANNEL))).await;
    let (mut client, mut peer) = pair(&gateway, &server).await;
    let (mut other, mut other_peer) = pair(&gateway, &server).await;
    // What passes shows that the connection has joined its channel.
    for (client, peer) in [(&mut client, &mut peer), (&mut other, &mut other_peer)] {
        peer.send(0x81, b"welcome").await;
        client.expect_text("welcome").await;
    }
    gateway.publish("app_x", json!({"number": 1})).await;
    client.expect_text("{\"number\":1}").await;
    other.expect_text("{\"number\":1}").await;

    // Inside a message, even between two of its fragments, nothing is put.
    peer.send(0x01, b"one ").await;
    assert_eq!(client.read_frame().await.expect("a fragment").payload, b"one ");
    gateway.publish("app_x", json!({"number": 2})).await;
    // The other client has it, so it has come to the first as well.
    other.expect_text("{\"number\":2}").await;
    peer.send(0x80, b"message").await;
    let end = client.read_frame().await.expect("a fragment");
    assert_eq!((end.fin, end.opcode, &end.payload[..]), (true, 0, &b"message"[..]));
    client.expect_text("{\"number\":2}").await;

    // Nor inside a frame.
    let message = server_frame(0x82, &[7; 1000]);
    peer.write(&message[..500]).await;
    assert_eq!(client.read_exact(500).await, message[..500]);
    gateway.publish("app_x", json!({"number": 3})).await;
    other.expect_text("{\"number\":3}").await;
    peer.write(&message[500..]).await;
    assert_eq!(client.read_exact(message.len() - 500).await, message[500..]);
    client.expect_text("{\"number\":3}").await;
    // The upstream gets none of them.
    client.send(&text("last")).await;
    assert_eq!(peer.expect(0x81).await, b"last");
}

#[tokio::test]
async fn presence_and_lists_know_the_connection() {
    let (gateway, _server, mut client, mut peer) = start(CHANNEL).await;
    let members = until("a member", async || {
        let members = list(&gateway, "/v1/channels/app_x/presence").await;
        (members["total_connections"] == 1).then_some(members)
    })
    .await;
    let listed = list(&gateway, "/v1/connections?channel=app_x").await;
    let id = &listed["connections"][0]["connection_id"];
    assert_eq!(members["connections"][0]["connection_id"], *id, "{members}");
    assert_eq!(peer.header("x-tidegate-connection-id"), id.as_str());
    assert_eq!(peer.header("x-tidegate-channel"), Some("app_x"));
    // A server closes the channel's connections: both sides get its code.
    let command = json!({"channel": "app_x", "code": 4100, "reason": "over"});
    assert_eq!(gateway.api("/v1/disconnect", command).await.status, 200);
    assert_eq!(peer.expect_close().await, (4100, "over".to_owned()));
    assert_eq!(client.read_close().await, Some(4100));
    gateway.wait_for_metric("tidegate_connections", &[("route", "/app/{name}")], 0.0).await;
}

#[tokio::test]
async fn a_close_of_the_gateway_comes_after_the_frame_that_is_being_sent() {
    let (gateway, server, mut client, mut peer) = start("").await;
    let message = server_frame(0x82, &[7; 1000]);
    peer.write(&message[..500]).await;
    assert_eq!(client.read_exact(500).await, message[..500]);
    let listed = list(&gateway, "/v1/connections").await;
    let id = &listed["connections"][0]["connection_id"];
    let command = json!({"connection_id": id, "code": 4100, "reason": "over"});
    assert_eq!(gateway.api("/v1/disconnect", command).await.json()["closed"], 1);
    peer.write(&message[500..]).await;
    assert_eq!(client.read_exact(message.len() - 500).await, message[500..]);
    assert_eq!(client.read_close().await, Some(4100));
    assert_eq!(peer.expect_close().await.0, 4100);

    // If the frame never ends, there is no place for a close frame.
    let (mut client, mut peer) = pair(&gateway, &server).await;
    peer.write(&message[..500]).await;
    assert_eq!(client.read_exact(500).await, message[..500]);
    let id = peer.header("x-tidegate-connection-id").expect("an id").to_owned();
    let command = json!({"connection_id": id, "code": 4100});
    assert_eq!(gateway.api("/v1/disconnect", command).await.json()["closed"], 1);
    drop(peer);
    client.expect(Received::End).await;
}

#[tokio::test]
async fn a_users_connections_are_limited_and_closed_without_a_channel() {
    let server = RawServer::start().await;
    let limited = "[route.limits]\nconnections_per_user = 1";
    let gateway = Gateway::start(pass(&server.url(), limited)).await;
    let path = async || {
        let token = gateway.token(json!({"user_id": 7})).await;
        format!("/app/x?connection_token={token}")
    };
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(handshake(&path().await, &[]).as_bytes()).await;
    let mut peer = server.open().await;
    assert_eq!(client.read_head().await.status, 101);
    let mut second = RawClient::connect(gateway.addr()).await;
    second.write(handshake(&path().await, &[]).as_bytes()).await;
    assert_eq!(second.read_head().await.status, 429);
    assert_eq!(gateway.api("/v1/disconnect", json!({"user_id": 7})).await.json()["closed"], 1);
    assert_eq!(peer.expect_close().await.0, 4001);
    assert_eq!(client.read_close().await, Some(4001));
    // A place that an upstream refused is free again.
    for _ in 0..3 {
        let mut client = until("a free place", async || {
            let mut client = RawClient::connect(gateway.addr()).await;
            client.write(handshake(&path().await, &[]).as_bytes()).await;
            let mut peer = tokio::select! {
                peer = server.accept() => peer,
                head = client.read_head() => {
                    assert_eq!(head.status, 429);
                    return None;
                }
            };
            peer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
            Some(client)
        })
        .await;
        assert_eq!(client.read_head().await.status, 403);
    }
}

#[tokio::test]
async fn credentials_for_some_channels_open_no_route_without_one() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    for (channels, status) in [(json!(["app_*"]), 403), (json!(["*"]), 101), (json!(null), 101)] {
        let token = gateway.token(json!({"user_id": 7, "channels": channels})).await;
        let mut client = RawClient::connect(gateway.addr()).await;
        let path = format!("/app/x?connection_token={token}");
        client.write(handshake(&path, &[]).as_bytes()).await;
        let _peer = if status == 101 { Some(server.open().await) } else { None };
        assert_eq!(client.read_head().await.status, status, "{channels}");
    }
}

#[tokio::test]
async fn a_draining_gateway_closes_both_sides_with_1012() {
    let (mut gateway, _server, mut client, mut peer) = start("").await;
    let stopping = gateway.stop();
    let closing = async {
        assert_eq!(peer.expect_close().await.0, 1012);
        assert_eq!(client.read_close().await, Some(1012));
        drop(client);
        // The upstream does not answer, which delays nobody.
    };
    let (code, ()) = tokio::join!(stopping, closing);
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn the_gateways_heartbeat_is_its_own() {
    let (_gateway, _server, mut client, mut peer) =
        start("idle_ping = \"200ms\"\npong_timeout = \"30s\"").await;
    client.expect(Received::Ping(b"tidegate".to_vec())).await;
    client.send(&pong("tidegate")).await;
    // The same pong unasked is the upstream's.
    client.send(&pong("tidegate")).await;
    client.send(&text("after")).await;
    assert_eq!(peer.expect(0x8a).await, b"tidegate");
    assert_eq!(peer.expect(0x81).await, b"after");
    // Those of the upstream are the client's.
    peer.send(0x89, b"who?").await;
    loop {
        match client.next().await {
            Received::Ping(payload) if payload == b"tidegate" => {}
            received => {
                assert_eq!(received, Received::Ping(b"who?".to_vec()));
                break;
            }
        }
    }
    client.send(&pong("who?")).await;
    assert_eq!(peer.expect(0x8a).await, b"who?");
}

#[tokio::test]
async fn who_cannot_answer_a_ping_is_not_closed_for_it() {
    let server = RawServer::start().await;
    let more = format!("idle_ping = \"100ms\"\npong_timeout = \"100ms\"\n{UNLIMITED}");
    let gateway = Gateway::start(one_thread(pass(&server.url(), &more))).await;
    // A client whose upstream takes nothing, and that sends whenever it can.
    let (mut blocked, mut blocked_peer) = pair(&gateway, &server).await;
    let message = binary(vec![1; 1 << 20]).bytes();
    let sent = Cell::new(0);
    let sending = async {
        loop {
            blocked.write(&message).await;
            sent.set(sent.get() + 1);
        }
    };
    let others = async {
        // A client in the middle of a frame.
        let (mut waiting, mut waiting_peer) = pair(&gateway, &server).await;
        let frame = server_frame(0x82, &[7; 1000]);
        waiting_peer.write(&frame[..500]).await;
        assert_eq!(waiting.read_exact(500).await, frame[..500]);
        // A client that does not answer, twice in a row: its time is over for the others as well.
        for _ in 0..2 {
            let (mut silent, _peer) = pair(&gateway, &server).await;
            loop {
                match silent.next().await {
                    Received::Ping(_) => {}
                    received => {
                        assert!(matches!(received, Received::Close(Some(4009), _)), "{received:?}");
                        break;
                    }
                }
            }
        }
        waiting_peer.write(&frame[500..]).await;
        assert_eq!(waiting.read_exact(frame.len() - 500).await, frame[500..]);
    };
    tokio::select! {
        () = sending => {}
        () = others => {}
    }
    for _ in 0..sent.get() {
        assert_eq!(blocked_peer.expect(0x82).await.len(), 1 << 20);
    }
}

#[tokio::test]
async fn a_member_leaves_with_its_connection() {
    let (gateway, _server, mut client, mut peer) = start(CHANNEL).await;
    client.send(&frame::close(1000, "")).await;
    assert_eq!(peer.expect_close().await.0, 1000);
    peer.send(0x88, &1000u16.to_be_bytes()).await;
    assert_eq!(client.read_close().await, Some(1000));
    gateway.wait_for_metric("tidegate_connections", &[("route", "/app/{name}")], 0.0).await;
    until("nobody", async || {
        let members = list(&gateway, "/v1/channels/app_x/presence").await;
        (members["total_connections"] == 0).then_some(())
    })
    .await;
}

/// Opens a connection of this user, and returns both its ends.
async fn of_user(gateway: &Gateway, server: &RawServer, user: u32) -> (RawClient, RawPeer) {
    let token = gateway.token(json!({"user_id": user})).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(handshake(&format!("/app/x?connection_token={token}"), &[]).as_bytes()).await;
    let peer = server.open().await;
    assert_eq!(client.read_head().await.status, 101);
    (client, peer)
}

#[tokio::test]
async fn messages_of_a_user_are_limited_over_all_connections() {
    let server = RawServer::start().await;
    let limited = "[route.limits]\nmessages_per_user = \"5/1h\"";
    let gateway = Gateway::start(pass(&server.url(), limited)).await;
    let (mut first, mut first_peer) = of_user(&gateway, &server, 7).await;
    // A message in fragments counts once, and what comes between them passes.
    let large = vec![9; 200_000];
    let sent = [
        binary(&large).more(),
        ping("between"),
        continuation("end"),
        text("second"),
        text("third"),
    ];
    first.write(&frame::join(&sent)).await;
    assert_eq!(first_peer.expect(0x02).await, large);
    for (first, payload) in
        [(0x89, &b"between"[..]), (0x80, b"end"), (0x81, b"second"), (0x81, b"third")]
    {
        assert_eq!(first_peer.expect(first).await, payload);
    }
    // Of what comes in one piece, only what is within the limit passes.
    let (mut second, mut second_peer) = of_user(&gateway, &server, 7).await;
    let sixty: Vec<_> = (0..60).map(|number| text(format!("message {number}"))).collect();
    second.write(&frame::join(&sixty)).await;
    for number in 0..2 {
        assert_eq!(second_peer.expect(0x81).await, format!("message {number}").into_bytes());
    }
    let expected = (1008, "over messages_per_user".to_owned());
    assert_eq!(second_peer.expect_close().await, expected);
    second.expect(Received::Close(Some(1008), expected.1.into_bytes())).await;
    let event = gateway.wait_for_event("closed_over_limit").await;
    assert_eq!(event["limit"], "messages_per_user", "{event}");
    // Other users and anonymous clients have nothing to do with it.
    let (mut other, mut other_peer) = of_user(&gateway, &server, 8).await;
    other.send(&text("mine")).await;
    assert_eq!(other_peer.expect(0x81).await, b"mine");
    let (mut anonymous, mut peer) = pair(&gateway, &server).await;
    anonymous.write(&frame::join(&sixty)).await;
    for number in 0..60 {
        assert_eq!(peer.expect(0x81).await, format!("message {number}").into_bytes());
    }
}
