//! Why a gateway is not connected to Redis, in one line: in the log and in `/readyz`.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::Value;

use crate::rig::redis::{Tls, tls_file};
use crate::rig::{Gateway, Redis, Settings, http, until};

/// Starts a gateway with the Redis at `url`, and expects `reason` in its log and in `/readyz`.
async fn expect_reason(url: &str, reason: &str) {
    let gateway = Gateway::start(Settings::chat("http://127.0.0.1:1/").redis(url)).await;
    until(&format!("{reason:?} for {url}"), async || {
        let lines = gateway.log_events("redis_connect_failed");
        let named =
            |line: &Value| line["reason"].as_str().is_some_and(|text| text.contains(reason));
        let page = http::get(gateway.admin(), "/readyz").await;
        let check = page.json()["checks"]["redis"].as_str()?.to_owned();
        (page.status == 503 && check.contains(reason) && lines.iter().any(named)).then_some(())
    })
    .await;
    gateway.wait_for_event("subscription_failed").await;
    let lines = gateway.log_events("redis_connect_failed");
    assert!(!lines.iter().any(|line| line.to_string().contains("hunter2")), "{lines:?}");
}

/// A server that sends `answer` for everything that it receives.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while matches!(stream.read(&mut request), Ok(1..)) {
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address.to_string()
}

#[tokio::test]
async fn wrong_credentials_are_said_in_redis_words() {
    let redis = Redis::start_with(&["--requirepass", ""]).await;
    let address = redis.address();
    let user = ["ACL", "SETUSER", "gateway", "on", ">hunter1", "~*", "&*", "+@all"];
    let () = redis.run(&user).await;
    let wrong = "WRONGPASS invalid username-password pair";
    let (password, user) =
        (format!("redis://gateway:hunter2@{address}"), format!("redis://nobody:hunter2@{address}"));
    let (database, nobody) =
        (format!("redis://gateway:hunter1@{address}/99"), format!("redis://{address}"));
    let () = redis.run(&["ACL", "SETUSER", "default", "off"]).await;
    tokio::join!(
        expect_reason(&password, wrong),
        expect_reason(&user, wrong),
        expect_reason(&database, "ERR DB index is out of range"),
        expect_reason(&nobody, "NOAUTH"),
    );
}

#[tokio::test]
async fn tls_and_its_absence_are_recognised() {
    let (plain, tls) = (Redis::start().await, Redis::start_tls(Tls::NoCertificate).await);
    let to_plain = format!("rediss://{}", plain.address());
    let to_tls = format!("redis://{}", tls.address());
    let unknown_issuer = tls.url();
    let by_name = tls.url().replace("127.0.0.1", "localhost");
    let trusting = format!("{by_name}?ssl_ca_certs={}", tls_file("ca.pem"));
    tokio::join!(
        expect_reason(&to_plain, "does not speak TLS on this port"),
        expect_reason(&to_tls, "expects TLS on this port"),
        expect_reason(&unknown_issuer, "invalid peer certificate: UnknownIssuer"),
        expect_reason(&trusting, "not valid for name"),
    );
}

#[tokio::test]
async fn other_servers_and_servers_that_are_not_ready_are_recognised() {
    let http = answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    let loading = answering(
        "-LOADING Redis is loading the dataset in memory\r\n\
         -LOADING Redis is loading the dataset in memory\r\n\
         -LOADING Redis is loading the dataset in memory\r\n",
    );
    let full = Redis::start().await;
    let mut only = full.connection().await;
    redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).exec_async(&mut only).await.unwrap();
    let (http, loading, full) =
        (format!("redis://{http}"), format!("redis://{loading}"), full.url());
    tokio::join!(
        expect_reason(&http, "an HTTP server answers on this port"),
        expect_reason(&loading, "LOADING Redis is loading"),
        expect_reason(&full, "max number of clients reached"),
    );
}
