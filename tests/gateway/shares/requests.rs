//! One address sends as many requests as it can, within and beyond `requests_per_ip`.

use super::{BEHIND_PROXY, address, others_are_served, send_and_receive};
use crate::chat::relayed;
use crate::rig::raw::handshake;
use crate::rig::{Gateway, RawClient, Upstream, http};

#[tokio::test]
async fn requests_of_one_address_beyond_its_rate_keep_nobody_out() {
    let upstream = Upstream::accepting().await;
    let settings = relayed(&upstream.url("/"), "auth = [\"anonymous\"]")
        .section("server", BEHIND_PROXY)
        .section("limits", "requests_per_ip = \"20/1s\"")
        .section("proxy", &format!("upstream = {:?}", upstream.url("")));
    let gateway = Gateway::start(settings).await;
    let (name, stranger) = address(200);
    let head = format!("host: a\r\n{name}: {stranger}\r\n");
    let requests = [
        // Proxied, a route without an upgrade, an upgrade without a route, and a handshake.
        format!("GET / HTTP/1.1\r\n{head}\r\n").repeat(50),
        format!("GET /ws/chat/1/ HTTP/1.1\r\n{head}\r\n").repeat(50),
        handshake("/nowhere/", &[(name, &stranger)]).repeat(20),
        format!("POST / HTTP/1.1\r\n{head}content-length: 100000\r\n\r\nslow"),
    ];
    let attack = async {
        let mut held = Vec::new();
        for round in 0_usize.. {
            let request = &requests[round % requests.len()];
            let mut client = RawClient::connect(gateway.addr()).await;
            // It may be closed before it has written everything.
            let _ = client.try_write(request.as_bytes()).await;
            if !request.ends_with("slow") {
                let status = client.try_read_status().await;
                assert!(matches!(status, Some(202 | 404 | 426 | 429)), "{status:?}");
            }
            held.push(client);
            if held.len() > 100 {
                held.drain(..50);
            }
        }
    };
    let others = async {
        others_are_served(&gateway, async |client, number| {
            send_and_receive(&gateway, client, number).await;
            let (name, address) = address(number);
            let answer =
                http::send(gateway.addr(), "GET", "/", &[(name, &address)], "".into()).await;
            assert_eq!(answer.status, 202);
        })
        .await;
    };
    tokio::select! {
        () = others => {}
        () = attack => unreachable!("the attack goes on until the others are done"),
    }
    let refused = [("limit", "requests_per_ip")];
    assert!(gateway.metric("tidegate_limit_refusals_total", &refused).await > 100.0);
    let lines = gateway.log_events("connection_refused");
    assert!(!lines.is_empty() && lines.iter().all(|line| line["network"] == "192.0.2.200"));
}
