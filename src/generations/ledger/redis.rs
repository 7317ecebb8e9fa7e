//! The ledger's keys and scripts.
//!
//! `{prefix}generations` has a member for each generation, `<channel> <task id>`, scored by the end of
//! its lease on Redis' clock; `{prefix}generations:facts` has its node and record. `{prefix}cancel:<task id>`
//! exists while the cancellation of a task is requested; workers look at it as well.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Script, ScriptInvocation};

use super::{Claimed, GenerationRecord, Held, LEASE, Release};
use crate::generations::Task;
use crate::protocol::{ChannelName, random_hex};
use crate::redis_link::{Commands, EngineUnavailable, Needs};

/// The most generations that are claimed in one step.
const MAX_CLAIMED: usize = 100;

pub(super) struct RedisLedger {
    commands: Commands,
    /// Identifies this process.
    node: String,
    generations: String,
    record: String,
    /// The part before a task's id in the key that requests its cancellation.
    cancel_prefix: String,
    /// The channel on which cancelled tasks are published.
    cancel_channel: String,
    enter: Script,
    release: Script,
    claim: Script,
}

/// The answer to a renewal.
pub(super) struct Renewed {
    /// Generations that another node has claimed.
    pub taken: Vec<Task>,
    /// Generations whose cancellation was requested.
    pub cancelled: Vec<Task>,
}

impl RedisLedger {
    pub fn new(commands: Commands, key_prefix: &str) -> Self {
        let ledger = Self {
            commands,
            node: random_hex(8),
            generations: format!("{key_prefix}generations"),
            record: format!("{key_prefix}generations:facts"),
            cancel_prefix: format!("{key_prefix}cancel:"),
            cancel_channel: format!("{key_prefix}cancel"),
            enter: Script::new(include_str!("enter.lua")),
            release: Script::new(include_str!("release.lua")),
            claim: Script::new(include_str!("claim.lua")),
        };
        ledger.commands.declare("ledger", ledger.needs());
        ledger
    }

    /// What the ledger sends to Redis.
    fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        for source in
            [include_str!("enter.lua"), include_str!("release.lua"), include_str!("claim.lua")]
        {
            needs = needs.script(source, &self.generations, &self.cancel_channel);
        }
        let cancel = format!("{}0", self.cancel_prefix);
        for command in ["SET", "DEL", "EXISTS"] {
            needs = needs.command(command, &cancel);
        }
        needs
            .command("ZCARD", &self.generations)
            .command("HGET", &self.record)
            .command("PUBLISH", &self.cancel_channel)
    }

    /// Enters generations, or renews those that are entered.
    pub async fn enter(&self, held: &[(Task, Arc<Held>)]) -> Result<Renewed, EngineUnavailable> {
        let mut call = self.call(&self.enter);
        call.arg(&self.cancel_prefix);
        for (task, Held { record, is_entered, .. }) in
            held.iter().map(|(task, held)| (task, &**held))
        {
            let is_new = !is_entered.load(Ordering::Relaxed);
            call.arg(member(task)).arg(record.to_json()).arg(u8::from(is_new));
        }
        let (taken, cancelled): (Vec<String>, Vec<String>) = self.commands.invoke(&call).await?;
        let tasks = |members: Vec<String>| members.iter().filter_map(|m| task(m)).collect();
        Ok(Renewed { taken: tasks(taken), cancelled: tasks(cancelled) })
    }

    pub async fn release(&self, releases: &[(Task, Release)]) -> Result<(), EngineUnavailable> {
        self.release_members(releases.iter().map(|(task, release)| (member(task), release))).await
    }

    async fn release_members(
        &self,
        releases: impl Iterator<Item = (String, &Release)>,
    ) -> Result<(), EngineUnavailable> {
        let mut call = self.call(&self.release);
        for (member, release) in releases {
            let (how, record) = match release {
                Release::Ended => ("ended", String::new()),
                Release::Lost => ("lost", String::new()),
                Release::Free(record) => ("free", record.to_json()),
            };
            call.arg(member).arg(how).arg(record);
        }
        Ok(self.commands.invoke(&call).await?)
    }

    /// Claims generations that were handed over and, unless `only_handed_over`, those whose lease has expired.
    pub async fn claim(&self, only_handed_over: bool) -> Result<Vec<Claimed>, EngineUnavailable> {
        let mut call = self.call(&self.claim);
        call.arg(&self.cancel_prefix).arg(MAX_CLAIMED).arg(u8::from(only_handed_over));
        let answer: Vec<(String, String, bool)> = self.commands.invoke(&call).await?;
        let (mut claimed, mut malformed) = (Vec::new(), Vec::new());
        for (member, record, cancelled) in answer {
            match (task(&member), GenerationRecord::from_json(&record)) {
                (Some(task), Some(record)) => claimed.push(Claimed { task, record, cancelled }),
                _ => malformed.push(member),
            }
        }
        if !malformed.is_empty() {
            self.release_members(malformed.into_iter().map(|member| (member, &Release::Ended)))
                .await?;
        }
        Ok(claimed)
    }

    /// Requests a cancellation, which the responsible node learns at its next renewal. Returns false if no
    /// node is responsible.
    pub async fn request_cancel(
        &self,
        task: &Task,
        ttl: Duration,
    ) -> Result<bool, EngineUnavailable> {
        let mut get = redis::cmd("HGET");
        let record: Option<String> =
            self.commands.query(get.arg(&self.record).arg(member(task))).await?;
        if record.is_none_or(|record| record.starts_with("- ")) {
            return Ok(false);
        }
        let () = self.commands.query(&self.set_cancel(task, ttl)).await?;
        Ok(true)
    }

    /// Tells the worker of a cancelled task, whether it polls the key or listens to the channel.
    pub async fn notify_worker(&self, task: &Task, ttl: Duration) -> Result<(), EngineUnavailable> {
        let mut pipeline = redis::Pipeline::with_capacity(2);
        pipeline.add_command(self.set_cancel(task, ttl)).ignore();
        pipeline.cmd("PUBLISH").arg(&self.cancel_channel).arg(&*task.id).ignore();
        Ok(self.commands.pipeline(&pipeline).await?)
    }

    fn set_cancel(&self, task: &Task, ttl: Duration) -> redis::Cmd {
        let mut set = redis::cmd("SET");
        set.arg(format!("{}{}", self.cancel_prefix, task.id)).arg(1);
        set.arg("EX").arg(ttl.as_secs().max(1));
        set
    }

    fn call<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut call = script.prepare_invoke();
        call.key(&self.generations).key(&self.record);
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
