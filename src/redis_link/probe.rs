//! Probes whether Redis accepts what the users of a connection send over it.
//!
//! A server that answers PING may still refuse everything else: it is out of memory, has too few replicas, serves no
//! slots, or the user lacks a permission. A probe queues every needed command with MULTI, which makes Redis check
//! all of that, and discards them, so that no key is read or written. Where the users write keys of the gateway's own,
//! a probe also writes one, by a command and by a script; it expires at once.

use std::borrow::Cow;
use std::collections::BTreeSet;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, RedisResult, Script, Value};
use tokio::time::timeout;

use super::cluster::NodeSlots;
use super::open::COMMAND_DEADLINE;
use super::reason::describe;
use super::slots::tag_of_slot;

/// Writes the probe's key as a script.
const WRITE: &str = "return redis.call('SET', KEYS[1], 1, 'PX', ARGV[1])";

/// The lifetime of the probe's key in milliseconds: nobody reads it.
const KEY_TTL_MS: u32 = 1;

/// The most refused commands that a [`Refusal`] names.
const MAX_NAMED: usize = 64;

/// What one user of a connection sends over it: commands, each with the kind of key or channel that it uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The name of each command, and a key or channel as an example.
    commands: BTreeSet<(String, String)>,
    /// A key of the gateway's own that the probe may write.
    own_key: Option<String>,
}

impl Needs {
    /// Adds `command`. `target` is an example of its keys, or of its channels. The key is not touched.
    pub fn command(mut self, command: &str, target: &str) -> Self {
        debug_assert!(arguments(command).is_some(), "{command} is not known here");
        self.commands.insert((command.to_owned(), target.to_owned()));
        self
    }

    /// Adds a script and every command that it calls. `key` is an example of its keys, and `channel` of the channels
    /// that it publishes to.
    pub fn script(mut self, source: &str, key: &str, channel: &str) -> Self {
        for command in called_commands(source) {
            let is_channel = matches!(command, "PUBLISH" | "SPUBLISH" | "PUBSUB");
            self = self.command(command, if is_channel { channel } else { key });
        }
        self.command("EVALSHA", key).command("SCRIPT", "")
    }

    /// Makes the probe write `key`, which must be the gateway's own, if SET is among the commands.
    pub fn own_key(mut self, key: String) -> Self {
        self.own_key = Some(key);
        self
    }

    fn writes(&self) -> Option<&str> {
        let sets = self.commands.iter().any(|(command, _)| command == "SET");
        self.own_key.as_deref().filter(|_| sets)
    }
}

/// Redis does not accept what is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The refused commands, for example `XADD, XDEL`.
    pub commands: String,
    /// The answer to the first of them.
    pub reason: String,
}

/// Whether MULTI can be used on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transactions {
    /// Whether the user may use it has not been tried.
    Unknown,
    Permitted,
    /// Permissions are only tried by the write of the gateway's own key.
    Refused,
}

/// Why a probe has no result.
pub(super) enum ProbeError {
    /// There was no answer within two seconds, or the connection is lost.
    NoAnswer,
    /// DISCARD was refused after MULTI, so that the connection is of no use any more.
    Stuck,
}

/// Probes `needs` over `connection`, in at most two seconds for each of three steps. `Ok(None)` means that everything
/// is accepted. `cluster` has the slots of a node of a cluster: it also accepts what it sends to another node.
pub(super) async fn probe(
    connection: &mut MultiplexedConnection,
    transactions: &mut Transactions,
    needs: &[Needs],
    cluster: Option<&NodeSlots>,
) -> Result<Option<Refusal>, ProbeError> {
    if *transactions == Transactions::Unknown {
        // Without MULTI it is an error, but another one than a missing permission.
        let answer = ask(connection, &[redis::cmd("DISCARD")]).await?;
        let refused = answer.iter().any(|answer| code(answer) == Some("NOPERM"));
        *transactions = if refused { Transactions::Refused } else { Transactions::Permitted };
    }
    let mut refused: Vec<(&str, RedisError)> = Vec::new();
    let commands: BTreeSet<_> = needs.iter().flat_map(|needs| &needs.commands).collect();
    if *transactions == Transactions::Permitted && !commands.is_empty() {
        let queued = commands.iter().filter_map(|(name, target)| command(name, target));
        let all: Vec<Cmd> = std::iter::once(redis::cmd("MULTI"))
            .chain(queued)
            .chain([redis::cmd("DISCARD")])
            .collect();
        let mut answers = ask(connection, &all).await?;
        let (discarded, multi) = (answers.pop(), answers.remove(0));
        if multi.is_err() {
            *transactions = Transactions::Refused;
        } else if discarded.is_none_or(|answer| answer.is_err()) {
            return Err(ProbeError::Stuck);
        } else {
            let named = commands.iter().map(|(name, _)| name.as_str()).zip(answers);
            let errors = named.filter_map(|(name, answer)| Some((name, answer.err()?)));
            refused.extend(errors.filter(|(_, error)| cluster.is_none() || !is_elsewhere(error)));
        }
    }
    for key in needs.iter().filter_map(Needs::writes) {
        let key = &match cluster.map(NodeSlots::any) {
            None => Cow::Borrowed(key),
            Some(Some(slot)) => Cow::Owned(format!("{key}{{{}}}", tag_of_slot(slot))),
            // A node without slots takes no keys.
            Some(None) => continue,
        };
        let mut set = redis::cmd("SET");
        set.arg(&**key).arg(1).arg("PX").arg(KEY_TTL_MS);
        let script = Script::new(WRITE);
        let mut call = script.key(&**key);
        call.arg(KEY_TTL_MS);
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(WRITE);
        let mut eval = redis::cmd("EVALSHA");
        eval.arg(script.get_hash()).arg(1).arg(&**key).arg(KEY_TTL_MS);
        let answers = ask(connection, &[set, load, eval]).await?;
        for (name, answer) in ["SET", "SCRIPT", "EVALSHA"].into_iter().zip(answers) {
            let error = answer.err().filter(|error| cluster.is_none() || !is_elsewhere(error));
            refused.extend(error.map(|error| (name, error)));
        }
    }
    Ok(refusal(&refused))
}

/// Whether a node of a cluster permits the command, and another node has the key of the example, or soon will.
fn is_elsewhere(error: &RedisError) -> bool {
    matches!(error.code(), Some("MOVED" | "ASK" | "TRYAGAIN" | "CROSSSLOT"))
}

fn refusal(refused: &[(&str, RedisError)]) -> Option<Refusal> {
    let (_, first) = refused.first()?;
    let mut names: Vec<String> = Vec::new();
    for (name, _) in refused.iter().filter(|(_, error)| error.code() == first.code()) {
        if !names.iter().any(|known| known == name) {
            names.push((*name).to_owned());
        }
    }
    let more = names.len().saturating_sub(MAX_NAMED);
    names.truncate(MAX_NAMED);
    let mut commands = names.join(", ");
    if more > 0 {
        commands.push_str(&format!(" and {more} more"));
    }
    Some(Refusal { commands, reason: describe(first) })
}

fn code(answer: &RedisResult<Value>) -> Option<&str> {
    answer.as_ref().err().and_then(RedisError::code)
}

/// Sends `commands` in one write. Returns their answers, of which there is one for each.
async fn ask(
    connection: &mut MultiplexedConnection,
    commands: &[Cmd],
) -> Result<Vec<RedisResult<Value>>, ProbeError> {
    let mut pipeline = redis::Pipeline::with_capacity(commands.len());
    commands.iter().for_each(|command| {
        pipeline.add_command(command.clone());
    });
    let pipeline = pipeline.ignore_errors();
    let answers = timeout(COMMAND_DEADLINE, pipeline.query_async(connection)).await;
    match answers {
        Ok(Ok(answers)) => {
            let answers: Vec<RedisResult<Value>> = answers;
            if answers.len() == commands.len() { Ok(answers) } else { Err(ProbeError::NoAnswer) }
        }
        Ok(Err(_)) | Err(_) => Err(ProbeError::NoAnswer),
    }
}

fn command(name: &str, target: &str) -> Option<Cmd> {
    let mut command = redis::cmd(name);
    for argument in arguments(name)? {
        command.arg(if *argument == TARGET { target } else { argument });
    }
    Some(command)
}

/// The place of the key or channel in [`arguments`].
const TARGET: &str = "{}";

/// Arguments with which Redis accepts a command into a transaction. What they would do does not matter.
fn arguments(command: &str) -> Option<&'static [&'static str]> {
    Some(match command {
        "TIME" => &[],
        "SCRIPT" => &["LOAD", "return 1"],
        "EVALSHA" => &["0000000000000000000000000000000000000000", "1", TARGET],
        "PUBSUB" => &["NUMSUB", TARGET],
        "CLUSTER" => &["NODES"],
        "DEL" | "EXISTS" | "GET" | "GETDEL" | "HGETALL" | "HLEN" | "INCR" | "LLEN" | "MGET"
        | "PTTL" | "SUBSCRIBE" | "UNSUBSCRIBE" | "SSUBSCRIBE" | "SUNSUBSCRIBE" | "XLEN"
        | "ZCARD" | "ZPOPMIN" | "HKEYS" | "HVALS" | "SMEMBERS" | "SCARD" | "TTL" | "TYPE"
        | "STRLEN" | "PERSIST" | "UNLINK" | "LPOP" | "RPOP" => &[TARGET],
        "EXPIRE" | "PEXPIRE" | "HDEL" | "HEXISTS" | "HGET" | "HMGET" | "LPUSH" | "RPUSH"
        | "PUBLISH" | "SPUBLISH" | "ZREM" | "ZSCORE" | "SADD" | "SPOP" | "SREM" | "SISMEMBER"
        | "INCRBY" | "PEXPIREAT" | "EXPIREAT" | "ZRANK" => &[TARGET, "1"],
        "XDEL" => &[TARGET, "1-0"],
        "SET" => &[TARGET, "1", "PX", "1"],
        "HSET" | "HSETNX" | "HINCRBY" | "LREM" => &[TARGET, "1", "1"],
        "XADD" => &[TARGET, "*", "f", "v"],
        "XRANGE" | "XREVRANGE" => &[TARGET, "-", "+"],
        "XTRIM" => &[TARGET, "MAXLEN", "1"],
        "ZADD" | "ZINCRBY" => &[TARGET, "1", "m"],
        "ZCOUNT" | "ZRANGE" | "ZRANGEBYSCORE" | "ZREMRANGEBYSCORE" | "LRANGE" | "LTRIM"
        | "ZREVRANGE" | "ZREMRANGEBYRANK" => &[TARGET, "0", "1"],
        "ZRANGEBYLEX" => &[TARGET, "-", "+"],
        _ => return None,
    })
}

/// The commands that a script calls, once for each call.
fn called_commands(source: &str) -> impl Iterator<Item = &str> {
    let calls = ["redis.call('", "redis.pcall('"];
    calls
        .into_iter()
        .flat_map(move |call| source.split(call).skip(1).filter_map(|rest| rest.split('\'').next()))
}

#[cfg(test)]
mod tests;
