//! Sends several commands in one write; each has its own answer.

use redis::{FromRedisValue, Pipeline, RedisResult, Script, ScriptInvocation, ServerErrorKind};

use super::{Commands, RedisFailure};

/// The answers in the order of the commands. An error answer to one command does not affect the others.
pub type Answers<T> = Vec<Result<T, RedisFailure>>;

impl Commands {
    /// Sends the commands of `pipeline` and waits for all answers, for at most two seconds. `Err` if there are no
    /// answers.
    pub async fn query_each<T: FromRedisValue>(
        &self,
        mut pipeline: Pipeline,
    ) -> Result<Answers<T>, RedisFailure> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let answers: Vec<RedisResult<T>> = self.pipeline(pipeline.ignore_errors()).await?;
        Ok(answers.into_iter().map(|answer| answer.map_err(|error| self.classify(error))).collect())
    }

    /// Sends `calls` of `script` in order. Loads the script if the server does not know it yet.
    pub async fn invoke_all<T: FromRedisValue>(
        &self,
        script: &Script,
        calls: &[ScriptInvocation<'_>],
    ) -> Result<Answers<T>, RedisFailure> {
        let pipeline = || {
            let mut pipeline = redis::pipe();
            pipeline.ignore_errors();
            pipeline
        };
        let mut known = pipeline();
        for call in calls {
            known.invoke_script(call);
        }
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let mut answers: Vec<RedisResult<T>> = self.pipeline(&known).await?;
        if answers.first().is_some_and(is_unknown_script) {
            let mut unknown = pipeline();
            unknown.load_script(script).ignore();
            for call in calls {
                unknown.invoke_script(call);
            }
            answers = self.pipeline(&unknown).await?;
        }
        Ok(answers.into_iter().map(|answer| answer.map_err(|error| self.classify(error))).collect())
    }
}

fn is_unknown_script<T>(answer: &RedisResult<T>) -> bool {
    let no_script = redis::ErrorKind::Server(ServerErrorKind::NoScript);
    answer.as_ref().is_err_and(|error| error.kind() == no_script)
}

#[cfg(test)]
mod tests {
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
}
