//! The admin port over loopback, on the memory engine.

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::*;
use crate::broker::Core;
use crate::config::{Config, Secret, SharedConfig};
use crate::control::{self, ThreadCommand, Threads};
use crate::telemetry::admin::{Call, api_called};

pub(super) const KEY: (&str, &str) = ("x-api-key", "key-2");
const MAX_PUBLICATION_BYTES: usize = 1024;

/// A served admin port, and what its parts can be reached by.
pub(super) struct Bench {
    address: std::net::SocketAddr,
    pub tokens: TokenStore,
    shutdown: Shutdown,
    /// The engine; without it nothing can be published.
    core: Option<Core>,
}

/// Without any route; a drain takes a minute, and so does what follows it.
fn config(keys: &[&str]) -> Config {
    let mut config = Config::from_toml(
        "shutdown = { drain = \"60s\", grace = \"60s\" }\n\
         [[route]]\npath = \"/\"\nchannel = \"all\"\nauth = [\"anonymous\"]\n",
    )
    .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    config.routes.clear();
    config.admin.api_keys = keys.iter().map(|key| Secret::new(*key)).collect();
    config
}

impl Bench {
    async fn new(keys: &[&str], ready: Vec<(&'static str, ReadyCheck)>) -> Self {
        let (core, _handles) = Core::new(1, MAX_PUBLICATION_BYTES);
        let config = SharedConfig::new(config(keys));
        let (threads, mut workers) = Threads::new(2, Arc::new(|_, _| 0));
        let worker = workers.swap_remove(0);
        tokio::spawn(close_as_many_as_the_code_says(worker));
        let ttl = Duration::from_secs(60);
        let (tokens, shutdown) = (TokenStore::memory(ttl), Shutdown::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let publisher = Publisher::memory(
            core.intake(),
            config.clone(),
            crate::broker::MemoryHistory::new(1 << 20),
            MAX_PUBLICATION_BYTES,
        );
        metrics::with_local_recorder(&recorder, || api_called(Call::Tokens, 200, address));
        let admin = Admin {
            tls: None,
            config: config.clone(),
            token_ttl: ttl,
            max_publication_bytes: MAX_PUBLICATION_BYTES,
            history: publisher.history(),
            publisher,
            tails: core.tails(),
            limits: SharedLimits::memory(),
            listings: Listings::default(),
            tokens: tokens.clone(),
            control: Control::memory(threads),
            presence: PresenceStore::memory(),
            log: crate::telemetry::log::filter("info", None).unwrap().0,
            ready,
            ready_queues: std::sync::Arc::new(Vec::new),
            metrics,
            shutdown: shutdown.clone(),
            max_connections: MAX_CONNECTIONS,
            failed_keys: NetworkRates::default(),
        };
        tokio::task::spawn_local(admin.serve(listener));
        Self { address, tokens, shutdown, core: Some(core) }
    }

    pub async fn with_keys() -> Self {
        Self::new(&["key-1", "key-2"], Vec::new()).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let (mut from, mut to) = stream.split();
        let mut answer = Vec::new();
        // Both may fail: the server may answer before it has read the body, and reset the connection after that.
        let _ = tokio::join!(to.write_all(request.as_bytes()), from.read_to_end(&mut answer));
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        Reply {
            status: head[9..12].parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    /// A connection that the test writes to itself.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[KEY], &body.to_string()).await
    }
}

/// One thread of two; the other is gone.
async fn close_as_many_as_the_code_says(mut worker: control::WorkerHandle) {
    while let Some(task) = worker.next().await {
        match &*task.command {
            ThreadCommand::Disconnect(command) => {
                let closed = command.code().into();
                task.answer_closed(closed);
            }
            ThreadCommand::List(_) => drop(task),
        }
    }
}

pub(super) struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    pub fn code(&self) -> String {
        let json = self.json();
        assert!(json["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
        json["error"]["code"].as_str().unwrap().to_owned()
    }
}

/// The admin port's tasks are local to its thread.
pub(super) async fn locally(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn metrics_and_health_need_no_key() {
    locally(async {
        let bench = Bench::new(&[], Vec::new()).await;
        let metrics = bench.send("GET", "/metrics", &[], "").await;
        assert!(
            metrics.head.contains("content-type: text/plain; version=0.0.4"),
            "{}",
            metrics.head
        );
        assert!(
            metrics.body.contains("tidegate_api_calls_total{call=\"tokens\",outcome=\"ok\"} 1"),
            "{}",
            metrics.body
        );
        let live = bench.send("GET", "/livez", &[], "").await;
        assert_eq!((live.status, live.body.as_str()), (200, "ok\n"));
        let head = bench.send("HEAD", "/livez", &[], "").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
    })
    .await;
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    locally(async {
        let is_up = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = Arc::clone(&is_up);
        let check: ReadyCheck = Arc::new(move || {
            seen.load(std::sync::atomic::Ordering::Relaxed).then_some(()).ok_or("away".into())
        });
        let bench = Bench::new(&[], vec![("redis", check)]).await;
        let answer = async || {
            let reply = bench.send("GET", "/readyz", &[], "").await;
            (reply.status, reply.json())
        };
        let checks = |redis, shutdown| json!({"redis": redis, "shutdown": shutdown});
        let expected = json!({"ready": false, "checks": checks("away", "ok")});
        assert_eq!(answer().await, (503, expected));
        is_up.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(answer().await, (200, json!({"ready": true, "checks": checks("ok", "ok")})));
        bench.shutdown.begin();
        let expected = json!({"ready": false, "checks": checks("ok", "draining")});
        assert_eq!(answer().await, (503, expected));
        assert_eq!(bench.send("GET", "/livez", &[], "").await.status, 200, "alive while draining");
    })
    .await;
}

#[tokio::test]
async fn the_api_opens_to_its_keys_alone() {
    locally(async {
        let bench = Bench::with_keys().await;
        for (headers, status) in [
            (&[] as &[_], 401),
            (&[("x-api-key", "")], 401),
            (&[("x-api-key", "key-3")], 401),
            (&[("x-api-key", "key-11")], 401),
            (&[("authorization", "Bearer")], 401),
            (&[("authorization", "Basic key-1")], 401),
            (&[("authorization", "Bearer wrong"), KEY], 401),
            (&[("authorization", "bearer key-1")], 200),
            (&[("authorization", "Basic key-1"), KEY], 200),
            (&[KEY], 200),
        ] {
            let reply = bench.send("POST", "/v1/tokens", headers, r#"{"user_id":1}"#).await;
            assert_eq!(reply.status, status, "{headers:?}");
            if status == 401 {
                assert_eq!(reply.code(), "unauthorized");
                assert!(reply.head.contains("www-authenticate: bearer"), "{}", reply.head);
            }
        }
        let off = Bench::new(&[], Vec::new()).await;
        let reply = off.post("/v1/publish", &json!({"channel": "a", "data": 1})).await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "api_disabled"));
    })
    .await;
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    locally(async {
        let bench = Bench::with_keys().await;
        for (method, path, status, allow) in [
            ("GET", "/", 404, None),
            ("POST", "/v1/other", 404, None),
            ("POST", "/metrics", 405, Some("allow: get, head, options")),
            ("GET", "/v1/disconnect", 405, Some("allow: post")),
            ("GET", "/v1/publish", 405, Some("allow: post")),
            ("HEAD", "/v1/tokens", 405, Some("allow: post")),
        ] {
            let reply = bench.send(method, path, &[KEY], "").await;
            assert_eq!(reply.status, status, "{method} {path}");
            assert!(allow.is_none_or(|allow| reply.head.contains(allow)), "{}", reply.head);
        }
    })
    .await;
}

#[tokio::test]
async fn publications_are_all_checked_before_any_is_published() {
    locally(async {
        let bench = Bench::with_keys().await;
        let good = json!({"channel": "chat_42", "data": {"event": "chunk"}});
        let (large, huge) = ("x".repeat(1100), "x".repeat(100_000));
        for (body, status, code) in [
            (json!([]), 400, "bad_request"),
            (json!({}), 400, "bad_request"),
            (json!({"channel": "chat_42"}), 400, "bad_request"),
            (json!({"channel": "chat_42", "data": 1, "idempotency_key": ""}), 400, "bad_request"),
            (json!({"channel": "chat_42", "data": 1, "more": "k"}), 400, "bad_request"),
            (json!({"channel": "a", "data": 1, "publications": []}), 400, "bad_request"),
            (json!({"channel": "no spaces", "data": 1}), 400, "bad_channel"),
            (json!({"publications": [good, {"channel": "", "data": 1}]}), 400, "bad_channel"),
            (json!({"publications": vec![&good; 1001]}), 400, "bad_request"),
            (json!({"channel": "chat_42", "data": large}), 413, "too_large"),
            (json!({"channel": "chat_42", "data": huge}), 413, "too_large"),
        ] {
            let reply = bench.post("/v1/publish", &body).await;
            let shown: String = body.to_string().chars().take(80).collect();
            assert_eq!((reply.status, reply.code().as_str()), (status, code), "{shown}");
        }
        for body in ["", "nonsense", "{\"channel\":\"a\",\"data\":", "[\"chat_42\", 1, null]"] {
            assert_eq!(bench.send("POST", "/v1/publish", &[KEY], body).await.status, 400, "{body}");
        }
        assert_eq!(bench.post("/v1/publish", &good).await.json(), json!({"published": 1}));
        let batch = json!({"publications": [good, good]});
        let answer = json!({"published": 2, "channels": [{"channel": "chat_42"}]});
        assert_eq!(bench.post("/v1/publish", &batch).await.json(), answer);
    })
    .await;
}

#[tokio::test]
async fn without_the_engine_nothing_is_published() {
    locally(async {
        let mut bench = Bench::with_keys().await;
        drop(bench.core.take());
        let reply = bench.post("/v1/publish", &json!({"channel": "a", "data": 1})).await;
        assert_eq!((reply.status, reply.code().as_str()), (503, "engine_down"));
    })
    .await;
}
