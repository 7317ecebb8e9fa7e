//! WebSocket upstreams, with one upstream socket for each client: messages both ways, slow sides, and closing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::rig::echo::{Echo, WebSocketServer};
use super::rig::raw::Received;
use super::rig::{Client, Event, Gateway, RawClient, Settings, Upstream, until, within};

/// More messages than all buffers between the two ends hold.
const MESSAGES: usize = 160;
const MESSAGE_BYTES: usize = 512 * 1024;
/// More than a message needs to pass through every buffer between two ends.
const ROUND_TRIPS: usize = 100;

/// A raw route at `/raw/{room}`.
fn raw(url: &str) -> Settings {
    let url = format!("{url}/rooms/{{room}}");
    Settings::new().upstream("server", &format!("kind = \"websocket\"\nurl = {url:?}")).route(
        r#"path = "/raw/{room}"
channel = "room_{room}"
upstream = "server"
auth = ["connection_token", "anonymous"]
protocol = "raw"
binary = "relay"
max_message_bytes = "1MiB"
send_queue = { messages = 8, bytes = "2MiB" }
[route.limits]
messages_per_connection = "1000000/1s"
"#,
    )
}

/// The same config with one thread, which serves every connection in turn.
fn one_thread(url: &str) -> Settings {
    raw(url).section("server", "listen = \"127.0.0.1:0\"\nthreads = 1")
}

async fn pair(gateway: &Gateway, server: &mut WebSocketServer) -> (Client, super::rig::Socket) {
    let client = Client::open(gateway.addr(), "/raw/7", &[]).await;
    (client, server.accept().await.socket)
}

#[tokio::test]
async fn the_server_receives_the_user_and_the_channel() {
    let mut server = WebSocketServer::start().await;
    let settings = raw(&server.url()).also("server", "trusted_proxies = [\"127.0.0.1/32\"]");
    let gateway = Gateway::start(settings).await;
    let token = gateway.token(json!({"user_id": "u 7", "username": "Zoë"})).await;
    let path = format!("/raw/%41b?connection_token={token}");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let _client = Client::open(gateway.addr(), &path, &[("traceparent", &traceparent)]).await;
    let accepted = server.accept().await;
    assert_eq!(accepted.uri, "/rooms/Ab");
    let header = |name: &str| accepted.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-tidegate-channel"), "room_Ab");
    assert_eq!(header("x-tidegate-user-id"), "u%207");
    assert_eq!(header("x-tidegate-username"), "Zo%C3%AB");
    assert!(header("traceparent").starts_with(&format!("00-{trace}-")));
    assert!(!header("x-tidegate-connection-id").is_empty());
    assert!(!accepted.headers.contains_key("x-connection-token"));
}

#[tokio::test]
async fn text_and_binary_travel_both_ways() {
    let mut server = WebSocketServer::start().await;
    let gateway = Gateway::start(raw(&server.url())).await;
    let (mut client, mut socket) = pair(&gateway, &mut server).await;
    client.send_text("no JSON, ünïcode").await;
    client.send_binary(&[0, 255, 1]).await;
    client.send_text("").await;
    assert_eq!(socket.next().await, Event::Text("no JSON, ünïcode".to_owned()));
    assert_eq!(socket.next().await, Event::Binary(vec![0, 255, 1]));
    assert_eq!(socket.next().await, Event::Text(String::new()));
    socket.send_text("{}").await;
    socket.send_binary(&[]).await;
    assert_eq!(client.next().await, Event::Text("{}".to_owned()));
    assert_eq!(client.next().await, Event::Binary(Vec::new()));
    // Publications to the channel arrive as well.
    gateway.publish("room_7", json!({"event": "notice"})).await;
    assert_eq!(client.next_json().await, json!({"event": "notice"}));
}

#[tokio::test]
async fn each_client_has_a_socket_of_its_own() {
    let mut server = WebSocketServer::start().await;
    let gateway = Gateway::start(raw(&server.url())).await;
    let (mut first, mut first_socket) = pair(&gateway, &mut server).await;
    let (mut second, mut second_socket) = pair(&gateway, &mut server).await;
    first_socket.send_text("for the first").await;
    second_socket.send_text("for the second").await;
    assert_eq!(first.next_text().await, "for the first");
    assert_eq!(second.next_text().await, "for the second");
    second.send_text("from the second").await;
    assert_eq!(second_socket.next_text().await, "from the second");
}

#[tokio::test]
async fn close_codes_are_carried_over_both_ways() {
    let mut server = WebSocketServer::start().await;
    let gateway = Gateway::start(raw(&server.url())).await;
    // Each close takes as long as an end lingers, so that all of them are under way at once.
    let mut closes = tokio::task::JoinSet::new();
    for code in [1000, 1001, 1008, 1011, 1012, 1013, 3000, 3999, 4001, 4999] {
        let (mut client, mut socket) = pair(&gateway, &mut server).await;
        closes.spawn(async move {
            client.send_text("last words").await;
            client.close(code, "grüße").await;
            assert_eq!(socket.next_text().await, "last words");
            assert_eq!(socket.next().await, Event::Closed(Some(code), "grüße".to_owned()));
            assert_eq!(client.closed().await, Some(code), "the client's own code is echoed");
        });

        let (mut client, mut socket) = pair(&gateway, &mut server).await;
        closes.spawn(async move {
            socket.send_text("last words").await;
            socket.close(code, "a reason").await;
            assert_eq!(client.next_text().await, "last words");
            assert_eq!(client.next().await, Event::Closed(Some(code), "a reason".to_owned()));
            assert_eq!(socket.closed().await, Some(code), "the server's own code is echoed");
        });
    }
    closes.join_all().await;
}

#[tokio::test]
async fn the_server_learns_why_another_one_closed_the_client() {
    let mut server = WebSocketServer::start().await;
    let gateway = Gateway::start(raw(&server.url())).await;
    let (mut client, mut socket) = pair(&gateway, &mut server).await;
    let all = json!({"channel": "room_7", "code": 4000, "reason": "moved"});
    gateway.api("/v1/disconnect", all).await;
    assert_eq!(client.closed().await, Some(4000));
    assert_eq!(socket.next().await, Event::Closed(Some(4000), "moved".to_owned()));
}

#[tokio::test]
async fn a_client_that_vanishes_ends_its_upstream_socket() {
    let mut server = WebSocketServer::start().await;
    let gateway = Gateway::start(raw(&server.url())).await;
    let (client, mut socket) = pair(&gateway, &mut server).await;
    drop(client);
    assert!(matches!(socket.next().await, Event::Closed(Some(1001), _)));
    gateway.wait_for_metric("tidegate_upstream_in_flight", &[("upstream", "server")], 0.0).await;
}

#[tokio::test]
async fn a_server_that_vanishes_is_an_internal_error() {
    let mut server = WebSocketServer::start().await;
    let gateway = Gateway::start(raw(&server.url())).await;
    let (mut client, socket) = pair(&gateway, &mut server).await;
    drop(socket);
    assert_eq!(client.closed().await, Some(1011));
}

#[tokio::test]
async fn without_a_server_the_client_is_refused() {
    let refusing = Upstream::start(|_| super::rig::Reply::status(403)).await;
    let failing = Upstream::start(|_| super::rig::Reply::status(500)).await;
    let garbage = Upstream::sending(b"nonsense\r\n\r\n").await;
    let hanging = Upstream::start(|_| super::rig::Reply::Hang).await;
    let stopped = WebSocketServer::start().await;
    let stopped_addr = stopped.addr();
    drop(stopped);
    for (name, addr, code) in [
        ("refusing", refusing.addr(), 4003),
        ("failing", failing.addr(), 1013),
        ("garbage", garbage.addr(), 1013),
        ("hanging", hanging.addr(), 1013),
        ("unreachable", stopped_addr, 1013),
    ] {
        let url = format!("ws://{addr}/");
        let lines = format!("kind = \"websocket\"\nurl = {url:?}\ntimeout = \"500ms\"");
        let gateway = Gateway::start(raw("ws://127.0.0.1:1").upstream("server", &lines)).await;
        let mut client = Client::open(gateway.addr(), "/raw/7", &[]).await;
        assert_eq!(client.closed().await, Some(code), "{name}");
    }
}

#[tokio::test]
async fn large_messages_pass_and_larger_ones_end_the_connection() {
    let mut server = WebSocketServer::start().await;
    let gateway = Gateway::start(raw(&server.url())).await;
    let (mut client, mut socket) = pair(&gateway, &mut server).await;
    let largest: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    client.send_binary(&largest).await;
    assert_eq!(socket.next().await, Event::Binary(largest.clone()));
    socket.send_binary(&largest).await;
    assert_eq!(client.next().await, Event::Binary(largest.clone()));

    let larger = vec![b'x'; (1 << 20) + 1];
    client.send_binary(&larger).await;
    assert_eq!(client.closed().await, Some(1009));
    assert_eq!(socket.closed().await, Some(1009));

    let (mut client, mut socket) = pair(&gateway, &mut server).await;
    socket.send_binary(&larger).await;
    assert_eq!(client.closed().await, Some(1011));
    // A reset may overtake the close frame, since what the server sent is not read to its end.
    let end = socket.next().await;
    assert!(matches!(end, Event::Closed(Some(1009), _) | Event::Lost), "{end:?}");
    let logged = gateway.log_events("message_too_big");
    let logged: Vec<_> = logged.iter().map(|event| (&event["from"], &event["bytes"])).collect();
    let bytes = json!(larger.len());
    assert_eq!(logged, [(&json!("client"), &bytes), (&json!("upstream"), &bytes)]);
}

/// A message that starts with its number.
fn numbered(number: usize) -> Vec<u8> {
    let mut message = vec![0; MESSAGE_BYTES];
    message[..8].copy_from_slice(&(number as u64).to_be_bytes());
    message
}

/// Sends all [`MESSAGES`] in a task and returns the number that have been sent so far.
fn send_all<S>(mut sender: S) -> Arc<AtomicUsize>
where
    S: std::ops::DerefMut<Target = super::rig::Socket> + Send + 'static,
{
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    tokio::spawn(async move {
        for number in 0..MESSAGES {
            sender.send_binary(&numbered(number)).await;
            counter.fetch_add(1, Ordering::SeqCst);
        }
        // The socket stays open until the other side closes it.
        sender.next_without_deadline().await;
    });
    sent
}

/// A second connection through the same gateway thread: each round trip proves that the thread has served
/// everything that was ready before it.
struct Probe {
    client: Client,
    socket: super::rig::Socket,
}

impl Probe {
    async fn round_trip(&mut self) {
        self.client.send_text("ping").await;
        assert_eq!(self.socket.next_text().await, "ping");
        self.socket.send_text("pong").await;
        assert_eq!(self.client.next_text().await, "pong");
    }
}

async fn probe(gateway: &Gateway, server: &mut WebSocketServer) -> Probe {
    let (client, socket) = pair(gateway, server).await;
    Probe { client, socket }
}

/// Waits until nothing more is sent because nobody reads: while the gateway served [`ROUND_TRIPS`] of another
/// connection, not one message of this one has moved. Returns how many were sent.
async fn stalled(sent: &AtomicUsize, probe: &mut Probe) -> usize {
    within("stall of the sender", async {
        loop {
            let before = sent.load(Ordering::SeqCst);
            for _ in 0..ROUND_TRIPS {
                probe.round_trip().await;
            }
            if before > 0 && before == sent.load(Ordering::SeqCst) {
                return before;
            }
        }
    })
    .await
}

async fn all_arrive(receiver: &mut super::rig::Socket) {
    for number in 0..MESSAGES {
        let Event::Binary(message) = receiver.next().await else { panic!("message {number}") };
        assert!(message == numbered(number), "message {number} is another");
    }
}

#[tokio::test]
async fn a_slow_client_makes_its_server_wait_and_loses_nothing() {
    let mut server = WebSocketServer::start().await;
    let gateway = Gateway::start(one_thread(&server.url())).await;
    let (mut client, socket) = pair(&gateway, &mut server).await;
    let mut probe = probe(&gateway, &mut server).await;
    let sent = send_all(Box::new(socket));
    assert!(stalled(&sent, &mut probe).await < MESSAGES, "the server must wait");
    let memory = gateway.memory("RssAnon");
    assert!(memory < 40 << 20, "{memory} bytes for a slow client");
    all_arrive(&mut client).await;
}

#[tokio::test]
async fn a_slow_server_makes_its_client_wait_and_loses_nothing() {
    let mut server = WebSocketServer::start().await;
    let gateway = Gateway::start(one_thread(&server.url())).await;
    let (client, mut socket) = pair(&gateway, &mut server).await;
    let mut probe = probe(&gateway, &mut server).await;
    let sent = send_all(client);
    assert!(stalled(&sent, &mut probe).await < MESSAGES, "the client must wait");
    let memory = gateway.memory("RssAnon");
    assert!(memory < 40 << 20, "{memory} bytes for a slow server");
    all_arrive(&mut socket).await;
}

/// A client that is not read, or that takes nothing, answers no ping, and is not closed for it.
#[tokio::test]
async fn a_stall_is_not_taken_for_silence() {
    let mut server = WebSocketServer::start().await;
    let url = format!("{}/rooms/{{room}}", server.url());
    let patient = format!("kind = \"websocket\"\nurl = {url:?}\ntimeout = \"60s\"");
    let heartbeat = "binary = \"relay\"\nidle_ping = \"1s\"\npong_timeout = \"1s\"";
    let settings = one_thread("")
        .upstream("server", &patient)
        .each_route(|route| route.replace("binary = \"relay\"", heartbeat));
    let gateway = Gateway::start(settings).await;
    let (sender, mut slow_server) = pair(&gateway, &mut server).await;
    let to_server = send_all(sender);
    let (mut slow_client, sender) = pair(&gateway, &mut server).await;
    let to_client = send_all(Box::new(sender));
    // The time of a client that has come later is over.
    let mut silent = RawClient::open(gateway.addr(), "/raw/8").await;
    let _socket = server.accept().await;
    loop {
        match silent.next().await {
            Received::Ping(_) => {}
            received => {
                assert!(matches!(received, Received::Close(Some(4009), _)), "{received:?}");
                break;
            }
        }
    }
    for sent in [&to_server, &to_client] {
        assert!(sent.load(Ordering::SeqCst) < MESSAGES, "its sender must wait");
    }
    tokio::join!(all_arrive(&mut slow_server), all_arrive(&mut slow_client));
}

#[tokio::test]
async fn a_json_route_checks_what_it_relays() {
    let echo = Echo::start().await;
    let url = echo.url();
    let lines = format!("kind = \"websocket\"\nurl = {url:?}");
    let gateway = Gateway::start(Settings::chat("http://x").upstream("worker", &lines)).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    client.send_text("{\"message\":\"\"}").await;
    assert_eq!(client.next_event("error").await["code"], "empty_message");
    let message = "{\"message\":\"hi\", \"n\": 1.0}";
    client.send_text(message).await;
    assert_eq!(client.next_text().await, message, "as it came");
    until("open upstream socket", async || {
        let labels = [("upstream", "worker")];
        (gateway.metric("tidegate_upstream_in_flight", &labels).await == 1.0).then_some(())
    })
    .await;
}
