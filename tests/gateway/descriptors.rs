//! The limit of open files: raised at the start, and never used up by clients.

use std::time::Instant;

use serde_json::json;

use crate::chat::open_to_all;
use crate::rig::raw::handshake;
use crate::rig::{Client, Gateway, RawClient, Reply, Upstream, http, recovered, until};

const PATH: &str = "/ws/chat/1/";

#[tokio::test]
async fn the_limit_is_raised_and_a_part_of_it_reserved() {
    let settings = open_to_all().also("server", "max_connections_per_ip = 0");
    let gateway = Gateway::start_with_open_files(settings, 64, 256).await;
    assert_eq!(gateway.metric("process_max_fds", &[]).await, 256.0);
    let line = gateway.wait_for_event("descriptors_too_few").await;
    assert_eq!((&line["limit"], &line["usable"]), (&json!(256), &json!(192)), "{line}");

    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(RawClient::connect(gateway.addr()).await);
    }
    let mut refused = held.pop().unwrap();
    assert_eq!(refused.read_head().await.status, 503);
    let refusals = [("limit", "descriptors")];
    assert!(gateway.metric("tidegate_limit_refusals_total", &refusals).await > 50.0);
    gateway.wait_for_event("node_full").await;
    // What is reserved is there: for health, for the API, and for those who are connected.
    assert_eq!(http::get(gateway.admin(), "/readyz").await.status, 200);
    gateway.publish("chat_1", json!({"event": "chunk"})).await;
    let mut first = held.swap_remove(0);
    first.write(handshake(PATH, &[]).as_bytes()).await;
    assert_eq!(first.read_head().await.status, 101);
    assert_eq!(gateway.metric("tidegate_accept_errors_total", &[]).await, 0.0);

    drop(held);
    let since = Instant::now();
    until("room after they have left", async || {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.try_write(handshake(PATH, &[]).as_bytes()).await.ok()?;
        (client.try_read_status().await == Some(101)).then_some(())
    })
    .await;
    recovered("all files were in use and clients have left", since);
}

#[tokio::test]
async fn a_limit_that_fits_is_no_warning() {
    let settings = open_to_all().also("server", "max_connections = 100");
    let gateway = Gateway::start_with_open_files(settings, 256, 256).await;
    Client::connected(&gateway, PATH).await;
    assert_eq!(gateway.events("descriptors_too_few"), 0);
}

/// Each request of a client to an upstream takes a descriptor of its own.
#[tokio::test]
async fn requests_to_upstreams_leave_descriptors_for_others() {
    let upstream = Upstream::start(|_| Reply::Hang).await;
    let settings = open_to_all()
        .also("server", "max_connections_per_ip = 0")
        .section("proxy", &format!("upstream = {:?}", upstream.url("")));
    let gateway = Gateway::start_with_open_files(settings, 256, 256).await;
    let mut clients = Vec::new();
    for _ in 0..140 {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(b"GET / HTTP/1.1\r\nhost: a\r\n").await;
        clients.push(client);
    }
    gateway.wait_for_metric("tidegate_client_sockets", &[], 140.0).await;
    for client in &mut clients {
        client.write(b"\r\n").await;
    }
    until("refused requests", async || {
        let unreachable = [("outcome", "unreachable")];
        (gateway.metric("tidegate_proxy_requests_total", &unreachable).await > 30.0).then_some(())
    })
    .await;
    assert_eq!(http::get(gateway.admin(), "/readyz").await.status, 200);
    gateway.publish("chat_1", json!({"event": "chunk"})).await;
    assert_eq!(gateway.metric("tidegate_accept_errors_total", &[]).await, 0.0);
    drop(clients);
    let before = upstream.requests().len();
    let mut again = Vec::new();
    until("a request that reaches the upstream", async || {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.try_write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.ok()?;
        again.push(client);
        (upstream.requests().len() > before).then_some(())
    })
    .await;
}

/// Regression test: with fewer descriptors than `max_connections_per_ip`, one address took all of them.
#[tokio::test]
async fn one_address_leaves_descriptors_for_others() {
    let upstream = Upstream::start(|_| Reply::Hang).await;
    let settings = open_to_all().section("proxy", &format!("upstream = {:?}", upstream.url("")));
    let gateway = Gateway::start_with_open_files(settings, 256, 256).await;
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut client = RawClient::connect_from("127.0.0.2", gateway.addr()).await;
        // It is refused if the address has its share.
        let _ = client.try_write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        held.push(client);
    }
    until("all that one address may have", async || {
        (upstream.requests().len() == 48).then_some(())
    })
    .await;
    let mut others = Vec::new();
    for number in 3..53 {
        let mut client =
            RawClient::connect_from(&format!("127.0.0.{number}"), gateway.addr()).await;
        client.write(handshake(PATH, &[]).as_bytes()).await;
        assert_eq!(client.read_head().await.status, 101, "127.0.0.{number}");
        others.push(client);
    }
    let refused = gateway.log_events("connection_refused");
    assert!(!refused.is_empty() && refused.iter().all(|line| line["network"] == "127.0.0.2"));
}
