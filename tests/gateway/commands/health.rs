//! `tidegate health`.

use super::*;

fn settings() -> Settings {
    Settings::chat("http://127.0.0.1:1/")
}

fn at(address: impl std::fmt::Display) -> String {
    format!("http://{address}")
}

#[tokio::test]
async fn a_ready_gateway_is_healthy() {
    let gateway = Gateway::start(settings()).await;
    let url = at(gateway.admin());
    assert_eq!(tidegate(&["health", "--url", &url]).await.ok(), "ready\n");
    assert_eq!(tidegate(&["health", "--url", &url, "--live"]).await.ok(), "alive\n");
    let listen = gateway.admin().to_string();
    let from_variable = [("TIDEGATE__ADMIN__LISTEN", listen.as_str())];
    assert_eq!(tidegate_with(&from_variable, &["health"]).await.ok(), "ready\n");
    let file = gateway.config_file();
    let config = ["health", "--config", text(&file)];
    assert_eq!(tidegate_with(&from_variable, &config).await.ok(), "ready\n");
    // The probe works even if the file has a mistake that the running gateway has not loaded.
    std::fs::write(&file, "[route]\nnot = 1").unwrap();
    assert_eq!(tidegate_with(&from_variable, &config).await.ok(), "ready\n");
}

#[tokio::test]
async fn a_gateway_without_its_redis_is_alive_and_explains_why_it_is_not_ready() {
    let mut redis = Redis::start().await;
    redis.stop();
    let gateway = Gateway::start(settings().redis(&redis.url())).await;
    let url = at(gateway.admin());
    let output = tidegate(&["health", "--url", &url]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[0], "not ready");
    for reason in
        ["  redis: Redis cannot be reached: ", "  subscriptions: subscriptions are not live"]
    {
        assert!(lines.iter().any(|line| line.starts_with(reason)), "{output:?}");
    }
    assert!(!output.stdout.contains("shutdown"), "only what is wrong: {output:?}");
    tidegate(&["health", "--url", &url, "--live"]).await.ok();
}

#[tokio::test]
async fn a_gateway_that_does_not_run_is_not_healthy() {
    let unused_address = unused_address();
    for live in [&[][..], &["--live"]] {
        let url = at(&unused_address);
        let output = tidegate(&[&["health", "--url", &url], live].concat()).await.failed();
        assert!(
            output.contains(&unused_address) && output.contains("is the gateway running?"),
            "{output}"
        );
    }
    // This server accepts the connection and does not answer.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = at(silent.local_addr().unwrap());
    let output = tidegate(&["health", "--url", &url, "--timeout", "200ms"]).await.failed();
    assert!(output.contains("no response within 200 ms"), "{output}");
}

#[tokio::test]
async fn wrong_usage_is_explained() {
    for wrong in [
        &["health", "--url", "ftp://x"][..],
        &["health", "--url", "http://127.0.0.1:1/readyz"],
        &["health", "--timeout", "0s"],
        &["health", "--url", "http://127.0.0.1:1", "--config", "x"],
    ] {
        let output = tidegate(wrong).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains("Usage") || output.stderr.contains("--help"), "{output:?}");
    }
    let output = tidegate(&["health", "--config", "no/such.toml"]).await.failed();
    assert!(output.contains("no/such.toml"), "{output}");
}
