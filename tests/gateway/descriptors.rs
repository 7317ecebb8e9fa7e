//! The limit of open files: raised at the start, and never used up by clients.

use serde_json::json;

use crate::chat::open_to_all;
use crate::rig::raw::handshake;
use crate::rig::{Client, Gateway, RawClient, http, until};

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
    until("room after they have left", async || {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.try_write(handshake(PATH, &[]).as_bytes()).await.ok()?;
        (client.try_read_status().await == Some(101)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_limit_that_fits_is_no_warning() {
    let settings = open_to_all().also("server", "max_connections = 100");
    let gateway = Gateway::start_with_open_files(settings, 256, 256).await;
    Client::connected(&gateway, PATH).await;
    assert_eq!(gateway.events("descriptors_too_few"), 0);
}
