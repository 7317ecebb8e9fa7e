//! `tidegate top`.

use std::io::Write as _;

use super::*;
use crate::rig::{API_KEY, Client, Reply, Upstream, http};

async fn busy_gateway() -> (Gateway, Upstream, Vec<Client>) {
    let upstream = Upstream::start(|_| Reply::json(200, &json!({"task_id": "t"}))).await;
    let gateway = Gateway::start(Settings::chat(&upstream.url("/"))).await;
    let mut clients = Vec::new();
    for user in 0..3 {
        let token = gateway.token(json!({"user_id": format!("user-{user}")})).await;
        let path = format!("/ws/chat/{}/?connection_token={token}", 40 + user);
        clients.push(Client::connected(&gateway, &path).await.0);
    }
    clients[0].send_json(&json!({"message": "hello"})).await;
    clients[0].next_event("task_queued").await;
    gateway.publish("chat_40", json!({"event": "complete", "task_id": "t"})).await;
    (gateway, upstream, clients)
}

#[tokio::test]
async fn one_view_is_printed() {
    let (gateway, _upstream, _clients) = busy_gateway().await;
    let url = format!("http://{}", gateway.admin());
    let once = ["top", "--url", &url, "--once", "--interval", "200ms"];
    let text = tidegate_with(&[("TIDEGATE_API_KEY", API_KEY)], &once).await.ok();
    for part in [
        &format!("tidegate {}  {}  ready", env!("CARGO_PKG_VERSION"), gateway.admin()),
        "connections 3",
        "worker",
        "/ws/chat/{conversation_id}/",
        "channels (3)",
        "chat_40",
        "chat_42",
        "slowest connections (3)",
        "user-0",
        "127.0.0.1",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert!(!text.contains('\u{1b}') && !text.contains("q quit"), "{text}");
    // Without a key, the numbers are shown as well.
    let text = tidegate(&once).await.ok();
    assert!(text.contains("connections 3") && text.contains("TIDEGATE_API_KEY"), "{text}");
    // The same holds with a wrong key.
    let text = tidegate_with(&[("TIDEGATE_API_KEY", "wrong")], &once).await.ok();
    assert!(text.contains("connections 3") && text.contains("(401)"), "{text}");
}

#[tokio::test]
async fn a_gateway_that_is_not_ready_is_shown_so() {
    let mut redis = Redis::start().await;
    redis.stop();
    let gateway = Gateway::start(Settings::chat("http://127.0.0.1:1/").redis(&redis.url())).await;
    let url = format!("http://{}", gateway.admin());
    let text = tidegate(&["top", "--url", &url, "--once", "--interval", "10ms"]).await.ok();
    for part in ["NOT READY", "Redis cannot be reached", "DOWN", "subscriptions NOT LIVE"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
}

#[tokio::test]
async fn obstacles_are_explained() {
    let url = format!("http://{}", unused_address());
    let output = tidegate(&["top", "--url", &url, "--once"]).await.failed();
    assert!(output.contains("is the gateway running?"), "{output}");
    let output = tidegate(&["top", "--url", &url]).await.failed();
    assert!(output.contains("--once"), "{output}");
    // Another kind of server is listening there.
    let upstream = Upstream::start(|_| Reply::json(200, &json!({}))).await;
    let output = tidegate(&["top", "--url", &upstream.url(""), "--once"]).await;
    assert!(output.failed().contains("/metrics is not a valid sample"));
    for wrong in [&["top"][..], &["top", "--url", &url, "--interval", "0s"]] {
        assert_eq!(tidegate(wrong).await.code, Some(2), "{wrong:?}");
    }
}

/// Runs on a pseudo-terminal, which `script` of util-linux provides.
#[tokio::test]
async fn it_takes_a_terminal_and_gives_it_back() {
    let (gateway, _upstream, _clients) = busy_gateway().await;
    let line = format!(
        "stty rows 40 cols 120; exec {} top --url http://{} --interval 100ms",
        env!("CARGO_BIN_EXE_tidegate"),
        gateway.admin()
    );
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TIDEGATE_API_KEY", API_KEY)
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is installed");
    let screen = Bytes::read(child.stdout.take().unwrap());
    let mut keyboard = child.stdin.take().unwrap();
    screen.shows("slowest").await;
    screen.shows("user-0").await;
    let calls = http::get(gateway.admin(), "/metrics").await;
    assert_eq!(calls.status, 200);
    keyboard.write_all(b"p").unwrap();
    screen.shows("PAUSED").await;
    keyboard.write_all(b"sq").unwrap();
    let end = tokio::task::spawn_blocking(move || child.wait());
    assert_eq!(within("its end", end).await.unwrap().unwrap().code(), Some(0));
    // Switch to the other screen and back.
    screen.shows("\u{1b}[?1049h").await;
    screen.shows("\u{1b}[?1049l").await;
}

/// What has been written to a terminal so far.
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Bytes {
    fn read(mut pipe: impl std::io::Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut part) {
                shared.lock().unwrap().extend_from_slice(&part[..read]);
            }
        });
        Self(bytes)
    }

    async fn shows(&self, text: &str) {
        until(&format!("{text:?} on the screen"), async || {
            let bytes = self.0.lock().unwrap();
            bytes.windows(text.len()).any(|part| part == text.as_bytes()).then_some(())
        })
        .await;
    }
}
