//! A wall clock that jumps by a day, in both directions. libfaketime shows the gateway another time than the system
//! has; the monotonic clock goes on as a real one does when somebody sets the time.

use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use crate::chat::{APP, relayed, session};
use crate::engine::Engine;
use crate::rig::jwt::in_seconds;
use crate::rig::{Client, Gateway, Reply, Settings, Upstream, http, in_turn, until};

const DAY: i64 = 24 * 3600;

const PATH: &str = "/ws/chat/42/";

/// The clock of one gateway.
pub struct Clock(TempDir);

impl Clock {
    pub fn new() -> Self {
        let clock = Self(tempfile::tempdir().expect("a directory"));
        clock.step(0);
        clock
    }

    /// Puts the gateway's clock `seconds` ahead of the system's.
    pub fn step(&self, seconds: i64) {
        let next = self.0.path().join("next");
        std::fs::write(&next, format!("{seconds:+}\n")).expect("a file");
        std::fs::rename(next, self.file()).expect("the file is replaced at once");
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("offset")
    }

    pub async fn start(&self, settings: Settings) -> Gateway {
        let file = self.file();
        let env = [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap().to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_DONT_RESET", "1".to_owned()),
        ];
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, &**value)).collect();
        Gateway::start_with_env(settings, &env).await
    }
}

/// The path of libfaketime for processes with threads.
fn library() -> String {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib").filter_map(Result::ok);
    let paths = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let found = paths.into_iter().find(|path| path.exists());
    found.expect("libfaketime is installed").to_str().unwrap().to_owned()
}

async fn nothing_is_cut_or_lost_when_the_clock_jumps(engine: Engine, direction: i64) {
    let clock = Clock::new();
    let (writer, reply) = Reply::stream("text/event-stream");
    let upstream = Upstream::start(in_turn([reply])).await;
    let limits = "auth = [\"connection_token\", \"cookie\", \"anonymous\"]\n\
                  [route.limits]\nmessages_per_user = \"100/1h\"";
    let gateway = clock.start(engine.of(relayed(&upstream.url("/"), limits))).await;
    until("readiness", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
    let cookie = format!("access_token={}", session());
    let with_session = [APP, ("cookie", &*cookie)];
    let mut by_session = Client::open(gateway.addr(), PATH, &with_session).await;
    by_session.next_event("connected").await;
    let token = gateway.token(json!({"user_id": 8})).await;
    let path = format!("{PATH}?connection_token={token}");
    let (mut client, connected) = Client::connected(&gateway, &path).await;
    client.send_json(&json!({"message": "hello"})).await;
    client.next_event("task_queued").await;
    let chunk = |n: u64| format!("data: {}\n\n", json!({"event": "chunk", "n": n}));
    client.next_event("processing_started").await;
    writer.write(chunk(0));
    let first = client.next_event("chunk").await;
    let token = gateway.token(json!({"user_id": 8})).await;
    assert!(gateway.log_time() < in_seconds(600), "the clocks agree");

    clock.step(direction * DAY);
    until("a log line of the other time", async || {
        gateway.api("/v1/debug", json!({"user_id": 9, "seconds": 60})).await;
        let ahead = gateway.log_time() - in_seconds(0);
        (ahead.abs() > DAY - 600).then(|| assert_eq!(ahead.signum(), direction))
    })
    .await;
    // The reply goes on and ends, and the connection stays.
    writer.write(chunk(1));
    assert_eq!(client.next_json().await["n"], 1);
    writer.write(format!("data: {}\n\n", json!({"event": "complete"})));
    assert_eq!(client.next_json().await["event"], "complete");
    client.send_json(&json!({"message": "hello"})).await;
    assert_eq!(client.next_json().await["event"], "task_queued");
    // The time to live of tokens and histories goes on as if nothing had happened.
    let path = format!("{PATH}?connection_token={token}");
    let (mut by_token, _) = Client::connected(&gateway, &path).await;
    let epoch = connected["epoch"].as_str().expect("an epoch");
    let since = first["offset"].as_u64().expect("an offset");
    let path = format!("{PATH}?since={since}&epoch={epoch}");
    let (mut resumed, answer) = Client::connected(&gateway, &path).await;
    assert_eq!(answer["recovered"], true, "{answer}");
    assert_eq!(resumed.next_event("chunk").await["n"], 1);
    // The times in a session are judged by the clock, as they are everywhere else: the one that is over is closed.
    let mut tried = Client::open(gateway.addr(), PATH, &with_session).await;
    match direction {
        1 => {
            assert_eq!(tried.closed().await, Some(4001));
            assert_eq!(by_session.closed().await, Some(4001));
        }
        _ => assert_eq!(tried.next_json().await["event"], "connected"),
    }

    clock.step(0);
    until("the same time as before", async || {
        gateway.api("/v1/debug", json!({"user_id": 9, "seconds": 60})).await;
        ((gateway.log_time() - in_seconds(0)).abs() < 600).then_some(())
    })
    .await;
    let mut again = Client::open(gateway.addr(), PATH, &with_session).await;
    assert_eq!(again.next_json().await["event"], "connected");
    gateway.publish("chat_42", json!({"event": "marker"})).await;
    for client in [&mut client, &mut by_token, &mut resumed, &mut again] {
        while client.next_json().await["event"] != "marker" {}
    }
}

macro_rules! both_directions {
    ($($name:ident: $direction:expr),*) => {
        $(
            mod $name {
                use crate::engine::Engine;

                #[tokio::test]
                async fn memory() {
                    let engine = Engine::memory();
                    super::nothing_is_cut_or_lost_when_the_clock_jumps(engine, $direction).await;
                }

                #[tokio::test]
                async fn redis() {
                    let engine = Engine::redis().await;
                    super::nothing_is_cut_or_lost_when_the_clock_jumps(engine, $direction).await;
                }
            }
        )*
    };
}

both_directions!(a_day_ahead: 1, a_day_back: -1);
