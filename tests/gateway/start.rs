//! Starting and failing to start: every mistake is named, and the exit code tells them apart.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use super::rig::{API_KEY, Client, Gateway, Redis, Settings, free_address, http};

const PATH: &str = "/ws/chat/42/";

fn settings() -> Settings {
    Settings::chat("http://127.0.0.1:1/")
}

fn listening_at(section: &str, address: SocketAddr) -> Settings {
    let keys = if section == "admin" { format!("api_keys = [{API_KEY:?}]") } else { String::new() };
    settings().section(section, &format!("listen = \"{address}\"\n{keys}"))
}

/// Runs any command but `serve`; `arguments` follow `--config`.
fn tidegate(command: &str, config: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args([command, "--config"])
        .arg(config)
        .args(arguments)
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    for (section, key) in [("server", "server.listen"), ("admin", "admin.listen")] {
        let in_use = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = in_use.local_addr().unwrap();
        let (code, log) = Gateway::start_failing(listening_at(section, address)).await;
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(key) && log.contains(&address.to_string()), "{log}");
        assert!(!log.contains("\"listening\""), "{log}");
    }
}

#[tokio::test]
async fn a_second_gateway_does_not_share_the_ports_of_the_first() {
    let first = Gateway::start(settings()).await;
    for (section, address) in [("server", first.addr()), ("admin", first.admin())] {
        let (code, log) = Gateway::start_failing(listening_at(section, address)).await;
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(&address.to_string()), "{log}");
    }
    Client::connected(&first, PATH).await;
}

#[tokio::test]
async fn a_gateway_takes_its_port_again_at_once() {
    let address = free_address();
    for _ in 0..2 {
        let mut gateway = Gateway::start(listening_at("server", address)).await;
        assert_eq!(gateway.addr(), address);
        // The gateway closes first, so that its port has a connection in TIME_WAIT.
        let (mut client, _) = Client::connected(&gateway, PATH).await;
        gateway.signal(rustix::process::Signal::TERM);
        assert_eq!(client.closed().await, Some(1012));
        drop(client);
        assert_eq!(gateway.wait_exit().await, Some(0));
    }
}

#[test]
fn every_mistake_is_listed_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("gateway.toml");
    let mistaken = r#"
[server]
listen = "nowhere"
treads = 2
max_header_bytes = "16 potatoes"
trusted_proxies = ["10.0.0.0/99"]

[engine]
kind = "postgres"

[origins]
allow = ["app.example.com"]

[jwt]
keys = [{ alg = "none", secret = "s" }]

[log]
level = "${TIDEGATE_TEST_IS_NOT_SET}"

[[route]]
path = "ws/{a}"
channel = "chat"
idle_ping = "soon"

[[route]]
path = "/ws/{a}"
channel = "chat_{b}"

[[route]]
path = "/other/"
channel = "other"
upstream = "nobody"

[upstream.worker]
kind = "http"
url = "ftp://x/"
"#;
    std::fs::write(&config, mistaken).unwrap();
    for command in ["check", "serve"] {
        let output = tidegate(command, &config, &[]);
        let log = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{log}");
        for key in [
            "server.listen",
            "server.treads",
            "server.max_header_bytes",
            "server.trusted_proxies",
            "engine.kind",
            "origins.allow",
            "jwt.keys",
            "log.level",
            "route[0].path",
            "route[0].idle_ping",
            "route[1].channel",
            "route[2].upstream",
            "upstream.worker.url",
        ] {
            assert!(log.contains(key), "no {key} in\n{log}");
        }
        // The message names what was found and what would be right.
        for hint in ["nowhere", "threads", "16 potatoes", "postgres", "TIDEGATE_TEST_IS_NOT_SET"] {
            assert!(log.contains(hint), "no {hint} in\n{log}");
        }
        assert!(log.contains(config.to_str().unwrap()), "{log}");
    }
}

#[test]
fn a_file_that_is_no_config_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.toml");
    let broken = directory.path().join("broken.toml");
    std::fs::write(&broken, "[server\nlisten = 1").unwrap();
    let empty = directory.path().join("empty.toml");
    std::fs::write(&empty, "").unwrap();
    for config in [&missing, &broken, &empty] {
        for command in ["check", "serve"] {
            let output = tidegate(command, config, &[]);
            let log = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command} {config:?}: {log}");
            assert!(log.contains(config.to_str().unwrap()), "{log}");
        }
    }
}

#[tokio::test]
async fn a_good_config_passes_and_its_gateway_starts() {
    let gateway = Gateway::start(settings()).await;
    let output = tidegate("check", &gateway.config_file(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).ends_with("ok, 1 route, 1 upstream"), "{output:?}");
}

#[tokio::test]
async fn settings_are_overridden_by_the_environment() {
    let variables = [("TIDEGATE__SERVER__THREADS", "1"), ("TIDEGATE__LOG__LEVEL", "debug")];
    let gateway = Gateway::start_with_env(settings(), &variables).await;
    Client::connected(&gateway, PATH).await;
    gateway.wait_for_event("connection_opened").await;
}

#[tokio::test]
async fn a_minted_token_opens_a_socket_once() {
    let redis = Redis::start().await;
    let on_memory = listening_at("admin", free_address());
    let on_redis = settings().redis(&redis.url());
    for settings in [on_memory, on_redis] {
        let gateway = Gateway::start(settings).await;
        super::rig::until("readiness", async || {
            (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
        })
        .await;
        let config = gateway.config_file();
        let arguments = ["--user", "7", "--name", "ana", "--channel", "chat_*"];
        // This runs on another thread, since the test waits for the process of the command.
        let minted = tokio::task::spawn_blocking(move || tidegate("token", &config, &arguments));
        let output = minted.await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let path = format!("{PATH}?connection_token={}", text(&output.stdout));
        let (_client, connected) = Client::connected(&gateway, &path).await;
        assert_eq!(connected["user_id"], json!(7));
        let mut again = Client::open(gateway.addr(), &path, &[]).await;
        assert_eq!(again.closed().await, Some(4001));
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_created_is_explained() {
    let redis = {
        let mut redis = Redis::start().await;
        redis.stop();
        redis
    };
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("gateway.toml");
    for (settings, reason) in [
        (settings().section("admin", "listen = \"127.0.0.1:0\""), "api_keys"),
        (listening_at("admin", free_address()), "127.0.0.1"),
        (settings().redis(&redis.url()), "Redis"),
    ] {
        std::fs::write(&config, settings.to_string()).unwrap();
        let output = tidegate("token", &config, &["--user", "7"]);
        let log = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains(reason), "no {reason} in {log}");
        assert_eq!(text(&output.stdout), "");
    }
}
