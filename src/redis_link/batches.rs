//! Sends several commands in one write; each has its own answer.

use redis::{FromRedisValue, Pipeline, RedisResult, Script, ScriptInvocation, ServerErrorKind};

use super::cluster::Loader;
use super::commands::Target;
use super::server::ServerCommands;
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
        let server = match &self.0 {
            Target::Server(server) => server,
            Target::Cluster(_) => return Box::pin(self.spread(&pipeline, None)).await,
        };
        let answers: Vec<RedisResult<T>> = send(server, pipeline.ignore_errors()).await?;
        let classify = |error| server.classify("", error);
        Ok(answers.into_iter().map(|answer| answer.map_err(classify)).collect())
    }

    /// Runs the commands of `pipeline` on the nodes of a cluster that have their keys.
    async fn spread<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
        loader: Option<Loader<'_>>,
    ) -> Result<Answers<T>, RedisFailure> {
        let Target::Cluster(cluster) = &self.0 else { return Err(RedisFailure::Unavailable) };
        let commands: Vec<&redis::Cmd> = pipeline.cmd_iter().collect();
        let read = |answer: Result<redis::Value, RedisFailure>| {
            T::from_redis_value(answer?).map_err(|error| RedisFailure::Refused(error.into()))
        };
        let answers: Answers<T> =
            cluster.run(&commands, loader).await.into_iter().map(read).collect();
        match answers.iter().all(|answer| matches!(answer, Err(RedisFailure::Unavailable))) {
            true => Err(RedisFailure::Unavailable),
            false => Ok(answers),
        }
    }

    /// Sends `calls` of `script` in order. Loads the script if the server does not know it yet.
    pub async fn invoke_all<T: FromRedisValue>(
        &self,
        script: &Script,
        calls: &[ScriptInvocation<'_>],
    ) -> Result<Answers<T>, RedisFailure> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let mut commands = redis::pipe();
        for call in calls {
            commands.invoke_script(call);
        }
        self.evaluate_all(script, commands).await
    }

    /// Sends `calls`, which are `EVALSHA`s of `script`, in order. Loads the script if the server does not know it yet.
    pub async fn evaluate_all<T: FromRedisValue>(
        &self,
        script: &Script,
        mut calls: Pipeline,
    ) -> Result<Answers<T>, RedisFailure> {
        let server = match &self.0 {
            Target::Server(server) => server,
            Target::Cluster(_) => {
                return Box::pin(self.spread(&calls, Some(Loader::Script(script)))).await;
            }
        };
        let mut answers: Vec<RedisResult<T>> = send(server, calls.ignore_errors()).await?;
        // Only these have not run: another client may have removed or loaded the script in between.
        let unknown: Vec<_> =
            (0..answers.len()).filter(|at| is_unknown_script(&answers[*at])).collect();
        if !unknown.is_empty() {
            let mut again = redis::pipe();
            again.ignore_errors().load_script(script).ignore();
            for (at, call) in calls.cmd_iter().enumerate() {
                if unknown.contains(&at) {
                    again.add_command(call.clone());
                }
            }
            let repeated: Vec<RedisResult<T>> = send(server, &again).await?;
            for (at, answer) in unknown.into_iter().zip(repeated) {
                answers[at] = answer;
            }
        }
        let classify = |error| server.classify("", error);
        Ok(answers.into_iter().map(|answer| answer.map_err(classify)).collect())
    }
}

async fn send<T: FromRedisValue>(
    server: &ServerCommands,
    pipeline: &Pipeline,
) -> Result<T, RedisFailure> {
    match server.has_sentinels() {
        false => server.pipeline(pipeline).await,
        true => Box::pin(server.confirmed(server.pipeline(pipeline))).await,
    }
}

fn is_unknown_script<T>(answer: &RedisResult<T>) -> bool {
    let no_script = redis::ErrorKind::Server(ServerErrorKind::NoScript);
    answer.as_ref().is_err_and(|error| error.kind() == no_script)
}

#[cfg(test)]
mod tests;
