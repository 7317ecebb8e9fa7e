use std::time::Duration;

use super::*;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

#[tokio::test]
async fn an_error_affects_only_its_command() {
    let server = RedisServer::start();
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(Duration::from_secs(10)).await);
    let mut pipeline = redis::pipe();
    pipeline.cmd("INCR").arg("a").cmd("LPUSH").arg("a").arg(1).cmd("INCR").arg("a");
    let answers = commands.query_each::<i64>(pipeline).await.unwrap();
    assert!(matches!(answers[..], [Ok(1), Err(RedisFailure::Refused(_)), Ok(2)]));

    let script = Script::new("return redis.call('INCR', KEYS[1])");
    for round in 0..2 {
        let calls = ["a", "b"].map(|key| script.key(key));
        let answers = commands.invoke_all::<i64>(&script, &calls).await.unwrap();
        let answers: Vec<i64> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, [3 + round, 1 + round]);
    }
    let () = commands.query(redis::cmd("SET").arg("b").arg("text")).await.unwrap();
    let calls = ["a", "b", "a"].map(|key| script.key(key));
    let answers = commands.invoke_all::<i64>(&script, &calls).await.unwrap();
    assert!(matches!(answers[..], [Ok(5), Err(RedisFailure::Refused(_)), Ok(6)]));
}
