//! Queues on a real Redis.

use serde_json::Value;

use super::*;
use crate::redis_link::test_server::RedisServer;

fn queue(server: &RedisServer, max_len: u64) -> config::RedisQueue {
    let key = Template::parse("q:{channel}:{user_id}").unwrap();
    config::RedisQueue { redis_url: server.url(), key, max_len, max_len_per_user: 0 }
}

const KEY: &str = "q:chat_42:7";

/// Starts upstreams, waits until their connection is up, and returns both.
async fn started(kind: UpstreamKind) -> (Upstreams, crate::redis_link::Commands) {
    let shared = shared(upstream(kind));
    let Transport::Queue(queue) = &shared.get(UPSTREAM).unwrap().transport else {
        panic!("no queue")
    };
    let commands = queue.commands().clone();
    assert!(commands.wait_up(LONG).await);
    (Upstreams::new(&shared), commands)
}

#[tokio::test]
async fn a_stream_gets_entries_and_is_trimmed() {
    let server = RedisServer::start();
    let (upstreams, redis) = started(UpstreamKind::RedisStream(queue(&server, 100))).await;
    for _ in 0..500 {
        let taken = upstreams.relay(UPSTREAM, &message()).await.unwrap();
        assert_eq!((taken.task_id.as_str(), taken.reply.is_from_worker()), ("our-task", true));
    }
    let len: u64 = redis.query(redis::cmd("XLEN").arg(KEY)).await.unwrap();
    assert!((100..500).contains(&len), "{len}");
    let mut last = redis::cmd("XREVRANGE");
    last.arg(KEY).arg("+").arg("-").arg("COUNT").arg(1);
    let entries: Vec<(String, Vec<(String, String)>)> = redis.query(&last).await.unwrap();
    let [(field, json)] = &entries[0].1[..] else { panic!("one field: {entries:?}") };
    let body: Value = serde_json::from_str(json).unwrap();
    assert_eq!(
        (field.as_str(), &body["message"], &body["user"]["id"]),
        ("message", &"hi".into(), &7.into())
    );
}

#[tokio::test]
async fn a_list_is_filled_up_to_its_limit() {
    let server = RedisServer::start();
    let (upstreams, redis) = started(UpstreamKind::RedisList(queue(&server, 2))).await;
    for is_accepted in [true, true, false] {
        let outcome = upstreams.relay(UPSTREAM, &message()).await;
        assert_eq!(outcome.err(), (!is_accepted).then_some(RelayError::Busy));
    }
    let json: String = redis.query(redis::cmd("RPOP").arg(KEY)).await.unwrap();
    let body: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(body["task_id"], "our-task");
    assert!(upstreams.relay(UPSTREAM, &message()).await.is_ok());
}

#[tokio::test]
async fn queues_without_a_limit() {
    let server = RedisServer::start();
    for kind in
        [UpstreamKind::RedisList(queue(&server, 0)), UpstreamKind::RedisStream(queue(&server, 0))]
    {
        let (upstreams, redis) = started(kind).await;
        for _ in 0..3 {
            assert!(upstreams.relay(UPSTREAM, &message()).await.is_ok());
        }
        let () = redis.query(redis::cmd("DEL").arg(KEY)).await.unwrap();
    }
}

#[tokio::test]
async fn a_redis_that_refuses_or_cannot_be_reached_makes_the_upstream_unavailable() {
    let mut server = RedisServer::start();
    let (upstreams, redis) = started(UpstreamKind::RedisList(queue(&server, 2))).await;
    let () = redis.query(redis::cmd("SET").arg(KEY).arg("no list")).await.unwrap();
    let outcome = upstreams.relay(UPSTREAM, &message()).await;
    assert_eq!(outcome.err(), Some(RelayError::Failed));
    server.kill();
    let outcome = upstreams.relay(UPSTREAM, &message()).await;
    assert_eq!(outcome.err(), Some(RelayError::Unreachable));
}
