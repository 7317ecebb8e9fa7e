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
    // The probe outlives a mistake in a file that the gateway has not taken.
    std::fs::write(&file, "[route]\nnot = 1").unwrap();
    assert_eq!(tidegate_with(&from_variable, &config).await.ok(), "ready\n");
}

#[tokio::test]
async fn a_gateway_without_its_redis_is_alive_and_says_why_it_is_not_ready() {
    let mut redis = Redis::start().await;
    redis.stop();
    let gateway = Gateway::start(settings().redis(&redis.url())).await;
    let url = at(gateway.admin());
    let said = tidegate(&["health", "--url", &url]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines[0], "not ready");
    for reason in
        ["  redis: Redis cannot be reached", "  subscriptions: subscriptions are not live"]
    {
        assert!(lines.contains(&reason), "{said:?}");
    }
    assert!(!said.stdout.contains("shutdown"), "only what is wrong: {said:?}");
    tidegate(&["health", "--url", &url, "--live"]).await.ok();
}

#[tokio::test]
async fn a_gateway_that_does_not_run_is_not_healthy() {
    let nobody = nobody();
    for live in [&[][..], &["--live"]] {
        let url = at(&nobody);
        let said = tidegate(&[&["health", "--url", &url], live].concat()).await.failed();
        assert!(said.contains(&nobody) && said.contains("is the gateway running?"), "{said}");
    }
    // One that takes the connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = at(silent.local_addr().unwrap());
    let said = tidegate(&["health", "--url", &url, "--timeout", "200ms"]).await.failed();
    assert!(said.contains("no response within 200 ms"), "{said}");
}

#[tokio::test]
async fn wrong_usage_is_told() {
    for wrong in [
        &["health", "--url", "ftp://x"][..],
        &["health", "--url", "http://127.0.0.1:1/readyz"],
        &["health", "--timeout", "0s"],
        &["health", "--url", "http://127.0.0.1:1", "--config", "x"],
    ] {
        let said = tidegate(wrong).await;
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains("Usage") || said.stderr.contains("--help"), "{said:?}");
    }
    let said = tidegate(&["health", "--config", "no/such.toml"]).await.failed();
    assert!(said.contains("no/such.toml"), "{said}");
}
