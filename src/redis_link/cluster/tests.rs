//! Real clusters of three masters.

use std::time::Duration;

use redis::{Script, Value, cmd};
use tokio::time::timeout;

use super::*;
use crate::redis_link::slots::{slot_of, tag_of_slot};
use crate::redis_link::test_server::{RedisCluster, RedisServer};
use crate::redis_link::{Commands, RedisFailure, Step};

const SOON: Duration = Duration::from_secs(10);

/// A key on each of the three masters.
fn keys() -> [String; 3] {
    [1, 8000, 16000].map(|slot| format!("k:{{{}}}", tag_of_slot(slot)))
}

async fn set(commands: &Commands, key: &str, value: &str) {
    let () = commands.query(cmd("SET").arg(key).arg(value)).await.unwrap();
}

async fn get(commands: &Commands, key: &str) -> Option<String> {
    commands.query(cmd("GET").arg(key)).await.unwrap()
}

#[tokio::test]
async fn each_command_goes_to_the_node_that_has_its_key() {
    let cluster = RedisCluster::start().await;
    let commands = cluster.commands().await;
    let append = Script::new("return redis.call('APPEND', KEYS[1], ARGV[1])");
    for (server, key) in cluster.servers.iter().zip(keys()) {
        set(&commands, &key, "a").await;
        let mut call = append.key(&key);
        let length: i64 = commands.invoke(call.arg("bc")).await.unwrap();
        assert_eq!(length, 3);
        let there: String = server.run(&["GET", &key]).await;
        assert_eq!(there, "abc", "{key}");
    }
    let _: (u64, u64) = commands.query(&cmd("TIME")).await.unwrap();
    // In a batch each has its own answer, in the order of the commands.
    let mut batch = redis::pipe();
    for key in keys().iter().rev() {
        batch.cmd("STRLEN").arg(key).cmd("LPUSH").arg(key).arg(1);
    }
    let answers = commands.query_each::<i64>(batch).await.unwrap();
    for pair in answers.chunks(2) {
        assert!(matches!(pair, [Ok(3), Err(RedisFailure::Refused(_))]), "{pair:?}");
    }
    for server in &cluster.servers {
        let () = server.run(&["SCRIPT", "FLUSH"]).await;
    }
    let keys = keys();
    let calls: Vec<_> = keys
        .iter()
        .map(|key| {
            let mut call = append.key(key);
            call.arg("d");
            call
        })
        .collect();
    let lengths = commands.invoke_all::<i64>(&append, &calls).await.unwrap();
    assert!(lengths.iter().all(|length| matches!(length, Ok(4))), "{lengths:?}");
    let across = redis::Script::new("return 1");
    let refused = commands.invoke::<i64>(across.key(&keys[0]).key(&keys[1])).await;
    assert!(
        matches!(refused, Err(RedisFailure::Refused(error)) if error.code() == Some("CROSSSLOT"))
    );
}

#[tokio::test]
async fn a_slot_is_followed_while_it_moves_and_afterwards() {
    let cluster = RedisCluster::start_with(1).await;
    let commands = cluster.commands().await;
    let [key, ..] = keys();
    let slot = slot_of(key.as_bytes());
    set(&commands, &key, "before").await;
    // To a master that has no slots so far. What is there stays, and what is not is asked for at the other.
    cluster.begin_move(slot, 0, 3).await;
    let new = format!("new:{key}");
    set(&commands, &key, "moving").await;
    set(&commands, &new, "asked").await;
    let asked: i64 =
        cluster.servers[0].run(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]).await;
    assert_eq!(asked, 1, "the new key is at the target");
    assert_eq!(get(&commands, &new).await.as_deref(), Some("asked"));
    // A script with keys on both sides waits for the end of the move.
    let both = Script::new("return redis.call('MGET', KEYS[1], KEYS[2])");
    let waiting = commands.clone();
    let (one, other) = (key.clone(), new.clone());
    let call =
        tokio::spawn(async move { waiting.invoke::<Vec<String>>(both.key(one).key(other)).await });
    cluster.end_move(slot, 0, 3).await;
    assert_eq!(call.await.unwrap().unwrap(), ["moving", "asked"]);
    assert_eq!(get(&commands, &key).await.as_deref(), Some("moving"));
    let owner = async || {
        let topology = commands.topology().unwrap();
        while topology.shards().len() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        topology.shard_of(&key)
    };
    let owner = timeout(SOON, owner()).await.expect("the map is read again");
    assert_eq!(*owner.unwrap(), format!("127.0.0.1:{}", cluster.servers[3].port()));
}

#[tokio::test]
async fn steps_run_one_after_the_other_on_their_nodes() {
    let cluster = RedisCluster::start().await;
    let commands = cluster.commands().await;
    let [a, b, c] = keys();
    // Counts, agrees up to three, and says where the next step counts.
    let count = |key: &str| {
        Step::new("return {redis.call('INCR', KEYS[1]), ARGV[1]}", "answer[1] < 3, answer[2]")
            .key(key)
    };
    let plain = |key: &str| Step::new("return redis.call('INCR', KEYS[1])", "true").key(key);
    let wrong = |key: &str| Step::new("return redis.call('LPUSH', KEYS[1], 1)", "true").key(key);
    let run = async |steps: &[Step]| {
        let answers = commands.invoke_chain(steps).await?;
        Ok::<_, RedisFailure>(answers.iter().map(Option::is_some).collect::<Vec<_>>())
    };
    let tag = tag_of_slot(16001);
    let named = format!("x:{{{}}}", crate::redis_link::ANSWERED);
    let steps = [count(&a).arg(&tag), plain(&b), plain(&b), plain(&named), plain(&c)];
    assert_eq!(run(&steps).await.unwrap(), [true; 5]);
    assert_eq!(get(&commands, &format!("x:{{{tag}}}")).await.as_deref(), Some("1"));
    assert_eq!(get(&commands, &b).await.as_deref(), Some("2"));
    // One that fails stops those after it, and so does one that does not agree.
    assert_eq!(run(&[count(&a).arg(1), wrong(&b), plain(&c)]).await.unwrap(), [true, false]);
    assert_eq!(run(&[count(&a).arg(1), plain(&b)]).await.unwrap(), [true]);
    assert_eq!(get(&commands, &b).await.as_deref(), Some("2"));
    assert_eq!(get(&commands, &c).await.as_deref(), Some("1"));
    let failed = run(&[wrong(&a), plain(&b)]).await;
    assert!(matches!(failed, Err(RedisFailure::Refused(_))), "{failed:?}");
}

#[tokio::test]
async fn the_others_are_used_while_a_node_is_dead() {
    let mut cluster = RedisCluster::start().await;
    for server in &cluster.servers {
        let () = server.run(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).await;
    }
    let commands = cluster.commands().await;
    let [a, _, c] = keys();
    set(&commands, &a, "1").await;
    cluster.servers[0].kill();
    let failed = commands.query::<Value>(cmd("GET").arg(&a)).await;
    assert!(matches!(failed, Err(RedisFailure::Unavailable)), "{failed:?}");
    set(&commands, &c, "2").await;
    assert_eq!(commands.check(), Ok(()), "what works goes on");
    // A batch has the answers of those that are there.
    let mut batch = redis::pipe();
    batch.cmd("GET").arg(&a).cmd("GET").arg(&c);
    let answers = commands.query_each::<String>(batch).await.unwrap();
    assert!(matches!(&answers[..], [Err(_), Ok(two)] if two == "2"), "{answers:?}");
    cluster.servers[0].restart();
    let is_back = async || {
        while commands.query::<Value>(cmd("GET").arg(&a)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, is_back()).await.expect("it is used again");
}

#[tokio::test]
async fn a_server_that_is_no_node_of_a_cluster_is_named() {
    let server = RedisServer::start();
    let url = RedisUrl::example(&format!("redis-cluster://127.0.0.1:{}", server.port()));
    let commands = Commands::start(&url, "test", &Shutdown::new()).unwrap();
    let named = async || {
        loop {
            match commands.check() {
                Err(problem) if problem.contains("cluster support disabled") => return,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(SOON, named()).await.expect("the reason");
    assert!(crate::redis_link::check(&url, true).await.unwrap_err().contains("cluster support"));
    let cluster = RedisCluster::start().await;
    assert_eq!(crate::redis_link::check(&cluster.url(), true).await, Ok(3));
}
