//! A Redis that answers PING and refuses the rest: readiness names what is refused and why, as does the log, and the
//! node recovers by itself.

use std::time::Instant;

use serde_json::{Value, json};

use crate::outcome::{Outcome, outcome};
use crate::rig::{API_KEY, Client, Gateway, Redis, Settings, http, recovered, until};

fn settings(url: &str) -> Settings {
    Settings::chat("http://127.0.0.1:1/").redis(url)
}

async fn checks(gateway: &Gateway) -> (u16, Value) {
    let page = http::get(gateway.admin(), "/readyz").await;
    (page.status, page.json()["checks"].clone())
}

async fn wait_until_ready(gateway: &Gateway) {
    until("readiness", async || (checks(gateway).await.0 == 200).then_some(())).await;
}

/// Waits until `check` names `command` and `reason`, and expects the same in the metrics and the log.
async fn expect_refusal(gateway: &Gateway, check: &str, command: &str, reason: &str) {
    let what = format!("{check} that names {command} and {reason}");
    until(&what, async || {
        let (status, checks) = checks(gateway).await;
        let text = checks[check].as_str()?;
        (status == 503 && text.contains(command) && text.contains(reason)).then_some(())
    })
    .await;
    until(&format!("log line: {what}"), async || {
        let lines = gateway.log_events("redis_probe_failed");
        let fits = |line: &Value| {
            let line = line.to_string();
            line.contains(command) && line.contains(reason)
        };
        lines.iter().any(fits).then_some(())
    })
    .await;
    let name = match check {
        "redis" => "engine.redis.pubsub_url",
        "redis_tokens" => "engine.redis.tokens_url",
        "redis_limits" => "engine.redis.limits_url",
        other => other,
    };
    gateway.wait_for_metric("tidegate_redis_up", &[("connection", name)], 0.0).await;
    assert_eq!(http::get(gateway.admin(), "/livez").await.status, 200);
}

async fn publish_status(gateway: &Gateway) -> u16 {
    gateway.api("/v1/publish", json!({"channel": "chat_42", "data": {"n": 1}})).await.status
}

#[tokio::test]
async fn a_server_that_refuses_writes_is_named_and_recovers() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings(&redis.url())).await;
    wait_until_ready(&gateway).await;
    for (setting, broken, whole, reason) in
        [("min-replicas-to-write", "1", "0", "NOREPLICAS"), ("maxmemory", "1", "0", "OOM")]
    {
        let () = redis.run(&["CONFIG", "SET", setting, broken]).await;
        expect_refusal(&gateway, "redis", "XADD", reason).await;
        assert_eq!(publish_status(&gateway).await, 503, "{setting}");
        if reason == "NOREPLICAS" {
            // The first client of a channel begins its history, which is a write.
            let refused = outcome(&gateway, "/ws/chat/42/", &[]).await;
            assert_eq!(refused, Outcome::Closed(1013));
        }
        let refused = gateway.wait_for_log("redis_refused").await;
        assert!(refused.contains("NOREPLICAS") || refused.contains("OOM"), "{refused}");
        let () = redis.run(&["CONFIG", "SET", setting, whole]).await;
        let since = Instant::now();
        wait_until_ready(&gateway).await;
        recovered(&format!("Redis refused writes ({reason}) and takes them again"), since);
        gateway.wait_for_event("redis_probe_passed").await;
        let up = [("connection", "engine.redis.pubsub_url")];
        assert_eq!(gateway.metric("tidegate_redis_up", &up).await, 1.0);
        assert_eq!(publish_status(&gateway).await, 200, "{setting}");
        Client::connected(&gateway, "/ws/chat/42/").await;
    }
    // Nothing is left of the probes.
    until("no key of a probe", async || {
        let keys: Vec<String> = redis.run(&["KEYS", "*probe*"]).await;
        keys.is_empty().then_some(())
    })
    .await;
    let warned = gateway.log_events("redis_probe_failed").len();
    assert!(warned <= 6, "{warned} lines for two outages");
}

#[tokio::test]
async fn each_missing_permission_is_named() {
    let redis = Redis::start().await;
    let all = ["ACL", "SETUSER", "gateway", "reset", "on", ">p", "~*", "&*", "+@all"];
    let () = redis.run(&all).await;
    let url = redis.url().replace("://", "://gateway:p@");
    let gateway = Gateway::start(settings(&url)).await;
    wait_until_ready(&gateway).await;
    // Each is restored when the next one is removed: while something is refused, probes are frequent.
    let mut before = "+ping".to_owned();
    for command in ["xadd", "publish", "evalsha", "getdel", "zadd", "subscribe", "script|load"] {
        let without = format!("-{command}");
        let () = redis.run(&["ACL", "SETUSER", "gateway", &before, &without]).await;
        let name = command.split('|').next().unwrap().to_uppercase();
        expect_refusal(&gateway, "redis", &name, "NOPERM").await;
        before = format!("+{command}");
    }
    let () = redis.run(&["ACL", "SETUSER", "gateway", &before]).await;
    wait_until_ready(&gateway).await;
    // Keys and channels as well.
    for (rule, whole) in [(["resetkeys", "~other:*"], "~*"), (["resetchannels", "&other"], "&*")] {
        let mut user = vec!["ACL", "SETUSER", "gateway"];
        user.extend(rule);
        let () = redis.run(&user).await;
        until("not ready", async || (checks(&gateway).await.0 == 503).then_some(())).await;
        gateway.wait_for_log("NOPERM").await;
        let () = redis.run(&["ACL", "SETUSER", "gateway", whole]).await;
        wait_until_ready(&gateway).await;
    }
}

#[tokio::test]
async fn what_the_config_does_not_use_is_not_demanded() {
    let redis = Redis::start().await;
    let user = ["ACL", "SETUSER", "gateway", "reset", "on", ">p", "~tg:*", "&*", "+@all"];
    let never = ["-getdel", "-xadd", "-xrange", "-zcount", "-incr", "-hincrby"];
    let () = redis.run(&[&user[..], &never].concat()).await;
    let url = redis.url().replace("://", "://gateway:p@");
    let limits = "[route.limits]\nmessages_per_user = \"off\"\nconnects_per_user = \"off\"\n\
                  connections_per_user = 0\ngenerations_per_user = 0\n";
    let route = "path = \"/ws/chat/{conversation_id}/\"\nchannel = \"chat_{conversation_id}\"\n\
                 auth = [\"anonymous\"]\n[route.history]\nsize = 0\n";
    let settings = Settings::new().route(&format!("{route}{limits}")).redis(&url);
    let gateway = Gateway::start(settings).await;
    wait_until_ready(&gateway).await;
    let (mut client, _) = Client::connected(&gateway, "/ws/chat/42/").await;
    gateway.publish("chat_42", json!({"event": "news"})).await;
    client.next_event("news").await;
    assert_eq!(gateway.events("redis_probe_failed"), 0);
}

#[tokio::test]
async fn a_user_without_transactions_still_works() {
    let redis = Redis::start().await;
    let user = ["ACL", "SETUSER", "gateway", "reset", "on", ">p", "~*", "&*", "+@all", "-multi"];
    let () = redis.run(&[&user[..], &["-discard"]].concat()).await;
    let url = redis.url().replace("://", "://gateway:p@");
    let gateway = Gateway::start(settings(&url)).await;
    wait_until_ready(&gateway).await;
    gateway.wait_for_event("redis_probe_limited").await;
    Client::connected(&gateway, "/ws/chat/42/").await;
    let () = redis.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    expect_refusal(&gateway, "redis", "SET", "OOM").await;
}

#[tokio::test]
async fn a_cluster_without_slots_is_named_and_used_once_it_has_them() {
    let redis = Redis::start_with(&["--cluster-enabled", "yes"]).await;
    let gateway = Gateway::start(settings(&redis.url())).await;
    expect_refusal(&gateway, "redis", "SET", "CLUSTERDOWN").await;
    assert_eq!(publish_status(&gateway).await, 503);
    let () = redis.run(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    wait_until_ready(&gateway).await;
    assert_eq!(publish_status(&gateway).await, 200);
    Client::connected(&gateway, "/ws/chat/42/").await;
}

#[tokio::test]
async fn each_redis_in_use_is_probed_by_itself() {
    let (main, tokens, limits, queue) =
        (Redis::start().await, Redis::start().await, Redis::start().await, Redis::start().await);
    let urls = format!(
        "url = {:?}\ntokens_url = {:?}\nlimits_url = {:?}",
        main.url(),
        tokens.url(),
        limits.url()
    );
    let settings = Settings::chat("http://127.0.0.1:1/")
        .section("engine", "kind = \"redis\"")
        .section("engine.redis", &urls)
        .upstream(
            "worker",
            &format!("kind = \"redis-stream\"\nkey = \"jobs\"\nredis_url = {:?}", queue.url()),
        );
    let gateway = Gateway::start(settings).await;
    wait_until_ready(&gateway).await;
    for redis in [&tokens, &limits, &queue] {
        let () = redis.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    }
    expect_refusal(&gateway, "redis_tokens", "SET", "OOM").await;
    expect_refusal(&gateway, "redis_limits", "SET", "OOM").await;
    expect_refusal(&gateway, "upstream.worker", "XADD", "OOM").await;
    let (_, now) = checks(&gateway).await;
    assert_eq!(now["redis"], "ok", "{now}");
    for redis in [&tokens, &limits, &queue] {
        let () = redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    }
    wait_until_ready(&gateway).await;
    // The queue itself is not touched.
    let keys: Vec<String> = queue.run(&["KEYS", "*"]).await;
    assert_eq!(keys, Vec::<String>::new());
    // A token that cannot be stored is refused with a reason in the log.
    let () = tokens.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let answer = gateway.api("/v1/tokens", json!({"user_id": 7})).await;
    assert_eq!(answer.status, 503, "{API_KEY}: {}", answer.text());
    let refused = gateway.wait_for_log("redis_refused").await;
    assert!(refused.contains("OOM") && refused.contains("\"SET\""), "{refused}");
}
