use std::time::Duration;

use super::*;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

/// Adds to a list what it is called with, and returns its length.
const PUSH: &str =
    "local length = redis.call('RPUSH', KEYS[1], ARGV[1])\nreturn {length, 'pushed'}";
/// Returns nothing.
const SET: &str = "redis.call('SET', KEYS[1], ARGV[1])";
const REFUSE: &str = "return redis.error_reply('ERR refused')";

fn push(key: &str, value: u32) -> Step {
    Step::new(PUSH, "answer[1] < 3").key(key).arg(value)
}

fn set(key: &str, value: &str) -> Step {
    Step::new(SET, "answer == nil").key(key).arg(value)
}

#[tokio::test]
async fn a_step_runs_if_all_before_it_agreed() {
    let server = RedisServer::start();
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(Duration::from_secs(10)).await);
    let run = async |steps: &[Step]| {
        let answers = commands.invoke_chain(steps).await?;
        Ok::<_, RedisFailure>(answers.iter().map(Option::is_some).collect::<Vec<_>>())
    };
    // Each step has its own keys and arguments, also if its script is that of another.
    let steps = [push("a", 1), set("b", "text"), push("a", 2), push("c", 3)];
    assert_eq!(run(&steps).await.unwrap(), [true; 4]);
    let length: i64 = commands.query(redis::cmd("LLEN").arg("a")).await.unwrap();
    assert_eq!(length, 2);
    let answers = commands.invoke_chain(&[push("a", 3), push("c", 4)]).await.unwrap();
    let (length, text): (i64, String) =
        FromRedisValue::from_redis_value(answers[0].clone().unwrap()).unwrap();
    assert_eq!((answers.len(), length, text.as_str()), (1, 3, "pushed"));
    // A step that fails keeps what those before it did, and stops those after it.
    let wrong = [set("d", "1"), push("b", 1), set("d", "2")];
    assert_eq!(run(&wrong).await.unwrap(), [true, false]);
    let refused = [set("e", "1"), Step::new(REFUSE, "true"), set("d", "3")];
    assert_eq!(run(&refused).await.unwrap(), [true, false]);
    let kept: String = commands.query(redis::cmd("GET").arg("d")).await.unwrap();
    assert_eq!(kept, "1");
    // The failure of the first is that of the call, as of a script by itself.
    for first in [push("b", 1), Step::new(REFUSE, "true")] {
        let failed = run(&[first, set("d", "4")]).await;
        assert!(matches!(failed, Err(RedisFailure::Refused(_))), "{failed:?}");
    }
}
