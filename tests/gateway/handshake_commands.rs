//! How many commands the gateway sends to Redis for a handshake. docs/deployment.md states them.
//!
//! `INFO commandstats` also counts what scripts call and what renews leases, so that only the commands of a handshake are
//! looked at.

use std::collections::BTreeMap;

use serde_json::json;

use crate::chat::{APP, chat, open_to_all, session_with};
use crate::engine::Engine;
use crate::rig::{Client, Gateway, Redis, Settings};

/// How many clients connect. What the gateway sends by itself meanwhile is less than half of this.
const CLIENTS: usize = 40;

/// The commands of a handshake.
const SENT: [&str; 5] = ["getdel", "evalsha", "eval", "subscribe", "script|load"];

async fn commands(redis: &Redis) -> BTreeMap<String, u64> {
    let info: String = redis.run(&["INFO", "commandstats"]).await;
    let count = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    info.lines().filter_map(count).collect()
}

/// Credentials of a user of its own for each client.
enum Credential {
    None,
    Token,
    Jwt,
}

impl Credential {
    async fn path_of(&self, gateway: &Gateway, number: usize) -> String {
        let path = format!("/ws/chat/{number}/");
        let user = 1000 + number;
        match self {
            Self::None => path,
            Self::Token => {
                let token = gateway.token(json!({"user_id": user})).await;
                format!("{path}?connection_token={token}")
            }
            Self::Jwt => format!("{path}?token={}", session_with(json!({"user_id": user}))),
        }
    }
}

/// The commands that each of several handshakes sends.
async fn of_a_handshake(settings: Settings, credential: Credential) -> BTreeMap<String, usize> {
    let engine = Engine::redis().await;
    let gateway = engine.start(settings).await;
    let mut paths = Vec::new();
    for number in 0..=CLIENTS {
        paths.push(credential.path_of(&gateway, number).await);
    }
    let redis = engine.server().unwrap();
    // The first one loads the scripts.
    let mut open = vec![Client::open(gateway.addr(), &paths[0], &[APP]).await];
    open[0].next_event("connected").await;
    let before = commands(redis).await;
    for path in &paths[1..] {
        let mut client = Client::open(gateway.addr(), path, &[APP]).await;
        client.next_event("connected").await;
        open.push(client);
    }
    let after = commands(redis).await;
    let of_one = |name: &&str| {
        let sent = after.get(*name).unwrap_or(&0) - before.get(*name).unwrap_or(&0);
        let of_one = (sent as f64 / CLIENTS as f64).round() as usize;
        (of_one > 0).then(|| ((*name).to_owned(), of_one))
    };
    SENT.iter().filter_map(of_one).collect()
}

fn expected(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn an_anonymous_handshake_subscribes_and_reads_the_history() {
    let with_history = open_to_all();
    let without = open_to_all().without_history();
    let found = of_a_handshake(with_history, Credential::None).await;
    assert_eq!(found, expected(&[("evalsha", 1), ("subscribe", 1)]));
    let found = of_a_handshake(without, Credential::None).await;
    assert_eq!(found, expected(&[("subscribe", 1)]));
}

#[tokio::test]
async fn the_limits_of_a_user_take_one_command() {
    // A script takes the token (`GETDEL`) and checks the limits.
    let found = of_a_handshake(chat(""), Credential::Token).await;
    assert_eq!(found, expected(&[("getdel", 1), ("evalsha", 2), ("subscribe", 1)]));
    let scripts_alone = chat("").without_history();
    let found = of_a_handshake(scripts_alone, Credential::Token).await;
    assert_eq!(found, expected(&[("getdel", 1), ("evalsha", 1), ("subscribe", 1)]));
    let by_query = chat("auth = [\"query\"]").without_history();
    let found = of_a_handshake(by_query, Credential::Jwt).await;
    assert_eq!(found, expected(&[("evalsha", 1), ("subscribe", 1)]));
}

#[tokio::test]
async fn without_limits_of_users_only_the_token_is_taken() {
    let limits = "[route.limits]\nconnects_per_user = \"off\"\nconnections_per_user = 0";
    let found = of_a_handshake(chat(limits).without_history(), Credential::Token).await;
    assert_eq!(found, expected(&[("getdel", 1), ("subscribe", 1)]));
}
