use std::time::Duration;

use futures_util::future::join_all;

use super::*;
use crate::redis_link::Commands;
use crate::redis_link::test_server::{RedisServer, start_elsewhere};
use crate::shutdown::Shutdown;
use crate::upstream::queue::QueueKind;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

async fn writer(server: &RedisServer, kind: QueueKind, max_len: u64) -> (QueueWriter, Commands) {
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(Duration::from_secs(10)).await);
    (QueueWriter::new(commands.clone(), kind, max_len, &Shutdown::new()), commands)
}

async fn send(outgoing: &Outgoing, writer: &QueueWriter, key: &str, text: &str) -> Written {
    let write = |json: &mut Vec<u8>| {
        json.extend_from_slice(text.as_bytes());
        if text == "invalid" { Err("it is not valid".to_owned()) } else { Ok(()) }
    };
    outgoing.send(writer, key.into(), soon(), write).finish().await
}

/// How often Redis has run a command.
async fn calls(redis: &Commands, command: &str) -> u64 {
    let info: String = redis.query(redis::cmd("INFO").arg("commandstats")).await.unwrap();
    let prefix = format!("cmdstat_{command}:calls=");
    let line = info.lines().find_map(|line| line.strip_prefix(&prefix));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

async fn list(redis: &Commands, key: &str) -> Vec<String> {
    redis.query(redis::cmd("LRANGE").arg(key).arg(0).arg(-1)).await.unwrap()
}

#[tokio::test]
async fn messages_of_one_round_are_one_command_and_keep_their_order() {
    let server = RedisServer::start();
    let (writer, redis) = writer(&server, QueueKind::List, 0).await;
    let outgoing = Outgoing::default();
    let texts: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    // Loads the script.
    assert!(send(&outgoing, &writer, "list", "first").await.is_ok());
    let before = calls(&redis, "lpush").await;
    let sent = join_all(texts.iter().map(|text| send(&outgoing, &writer, "list", text))).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    assert_eq!(calls(&redis, "lpush").await - before, 1);
    let mut all = list(&redis, "list").await;
    all.reverse();
    assert_eq!(all[1..], texts);
}

#[tokio::test]
async fn a_list_that_becomes_full_takes_the_first_ones() {
    let server = RedisServer::start();
    let (writer, redis) = writer(&server, QueueKind::List, 3).await;
    let outgoing = Outgoing::default();
    let texts = ["a", "b", "invalid", "c", "d", "e"];
    let sent = join_all(texts.iter().map(|text| send(&outgoing, &writer, "list", text))).await;
    let errors: Vec<_> = sent.into_iter().map(|sent| sent.err().map(|(error, _)| error)).collect();
    let (busy, invalid) = (Some(RelayError::Busy), Some(RelayError::Unavailable));
    assert_eq!(errors, [None, None, invalid, None, busy.clone(), busy]);
    assert_eq!(list(&redis, "list").await, ["c", "b", "a"]);
}

#[tokio::test]
async fn each_message_has_the_answer_of_its_own_queue() {
    let server = RedisServer::start();
    for kind in [QueueKind::List, QueueKind::Stream] {
        let (writer, redis) = writer(&server, kind, 0).await;
        let () = redis.query(redis::cmd("SET").arg("text").arg("no queue")).await.unwrap();
        let () = redis.query(redis::cmd("DEL").arg("one").arg("two")).await.unwrap();
        let outgoing = Outgoing::default();
        let keys = ["one", "text", "text", "two", "one"];
        let sent = join_all(keys.iter().map(|key| send(&outgoing, &writer, key, "m"))).await;
        for (key, sent) in keys.iter().zip(sent) {
            let error = sent.err().map(|(error, _)| error);
            assert_eq!(error, (*key == "text").then_some(RelayError::Failed), "{kind:?} {key}");
        }
        let length = redis::cmd(if kind == QueueKind::List { "LLEN" } else { "XLEN" });
        for (key, expected) in [("one", 2), ("two", 1)] {
            assert_eq!(redis.query::<u64>(length.clone().arg(key)).await.unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn a_large_batch_is_followed_by_another() {
    let server = RedisServer::start();
    let (writer, redis) = writer(&server, QueueKind::List, 0).await;
    let outgoing = Outgoing::default();
    let count = 2 * MAX_MESSAGES + 1;
    let sent = join_all((0..count).map(|_| send(&outgoing, &writer, "list", "m"))).await;
    assert!(sent.iter().all(Result::is_ok));
    assert_eq!(calls(&redis, "lpush").await, 3);
    let large = "x".repeat(MAX_BYTES);
    let sent = join_all((0..3).map(|_| send(&outgoing, &writer, "list", &large))).await;
    assert!(sent.iter().all(Result::is_ok));
    assert_eq!(calls(&redis, "lpush").await, 6);
    assert_eq!(list(&redis, "list").await.len(), count + 3);
}

#[tokio::test]
async fn the_others_have_an_answer_if_the_task_that_sends_ends() {
    let server = RedisServer::start();
    let (writer, redis) = writer(&server, QueueKind::List, 0).await;
    let outgoing = Outgoing::default();
    let mut first = Box::pin(send(&outgoing, &writer, "list", "first"));
    let mut second = Box::pin(send(&outgoing, &writer, "list", "second"));
    poll_fn(|context| {
        assert!(first.as_mut().poll(context).is_pending());
        assert!(second.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(first);
    // One that never runs is no different.
    let write = |json: &mut Vec<u8>| {
        json.push(b'm');
        Ok(())
    };
    drop(outgoing.send(&writer, "list".into(), soon(), write));
    assert_eq!(second.await.unwrap_err().0, RelayError::Unavailable);
    // The queue takes messages as before.
    assert!(send(&outgoing, &writer, "list", "third").await.is_ok());
    assert_eq!(list(&redis, "list").await, ["third"]);
}

#[tokio::test]
async fn no_answer_in_time_is_the_same_for_all() {
    let server = RedisServer::start();
    let (writer, _redis) = writer(&server, QueueKind::List, 0).await;
    let outgoing = Outgoing::default();
    let write = |json: &mut Vec<u8>| {
        json.push(b'm');
        Ok(())
    };
    let past = Instant::now() - Duration::from_millis(1);
    let sent = (0..2).map(|_| outgoing.send(&writer, "list".into(), past, write).finish());
    for sent in join_all(sent).await {
        assert_eq!(sent.unwrap_err().0, RelayError::TimedOut);
    }
}

#[tokio::test]
async fn the_connection_of_the_thread_ends_with_its_messages() {
    let server = RedisServer::start();
    let shutdown = Shutdown::new();
    let redis = start_elsewhere(server.url(), &shutdown);
    assert!(redis.wait_up(Duration::from_secs(10)).await);
    let writer = QueueWriter::new(redis.clone(), QueueKind::List, 0, &shutdown);
    let connections = async || -> usize {
        let list: String = redis.query(redis::cmd("CLIENT").arg("LIST")).await.unwrap();
        list.lines().count()
    };
    let before = connections().await;
    let outgoing = Outgoing::new(&writer);
    while connections().await == before {
        tokio::task::yield_now().await;
    }
    assert!(send(&outgoing, &writer, "list", "message").await.is_ok());
    drop(outgoing);
    while connections().await > before {
        tokio::task::yield_now().await;
    }
    assert_eq!(list(&redis, "list").await, ["message"]);
    shutdown.force();
}
