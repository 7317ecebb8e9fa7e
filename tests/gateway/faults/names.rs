//! Names that cannot be resolved: the upstream's and Redis's. The gateway runs with files of its own in place of
//! `/etc/hosts` and `/etc/resolv.conf`, in a mount namespace, which needs the rights of root.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use tempfile::TempDir;

use crate::rig::{Client, Gateway, Redis, Settings, Upstream, http, recovered, until};

/// An address of the loopback network that nothing else uses, for a name server that does not answer.
const NAME_SERVER: &str = "127.53.53.53";

struct Names {
    directory: TempDir,
    /// Takes questions and never answers.
    _name_server: UdpSocket,
}

impl Names {
    /// `None` if this user may not do that.
    fn new() -> Option<Self> {
        let may_mount = std::process::Command::new("unshare").args(["--mount", "true"]).status();
        let name_server = UdpSocket::bind((NAME_SERVER, 53));
        let (Ok(true), Ok(name_server)) = (may_mount.map(|status| status.success()), name_server)
        else {
            eprintln!("not tested: names can only be taken away by root");
            return None;
        };
        let names = Self { directory: tempfile::tempdir().unwrap(), _name_server: name_server };
        std::fs::write(names.resolv_conf(), format!("nameserver {NAME_SERVER}\n")).unwrap();
        names.set(true);
        Some(names)
    }

    fn resolv_conf(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }

    fn hosts(&self) -> PathBuf {
        self.directory.path().join("hosts")
    }

    /// Whether `upstream.test` and `redis.test` have an address. Where they have none, the name server is asked.
    fn set(&self, resolve: bool) {
        let names = if resolve { "127.0.0.1 upstream.test redis.test\n" } else { "" };
        std::fs::write(self.hosts(), format!("127.0.0.1 localhost\n{names}")).unwrap();
    }

    async fn start(&self, settings: Settings) -> Gateway {
        let (hosts, resolv) = (self.hosts(), self.resolv_conf());
        let prepare = format!(
            "mount --bind {} /etc/hosts && mount --bind {} /etc/resolv.conf && exec \"$@\"",
            hosts.display(),
            resolv.display()
        );
        Gateway::start_under(&["unshare", "--mount", "sh", "-c", &prepare, "sh"], settings).await
    }
}

async fn wait_until_ready(gateway: &Gateway, ready: bool) {
    until("readiness", async || {
        let status = http::get(gateway.admin(), "/readyz").await.status;
        ((status == 200) == ready).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upstream_without_an_address_is_reported_and_used_again_once_it_has_one() {
    let Some(names) = Names::new() else { return };
    let upstream = Upstream::accepting().await;
    let url = format!("http://upstream.test:{}/", upstream.addr().port());
    let settings = Settings::chat(&url).upstream(
        "worker",
        &format!("kind = \"http\"\nurl = {url:?}\ntimeout = \"1s\"\nretries = 0"),
    );
    names.set(false);
    let gateway = names.start(settings).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    client.send_json(&json!({"message": "hello"})).await;
    assert_eq!(client.next_event("error").await["code"], "upstream_unavailable");
    // Meanwhile the node serves others.
    gateway.publish("chat_42", json!({"event": "marker"})).await;
    client.next_event("marker").await;
    let since = Instant::now();
    names.set(true);
    until("answer of the upstream", async || {
        client.send_json(&json!({"message": "hello"})).await;
        let frame = client.next_json().await;
        (frame["event"] == "task_queued").then_some(())
    })
    .await;
    recovered("the upstream's name is resolved again", since);
    // A connection that is open needs no name.
    names.set(false);
    client.send_json(&json!({"message": "hello"})).await;
    client.next_event("task_queued").await;
}

#[tokio::test]
async fn redis_without_an_address_is_reported_and_used_again_once_it_has_one() {
    let Some(names) = Names::new() else { return };
    let mut redis = Redis::start_durable().await;
    let url = format!("redis://redis.test:{}", redis.address().split_once(':').unwrap().1);
    let gateway = names.start(Settings::chat("http://127.0.0.1:1/").redis(&url)).await;
    wait_until_ready(&gateway, true).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    names.set(false);
    // Open connections need no name; new ones do.
    gateway.publish("chat_42", json!({"n": 1})).await;
    assert_eq!(client.next_json().await["n"], 1);
    redis.restart().await;
    wait_until_ready(&gateway, false).await;
    let since = Instant::now();
    names.set(true);
    wait_until_ready(&gateway, true).await;
    recovered("the name of Redis is resolved again", since);
    gateway.publish("chat_42", json!({"n": 2})).await;
    assert_eq!(client.next_json().await["n"], 2);
}
