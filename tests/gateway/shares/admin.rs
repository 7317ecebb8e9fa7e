//! One address does its worst at the admin port.

use std::collections::VecDeque;

use super::{BEHIND_PROXY, others_are_served, send_and_receive};
use crate::chat::relayed;
use crate::rig::{Gateway, RawClient, Upstream, http};

#[tokio::test]
async fn strangers_at_the_admin_port_keep_nobody_out() {
    let upstream = Upstream::accepting().await;
    let settings =
        relayed(&upstream.url("/"), "auth = [\"anonymous\"]").section("server", BEHIND_PROXY);
    let gateway = Gateway::start(settings).await;
    let requests = [
        "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(20),
        "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100),
        "GET /v1/channels HTTP/1.1\r\nhost: a\r\nx-api-key: guess\r\n\r\n".to_owned(),
        "POST /v1/publish HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{".to_owned(),
        "GET /livez HTTP/1.1\r\nhost: a\r\nx-slow: ".to_owned(),
        String::new(),
    ];
    let attack = async {
        let mut held = VecDeque::new();
        for round in 0_usize.. {
            let mut client = RawClient::connect_from("127.0.0.2", gateway.admin()).await;
            // It may have made room for another one already. Nothing of the answers is read.
            let _ = client.try_write(requests[round % requests.len()].as_bytes()).await;
            held.push_back(client);
            if held.len() > 600 {
                held.pop_front();
                // The others have their turn too: all of this runs on one thread.
                tokio::task::yield_now().await;
            }
        }
    };
    let others = async {
        others_are_served(&gateway, async |client, number| {
            send_and_receive(&gateway, client, number).await;
            if number % 10 != 0 {
                return;
            }
            for path in ["/livez", "/readyz", "/metrics"] {
                assert_eq!(http::get(gateway.admin(), path).await.status, 200, "{path}");
            }
        })
        .await;
    };
    tokio::select! {
        () = others => {}
        () = attack => unreachable!("the attack goes on until the others are done"),
    }
}
