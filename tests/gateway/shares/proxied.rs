//! One address has a share of the requests that are passed to the proxy's upstream at the same time.

use super::{BEHIND_PROXY, address, others_are_served, send_and_receive};
use crate::chat::relayed;
use crate::rig::{Gateway, RawClient, Reply, Settings, Upstream, http, until};

const REFUSED: [(&str, &str); 1] = [("outcome", "share_full")];

async fn start(lines: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(|request| match request.path.as_str() {
        "/hold" => Reply::Hang,
        _ => Reply::status(202),
    })
    .await;
    let settings: Settings = relayed(&upstream.url("/"), "auth = [\"anonymous\"]")
        .section("server", BEHIND_PROXY)
        .section("proxy", &format!("upstream = {:?}\n{lines}", upstream.url("")));
    let gateway = Gateway::start(settings).await;
    (upstream, gateway)
}

/// Sends requests that are never answered from an address until one is refused. Returns the clients that wait.
async fn hold_all(gateway: &Gateway, upstream: &Upstream, from: u8) -> Vec<RawClient> {
    let (name, address) = address(from);
    let request = format!("GET /hold HTTP/1.1\r\nhost: a\r\n{name}: {address}\r\n\r\n");
    let mut held = Vec::new();
    loop {
        let before = upstream.requests().len();
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(request.as_bytes()).await;
        let is_refused = tokio::select! {
            status = client.try_read_status() => {
                assert!(matches!(status, Some(429 | 503)), "{status:?}");
                true
            }
            () = until("the request", async || {
                (upstream.requests().len() > before).then_some(())
            }) => false,
        };
        if is_refused {
            return held;
        }
        held.push(client);
    }
}

async fn get(gateway: &Gateway, from: u8) -> http::Response {
    let (name, address) = address(from);
    http::send(gateway.addr(), "GET", "/", &[(name, &address)], "".into()).await
}

#[tokio::test]
async fn one_address_holds_a_quarter_of_the_proxied_requests() {
    let (upstream, gateway) = start("max_in_flight = 8").await;
    let strangers = hold_all(&gateway, &upstream, 200).await;
    assert_eq!(strangers.len(), 2);
    let refused = get(&gateway, 200).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some("share_full")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    others_are_served(&gateway, async |client, number| {
        send_and_receive(&gateway, client, number).await;
        assert_eq!(get(&gateway, number).await.status, 202);
    })
    .await;
    assert_eq!(gateway.metric("tidegate_proxy_requests_total", &REFUSED).await, 2.0);
    let line = gateway.wait_for_event("proxy_refused").await.to_string();
    assert!(line.contains("192.0.2.200") && line.contains("share_full"), "{line}");
    // Whoever only ends its half still waits for the answers.
    strangers.into_iter().for_each(RawClient::reset);
    until("room after the stranger has left", async || {
        (get(&gateway, 200).await.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn all_addresses_together_have_a_bound() {
    let (upstream, gateway) = start("max_in_flight = 4\nmax_in_flight_per_ip = 3").await;
    let mut held = hold_all(&gateway, &upstream, 200).await;
    assert_eq!(held.len(), 3);
    held.extend(hold_all(&gateway, &upstream, 201).await);
    assert_eq!(held.len(), 4);
    let refused = get(&gateway, 202).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("full")));
    assert_eq!(refused.header("retry-after"), Some("1"));
}

/// A request is in flight until its answer has been sent.
#[tokio::test]
async fn an_answer_that_is_being_sent_counts() {
    let (writer, reply) = Reply::stream("text/event-stream");
    let reply = std::sync::Arc::new(std::sync::Mutex::new(Some(reply)));
    let upstream =
        Upstream::start(move |_| reply.lock().unwrap().take().unwrap_or(Reply::status(202))).await;
    let proxy = format!("upstream = {:?}\nmax_in_flight = 1", upstream.url(""));
    let settings = relayed(&upstream.url("/"), "auth = [\"anonymous\"]").section("proxy", &proxy);
    let gateway = Gateway::start(settings).await;
    let mut stream = http::stream(gateway.addr(), "/events", &[]).await;
    writer.write("data: a\n\n");
    assert!(stream.next().await.is_some());
    assert_eq!(get(&gateway, 1).await.status, 503);
    drop(writer);
    assert!(stream.next().await.is_none());
    until("room after the answer", async || (get(&gateway, 1).await.status == 202).then_some(()))
        .await;
}
