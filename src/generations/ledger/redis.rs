//! The ledger's keys and scripts.
//!
//! `{prefix}generations` has a member for each generation, `<channel> <task id>`, scored by the end of
//! its lease on Redis' clock; `{prefix}generations:facts` its node and facts. `{prefix}cancel:<task id>`
//! is there where somebody wants a task to end; workers look at it, too.

use std::time::Duration;

use redis::{Script, ScriptInvocation};

use super::{Claimed, Facts, LEASE, Leaving};
use crate::generations::Task;
use crate::protocol::{ChannelName, random_hex};
use crate::redis_link::{Commands, EngineUnavailable};

/// Generations that are taken over in one step.
const MOST_CLAIMED: usize = 100;

pub(super) struct RedisLedger {
    commands: Commands,
    /// Names this process.
    node: String,
    generations: String,
    facts: String,
    cancel: String,
    cancels: String,
    enter: Script,
    leave: Script,
    claim: Script,
}

/// What a renewal learns.
pub(super) struct Renewed {
    pub taken: Vec<Task>,
    pub cancelled: Vec<Task>,
}

impl RedisLedger {
    pub fn new(commands: Commands, key_prefix: &str) -> Self {
        Self {
            commands,
            node: random_hex(8),
            generations: format!("{key_prefix}generations"),
            facts: format!("{key_prefix}generations:facts"),
            cancel: format!("{key_prefix}cancel:"),
            cancels: format!("{key_prefix}cancel"),
            enter: Script::new(include_str!("enter.lua")),
            leave: Script::new(include_str!("leave.lua")),
            claim: Script::new(include_str!("claim.lua")),
        }
    }

    /// Each with whether it has just begun.
    pub async fn enter(
        &self,
        entries: &[(Task, Facts, bool)],
    ) -> Result<Renewed, EngineUnavailable> {
        let mut call = self.call(&self.enter);
        call.arg(&self.cancel);
        for (task, facts, fresh) in entries {
            call.arg(member(task)).arg(facts.to_json()).arg(u8::from(*fresh));
        }
        let (taken, cancelled): (Vec<String>, Vec<String>) = self.commands.invoke(&call).await?;
        let tasks = |members: Vec<String>| members.iter().filter_map(|m| task(m)).collect();
        Ok(Renewed { taken: tasks(taken), cancelled: tasks(cancelled) })
    }

    pub async fn leave(&self, leaving: &[(Task, Leaving)]) -> Result<(), EngineUnavailable> {
        let member = |(task, how): &(Task, Leaving)| (member(task), how.clone());
        self.leave_members(leaving.iter().map(member)).await
    }

    async fn leave_members(
        &self,
        leaving: impl IntoIterator<Item = (String, Leaving)>,
    ) -> Result<(), EngineUnavailable> {
        let mut call = self.call(&self.leave);
        for (member, how) in leaving {
            let (how, facts) = match how {
                Leaving::Gone => ("gone", String::new()),
                Leaving::Dead => ("dead", String::new()),
                Leaving::Left(facts) => ("left", facts.to_json()),
            };
            call.arg(member).arg(how).arg(facts);
        }
        Ok(self.commands.invoke(&call).await?)
    }

    /// Generations that no node looked after any more, and this one does now.
    pub async fn claim(&self) -> Result<Vec<Claimed>, EngineUnavailable> {
        let mut call = self.call(&self.claim);
        call.arg(&self.cancel).arg(MOST_CLAIMED);
        let answer: Vec<(String, String, bool)> = self.commands.invoke(&call).await?;
        let (mut claimed, mut nonsense) = (Vec::new(), Vec::new());
        for (member, facts, cancelled) in answer {
            match (task(&member), Facts::from_json(&facts)) {
                (Some(task), Some(facts)) => claimed.push(Claimed { task, facts, cancelled }),
                _ => nonsense.push((member, Leaving::Gone)),
            }
        }
        if !nonsense.is_empty() {
            self.leave_members(nonsense).await?;
        }
        Ok(claimed)
    }

    /// Whether the engine answers.
    pub async fn look(&self) -> Result<(), EngineUnavailable> {
        let _count: u64 = self.commands.query(redis::cmd("ZCARD").arg(&self.generations)).await?;
        Ok(())
    }

    /// Whoever looks after it learns of it at the next renewal. False = nobody does.
    pub async fn request_cancel(
        &self,
        task: &Task,
        ttl: Duration,
    ) -> Result<bool, EngineUnavailable> {
        let mut get = redis::cmd("HGET");
        let facts: Option<String> =
            self.commands.query(get.arg(&self.facts).arg(member(task))).await?;
        if facts.is_none_or(|facts| facts.starts_with("- ")) {
            return Ok(false);
        }
        let () = self.commands.query(&self.set_cancel(task, ttl)).await?;
        Ok(true)
    }

    pub fn workers_channel(&self) -> &str {
        &self.cancels
    }

    /// Tells the worker, whether it asks or listens.
    pub async fn tell_worker(&self, task: &Task, ttl: Duration) -> Result<(), EngineUnavailable> {
        let mut told = redis::Pipeline::with_capacity(2);
        told.add_command(self.set_cancel(task, ttl)).ignore();
        told.cmd("PUBLISH").arg(&self.cancels).arg(&*task.id).ignore();
        Ok(self.commands.pipeline(&told).await?)
    }

    fn set_cancel(&self, task: &Task, ttl: Duration) -> redis::Cmd {
        let mut set = redis::cmd("SET");
        set.arg(format!("{}{}", self.cancel, task.id)).arg(1);
        set.arg("EX").arg(ttl.as_secs().max(1));
        set
    }

    fn call<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut call = script.prepare_invoke();
        call.key(&self.generations).key(&self.facts);
        call.arg(&self.node).arg(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX));
        call
    }
}

/// Channel names have no spaces.
fn member(task: &Task) -> String {
    format!("{} {}", task.channel, task.id)
}

fn task(member: &str) -> Option<Task> {
    let (channel, id) = member.split_once(' ')?;
    Some(Task { channel: ChannelName::new(channel).ok()?, id: id.into() })
}
