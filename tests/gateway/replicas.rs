//! Upstreams with several URLs: which one gets a message or a socket, and what happens when one cannot be reached.

use serde_json::json;

use super::chat::SECRET;
use super::rig::echo::{Echo, WebSocketServer};
use super::rig::{Client, Gateway, Settings, Upstream, free_address, http, jwt};

fn sockets(protocol: &str, urls: &[String], more: &str) -> Settings {
    Settings::new()
        .route(&format!(
            "path = \"/ws/{{room}}\"\nchannel = \"room_{{room}}\"\nupstream = \"app\"\nauth = [\"anonymous\"]\n\
             protocol = {protocol:?}"
        ))
        .upstream("app", &format!("kind = \"websocket\"\nurls = {urls:?}\n{more}"))
}

#[tokio::test]
async fn a_socket_goes_to_a_replica_that_can_be_reached() {
    let echo = Echo::start().await;
    for protocol in ["raw", "pass"] {
        let urls = [format!("ws://{}", free_address()), echo.url()];
        let gateway = Gateway::start(sockets(protocol, &urls, "")).await;
        for _ in 0..6 {
            let mut client = Client::open(gateway.addr(), "/ws/7", &[]).await;
            client.send_text("hello").await;
            assert_eq!(client.next_text().await, "hello", "{protocol}");
        }
        // The one that cannot be reached is asked once, and then left out for a while.
        let failed = [("upstream", "app"), ("replica", "0")];
        let name = "tidegate_upstream_replica_failures_total";
        assert!(gateway.metric(name, &failed).await <= 1.0, "{protocol}");
    }
}

#[tokio::test]
async fn sockets_go_to_the_replica_with_the_fewest() {
    let (mut one, mut two) = (WebSocketServer::start().await, WebSocketServer::start().await);
    let gateway = Gateway::start(sockets("raw", &[one.url(), two.url()], "")).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        for _ in 0..2 {
            open.push(Client::open(gateway.addr(), "/ws/7", &[]).await);
        }
        // Of each two sockets either server gets one.
        let (first, second) = (one.accept().await, two.accept().await);
        std::mem::forget((first.socket, second.socket));
    }
    for replica in ["0", "1"] {
        let labels = [("upstream", "app"), ("replica", replica)];
        gateway.wait_for_metric("tidegate_upstream_replica_in_flight", &labels, 3.0).await;
    }
}

#[tokio::test]
async fn a_channel_always_has_the_same_replica() {
    let (one, two) = (Upstream::accepting().await, Upstream::accepting().await);
    let settings = Settings::chat("").upstream(
        "worker",
        &format!(
            "kind = \"http\"\nurls = [{:?}, {:?}]\nbalance = \"channel\"",
            one.url("/"),
            two.url("/")
        ),
    );
    let gateway = Gateway::start(settings).await;
    for room in 0..12 {
        let (mut client, _) = Client::connected(&gateway, &format!("/ws/chat/{room}/")).await;
        for id in ["a", "b", "c"] {
            client.send_json(&json!({"message": "hello", "id": id})).await;
            client.next_event("task_queued").await;
        }
    }
    let rooms = |upstream: &Upstream| {
        let channel =
            |request: &super::rig::upstream::Recorded| request.json()["channel"].to_string();
        upstream.requests().iter().map(channel).collect::<Vec<_>>()
    };
    let (of_one, of_two) = (rooms(&one), rooms(&two));
    assert_eq!(of_one.len() + of_two.len(), 36);
    assert!(!of_one.is_empty() && !of_two.is_empty(), "{of_one:?} {of_two:?}");
    assert!(of_one.iter().all(|channel| !of_two.contains(channel)));
}

#[tokio::test]
async fn a_message_goes_to_another_replica_if_nothing_was_sent() {
    let worker = Upstream::accepting().await;
    let urls = [format!("http://{}/", free_address()), worker.url("/")];
    let settings = Settings::chat("")
        .upstream("worker", &format!("kind = \"http\"\nurls = {urls:?}\nretries = 0"));
    let gateway = Gateway::start(settings).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/1/").await;
    for id in ["a", "b", "c", "d"] {
        client.send_json(&json!({"message": "hello", "id": id})).await;
        client.next_event("task_queued").await;
    }
    assert_eq!(worker.requests().len(), 4);
}

#[tokio::test]
async fn a_user_has_one_replica_for_sockets_and_plain_requests() {
    let (one, two) = (Upstream::accepting().await, Upstream::accepting().await);
    let urls = [&one, &two].map(|replica| format!("ws://{}", replica.addr()));
    let settings = Settings::new()
        .section("jwt", &format!("keys = [{{ alg = \"HS256\", secret = \"{SECRET}\" }}]"))
        .route("path = \"/{rest*}\"\nprotocol = \"pass\"\nupstream = \"app\"\nauth = [\"bearer\"]")
        .upstream("app", &format!("kind = \"websocket\"\nurls = {urls:?}\nbalance = \"user\""));
    let gateway = Gateway::start(settings).await;
    for user in 0..12 {
        let jwt = jwt::hs256(SECRET, &json!({"user_id": user, "exp": 4_000_000_000_u64}));
        let (path, bearer) = (format!("/{user}"), format!("Bearer {jwt}"));
        let headers = [("authorization", &*bearer)];
        for method in ["GET", "POST"] {
            let answer = http::send(gateway.addr(), method, &path, &headers, "".into()).await;
            assert_eq!(answer.status, 202);
        }
        // The replica answers the handshake with a response of its own.
        let refused = Client::try_open(gateway.addr(), &path, &headers).await;
        assert_eq!(refused.map_or_else(|refused| refused.status, |_| 101), 202);
    }
    let paths = |replica: &Upstream| {
        replica.requests().iter().map(|request| request.path.clone()).collect::<Vec<_>>()
    };
    let (of_one, of_two) = (paths(&one), paths(&two));
    assert_eq!(of_one.len() + of_two.len(), 36);
    assert!(!of_one.is_empty() && !of_two.is_empty(), "{of_one:?} {of_two:?}");
    assert!(of_one.iter().all(|path| !of_two.contains(path)), "{of_one:?} {of_two:?}");
}
