//! Sends commands of a cluster to the nodes that have their keys, and follows what these answer: MOVED to the new node of
//! a slot, ASK to the node that a slot is being moved to; TRYAGAIN, CLUSTERDOWN and the like are tried again. All of that
//! within the time in which one server would have answered.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult};
use redis::{Script, ScriptInvocation, ServerErrorKind, Value};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::map::{Node, SlotMap};
use super::{ClusterCommands, PATIENCE};
use crate::redis_link::RedisFailure;
use crate::redis_link::open::COMMAND_DEADLINE;
use crate::redis_link::server::{LATE, name_of};
use crate::redis_link::slots::slot_of_command;

/// The pauses before commands are tried again that the cluster could not run.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What loads a script that a node does not know yet.
#[derive(Clone, Copy)]
pub(in crate::redis_link) enum Loader<'a> {
    Script(&'a Script),
    Invocation(&'a ScriptInvocation<'a>),
}

type Answer = Result<Value, RedisFailure>;

/// A command without an answer.
struct Open<'a> {
    /// Its place among the commands of the call.
    at: usize,
    command: &'a Cmd,
    slot: Option<u16>,
    next: Next,
}

/// Where a command goes next.
#[derive(Clone, PartialEq, Eq)]
enum Next {
    /// To the node that has its slot.
    Owner,
    /// To the address that MOVED has named.
    Moved(Box<str>),
    /// To the address that ASK has named, with ASKING before it.
    Asking(Box<str>),
}

/// What an error answer means for a command.
enum Verdict {
    Final,
    Moved(Box<str>),
    Asking(Box<str>),
    /// The cluster cannot run it now.
    Later,
    UnknownScript,
}

impl ClusterCommands {
    pub async fn query<T: FromRedisValue>(
        &self,
        command: &Cmd,
        loader: Option<Loader<'_>>,
    ) -> Result<T, RedisFailure> {
        let answer = self.run(&[command], loader).await.pop();
        let value = answer.unwrap_or(Err(RedisFailure::Unavailable))?;
        T::from_redis_value(value).map_err(|error| RedisFailure::Refused(error.into()))
    }

    pub async fn invoke<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        let mut call = redis::pipe();
        call.invoke_script(script);
        match call.cmd_iter().next() {
            Some(command) => self.query(command, Some(Loader::Invocation(script))).await,
            None => Err(RedisFailure::Unavailable),
        }
    }

    pub async fn pipeline(&self, pipeline: &Pipeline) -> Result<(), RedisFailure> {
        let commands: Vec<&Cmd> = pipeline.cmd_iter().collect();
        self.run(&commands, None).await.into_iter().try_for_each(|answer| answer.map(drop))
    }

    /// Runs `commands`, and returns their answers in the same order. Those with keys in one slot run in their order.
    pub async fn run(&self, commands: &[&Cmd], loader: Option<Loader<'_>>) -> Vec<Answer> {
        let deadline = Instant::now() + COMMAND_DEADLINE;
        let mut answers: Vec<Answer> =
            commands.iter().map(|_| Err(RedisFailure::Unavailable)).collect();
        let mut left: Vec<Open<'_>> = (0..)
            .zip(commands)
            .map(|(at, command)| Open {
                at,
                command,
                slot: slot_of_command(command),
                next: Next::Owner,
            })
            .collect();
        let mut pause = FIRST_PAUSE;
        loop {
            let map = self.map();
            let mut again = Vec::new();
            let mut must_pause = false;
            let groups = group(&map, left, &mut again);
            if !again.is_empty() {
                // The map does not have the node yet.
                self.topology.suspect();
                must_pause = true;
            }
            let asked = groups.into_iter().map(|(node, is_asking, group)| async move {
                let began = Instant::now();
                let mut answered = ask(&node, is_asking, &group, loader, deadline).await;
                let is_late = answered.is_some() && began.elapsed() > LATE;
                if is_late && !self.topology.is_still_owner(&node).await {
                    answered = None;
                }
                (node, group, answered)
            });
            for (node, group, answered) in join_all(asked).await {
                let Some(answered) = answered else { continue };
                for (mut open, answer) in group.into_iter().zip(answered) {
                    let error = match answer {
                        Ok(value) => {
                            answers[open.at] = Ok(value);
                            continue;
                        }
                        Err(error) => error,
                    };
                    match verdict(&error, &node, loader.is_some()) {
                        Verdict::Final => {
                            let name = name_of(open.command);
                            answers[open.at] = Err(node.commands.classify(name, error));
                            continue;
                        }
                        Verdict::Moved(address) => {
                            self.topology.suspect();
                            // One that is sent to and fro waits for the cluster to settle.
                            must_pause |= matches!(open.next, Next::Moved(_));
                            open.next = Next::Moved(address);
                        }
                        Verdict::Asking(address) => open.next = Next::Asking(address),
                        Verdict::Later => {
                            self.topology.suspect();
                            must_pause = true;
                            open.next = Next::Owner;
                        }
                        // It was loaded, and is unknown again.
                        Verdict::UnknownScript => must_pause = true,
                    }
                    answers[open.at] = Err(RedisFailure::Refused(error));
                    again.push(open);
                }
            }
            if again.is_empty() || Instant::now() >= deadline {
                return answers;
            }
            again.sort_by_key(|open| open.at);
            left = again;
            if must_pause {
                let until = Instant::now() + pause;
                sleep_until(until.min(deadline)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

type Group<'a> = (Arc<Node>, bool, Vec<Open<'a>>);

/// Puts together what goes to one node. What has no node is added to `nowhere`.
fn group<'a>(map: &SlotMap, open: Vec<Open<'a>>, nowhere: &mut Vec<Open<'a>>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for one in open {
        let node = match (&one.next, one.slot) {
            (Next::Moved(address) | Next::Asking(address), _) => map.at(address),
            (Next::Owner, Some(slot)) => map.owner(slot),
            // Any node will do, and one that is there does it.
            (Next::Owner, None) => {
                map.owners().find(|node| node.commands.is_up()).or(map.nodes.first())
            }
        };
        let Some(node) = node else {
            // The address may be that of a node which is not known yet, or not any more.
            nowhere.push(Open { next: Next::Owner, ..one });
            continue;
        };
        let is_asking = matches!(one.next, Next::Asking(_));
        let group = groups
            .iter_mut()
            .find(|(other, asking, _)| Arc::ptr_eq(other, node) && *asking == is_asking);
        match group {
            Some((_, _, group)) => group.push(one),
            None => groups.push((Arc::clone(node), is_asking, vec![one])),
        }
    }
    groups
}

/// Sends a group in one write, and what needs an unknown script once more after it was loaded. `None` = there is no link
/// or no answer; what was sent may have run.
async fn ask(
    node: &Node,
    is_asking: bool,
    group: &[Open<'_>],
    loader: Option<Loader<'_>>,
    deadline: Instant,
) -> Option<Vec<RedisResult<Value>>> {
    if !node.commands.is_up() && node.began.elapsed() < PATIENCE {
        // It has just been found.
        let mut up = node.commands.subscribe_up();
        timeout_at(deadline, up.wait_for(|up| *up)).await.ok()?.ok()?;
    }
    let all: Vec<&Cmd> = group.iter().map(|open| open.command).collect();
    let mut answers = send(node, is_asking, &all, None, deadline).await?;
    let unknown: Vec<usize> = (0..answers.len())
        .filter(|at| matches!(&answers[*at], Err(error) if is_unknown_script(error)))
        .collect();
    if let (Some(loader), false) = (loader, unknown.is_empty()) {
        let commands: Vec<&Cmd> = unknown.iter().map(|at| all[*at]).collect();
        let repeated = send(node, is_asking, &commands, Some(loader), deadline).await?;
        for (at, answer) in unknown.into_iter().zip(repeated) {
            answers[at] = answer;
        }
    }
    Some(answers)
}

async fn send(
    node: &Node,
    is_asking: bool,
    commands: &[&Cmd],
    loader: Option<Loader<'_>>,
    deadline: Instant,
) -> Option<Vec<RedisResult<Value>>> {
    match loader {
        None => {}
        Some(Loader::Script(script)) => {
            let mut load = redis::pipe();
            load.load_script(script).ignore();
            within(deadline, node, node.commands.pipeline::<()>(&load)).await?;
        }
        Some(Loader::Invocation(invocation)) => {
            within(deadline, node, node.commands.load(invocation)).await?;
        }
    }
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        if is_asking {
            // An error answer to it is followed by one to the command.
            pipeline.cmd("ASKING");
        }
        pipeline.add_command((*command).clone());
    }
    let sent = node.commands.pipeline::<Vec<RedisResult<Value>>>(pipeline.ignore_errors());
    let answers = within(deadline, node, sent).await?;
    let expected = commands.len() * (1 + usize::from(is_asking));
    let step = 1 + usize::from(is_asking);
    (answers.len() == expected).then(|| answers.into_iter().skip(step - 1).step_by(step).collect())
}

/// Waits for an answer of `node`. Without one in time its link is checked.
async fn within<T>(
    deadline: Instant,
    node: &Node,
    answer: impl Future<Output = Result<T, RedisFailure>>,
) -> Option<T> {
    match timeout_at(deadline, answer).await {
        Ok(answer) => answer.ok(),
        Err(_) => {
            node.commands.suspect();
            None
        }
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn verdict(error: &RedisError, node: &Node, can_load: bool) -> Verdict {
    let address = || {
        let (address, _slot) = error.redirect_node()?;
        // A node that does not know its host leaves it out.
        Some(match address.strip_prefix(':') {
            Some(port) => format!("{}:{port}", node.host).into(),
            None => address.into(),
        })
    };
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => {
            address().map_or(Verdict::Later, Verdict::Moved)
        }
        ErrorKind::Server(ServerErrorKind::Ask) => {
            address().map_or(Verdict::Later, Verdict::Asking)
        }
        ErrorKind::Server(
            ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::BusyLoading,
        ) => Verdict::Later,
        _ if can_load && is_unknown_script(error) => Verdict::UnknownScript,
        _ => Verdict::Final,
    }
}
