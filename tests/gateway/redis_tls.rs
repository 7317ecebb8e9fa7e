//! Redis over TLS, by URLs as Python's clients write them.

use serde_json::json;

use super::chat::{relayed, session};
use super::outcome::attempt;
use super::rig::redis::{Tls, tls_file};
use super::rig::{Gateway, Redis, Settings, http, until};

/// The URL parameter that trusts the test's certificate authority.
fn trusting() -> String {
    format!("ssl_ca_certs={}", tls_file("ca.pem"))
}

/// A config with one route whose messages go to a list. Everything is in the Redis at `url`, each part in its own database.
fn all_over(url: &str, query: &str) -> Settings {
    let urls = [("url", 0), ("tokens_url", 4), ("limits_url", 2), ("pubsub_url", 3)];
    let urls = urls.map(|(key, db)| format!("{key} = \"{url}/{db}?{query}\"\n"));
    let limits = "[route.limits]\nmessages_per_user = \"3/1h\"";
    relayed("http://127.0.0.1:1/", limits)
        .section("engine", "kind = \"redis\"")
        .section("engine.redis", &urls.concat())
        .upstream(
            "worker",
            &format!("kind = \"redis-list\"\nkey = \"jobs\"\nredis_url = \"{url}?db=1&{query}\""),
        )
}

async fn start_ready(settings: Settings) -> Gateway {
    let gateway = Gateway::start(settings).await;
    until("ready gateway", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
    gateway
}

/// The keys of one database.
async fn keys(redis: &Redis, db: u8) -> Vec<String> {
    let mut connection = redis.connection().await;
    redis::cmd("SELECT").arg(db).exec_async(&mut connection).await.expect("a database");
    redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("its keys")
}

#[track_caller]
fn assert_has(keys: &[String], start: &str) {
    assert!(keys.iter().any(|key| key.starts_with(start)), "no {start}… in {keys:?}");
}

#[tokio::test]
async fn every_part_of_one_server_is_reached_in_its_database() {
    let redis = Redis::start_tls(Tls::NoCertificate).await;
    let query = format!("{}&ssl_cert_reqs=CERT_REQUIRED&health_check_interval=30", trusting());
    let gateway = start_ready(all_over(&redis.url(), &query)).await;
    let token = gateway.token(json!({"user_id": 7, "username": "ana"})).await;
    assert_has(&keys(&redis, 4).await, "ws_conn_token:");
    let path = format!("/ws/chat/42/?connection_token={token}");
    let mut client = attempt(&gateway, &path, &[]).await.expect("a token");
    client.send_json(&json!({"message": "hello"})).await;
    assert_eq!(client.next_json().await["event"], "task_queued");
    assert_eq!(keys(&redis, 1).await, ["jobs"]);
    assert_has(&keys(&redis, 2).await, "tg:");
    assert_eq!(keys(&redis, 4).await, Vec::<String>::new(), "the token is used up");
    gateway.publish("chat_42", json!({"event": "news"})).await;
    assert_eq!(client.next_event("news").await["event"], "news");
    assert_has(&keys(&redis, 3).await, "tg:");
    assert_eq!(keys(&redis, 0).await, Vec::<String>::new());
    assert_eq!(gateway.events("redis_certificate_unchecked"), 0);
}

#[tokio::test]
async fn a_server_with_an_untrusted_certificate_is_refused() {
    let redis = Redis::start_tls(Tls::NoCertificate).await;
    let other = format!("ssl_ca_certs={}", tls_file("other_ca.pem"));
    // The certificate is for 127.0.0.1.
    let by_name = redis.url().replace("127.0.0.1", "localhost");
    for (url, query) in [
        (redis.url(), "socket_timeout=5"),
        (redis.url(), "ssl_cert_reqs=required"),
        (redis.url(), &other),
        (redis.url(), &format!("{other}&ssl_check_hostname=false")),
        (by_name, &trusting()),
    ] {
        let gateway = Gateway::start(all_over(&url, query)).await;
        // On a busy machine the first attempts may time out.
        until(&format!("refused certificate with {query}"), async || {
            let failures = gateway.log_events("redis_connect_failed");
            failures.iter().any(|line| line.to_string().contains("ertificate")).then_some(())
        })
        .await;
        let readiness = http::get(gateway.admin(), "/readyz").await;
        assert_eq!(readiness.status, 503, "{query}");
        assert_eq!(gateway.events("redis_connected"), 0, "{query}");
    }
}

#[tokio::test]
async fn only_the_checks_that_the_url_disables_are_omitted() {
    let redis = Redis::start_tls(Tls::NoCertificate).await;
    let gateway = start_ready(all_over(&redis.url(), "ssl_cert_reqs=none")).await;
    let cookie = format!("access_token={}", session());
    let mut client =
        attempt(&gateway, "/ws/chat/42/", &[("cookie", &cookie)]).await.expect("a session");
    client.send_json(&json!({"message": "hello"})).await;
    assert_eq!(client.next_json().await["event"], "task_queued");
    let warned = gateway.log_events("redis_certificate_unchecked");
    let named = |key: &str| warned.iter().any(|line| line.to_string().contains(key));
    for key in ["engine.redis.url", "engine.redis.pubsub_url", "upstream.worker.redis_url"] {
        assert!(named(key), "{key} is not in {warned:?}");
    }

    let by_name = redis.url().replace("127.0.0.1", "localhost");
    let query = format!("{}&ssl_check_hostname=false", trusting());
    let gateway = start_ready(all_over(&by_name, &query)).await;
    assert_eq!(gateway.events("redis_certificate_unchecked"), 0);
}

#[tokio::test]
async fn a_server_may_ask_for_a_certificate() {
    let redis = Redis::start_tls(Tls::Certificate).await;
    let gateway = Gateway::start(all_over(&redis.url(), &trusting())).await;
    gateway.wait_for_event("redis_connect_failed").await;
    assert_eq!(gateway.events("redis_connected"), 0);

    let (certificate, key) = (tls_file("client.pem"), tls_file("client.key"));
    let own = format!("{}&ssl_certfile={certificate}&ssl_keyfile={key}", trusting());
    start_ready(all_over(&redis.url(), &own)).await;
    let unchecked = format!("ssl_cert_reqs=none&ssl_certfile={certificate}&ssl_keyfile={key}");
    start_ready(all_over(&redis.url(), &unchecked)).await;
}

#[tokio::test]
async fn files_in_the_url_must_exist() {
    for (query, expected) in [
        (
            "ssl_ca_certs=/no/such/hunter2.pem",
            "engine.redis.url: ssl_ca_certs: cannot read this file",
        ),
        ("ssl_ca_cert=/ca.pem", "unknown parameter ssl_ca_cert; did you mean ssl_ca_certs?"),
    ] {
        let url = "rediss://:hunter2@127.0.0.1:1";
        let (code, log) = Gateway::start_failing(all_over(url, query)).await;
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(expected), "{log}");
        assert!(log.contains("upstream.worker.redis_url"), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}
