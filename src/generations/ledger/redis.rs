//! The ledger's keys and scripts.
//!
//! `{prefix}generations` has a member for each generation, `<channel> <task id>`, scored by the end of
//! its lease on Redis' clock; `{prefix}generations:facts` has its node and record. `{prefix}cancel:<task id>`
//! exists while the cancellation of a task is requested; workers look at it as well.
//!
//! In a cluster the generations are in [`PARTS`] parts by their channels, each in a slot of its own:
//! `{prefix}{generations:<part>}`, with `:facts` behind it, and `:cancel:<task id>` for requests. What workers look at has
//! the same name as without a cluster.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Script, ScriptInvocation};

use super::{Claimed, GenerationRecord, Held, LEASE, Release};
use crate::generations::Task;
use crate::protocol::{ChannelName, random_hex};
use crate::redis_link::{Commands, EngineUnavailable, Needs, RedisFailure};

/// The most generations that are claimed in one step.
const MAX_CLAIMED: usize = 100;

/// How many parts the generations of a cluster are in. Each node looks for abandoned ones in all of them, every two seconds.
const PARTS: u64 = 16;

/// The keys of generations that are in one slot.
struct Part {
    generations: String,
    record: String,
    /// The part before a task's id in the key that requests its cancellation.
    cancel_prefix: String,
    /// Since when it has answered every call; `None` after one that it did not.
    answering_since: Mutex<Option<Instant>>,
}

pub(super) struct RedisLedger {
    commands: Commands,
    /// Identifies this process.
    node: String,
    /// One, or in a cluster [`PARTS`].
    parts: Vec<Part>,
    /// The part before a task's id in the key that workers look at.
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
    /// Generations whose shard of a cluster is unavailable.
    pub failed: Vec<Task>,
}

impl RedisLedger {
    pub fn new(commands: Commands, key_prefix: &str) -> Self {
        let part = |generations: String, cancel_prefix: String| Part {
            record: format!("{generations}:facts"),
            generations,
            cancel_prefix,
            answering_since: Mutex::default(),
        };
        let parts = match commands.is_cluster() {
            false => {
                let cancel_prefix = format!("{key_prefix}cancel:");
                vec![part(format!("{key_prefix}generations"), cancel_prefix)]
            }
            true => {
                let name = |number| format!("{key_prefix}{{generations:{number}}}");
                let one = |number| part(name(number), format!("{}:cancel:", name(number)));
                (0..PARTS).map(one).collect()
            }
        };
        let ledger = Self {
            commands,
            node: random_hex(8),
            parts,
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
        let Some(Part { generations, record, .. }) = self.parts.first() else {
            return Needs::default();
        };
        let mut needs = Needs::default();
        for source in
            [include_str!("enter.lua"), include_str!("release.lua"), include_str!("claim.lua")]
        {
            needs = needs.script(source, generations, &self.cancel_channel);
        }
        let cancel = format!("{}0", self.cancel_prefix);
        for command in ["SET", "DEL", "EXISTS"] {
            needs = needs.command(command, &cancel);
        }
        needs
            .command("ZCARD", generations)
            .command("HGET", record)
            .command("PUBLISH", &self.cancel_channel)
    }

    /// The part that the generations of `channel` are in.
    fn part_of(&self, channel: &ChannelName) -> usize {
        let bytes = channel.as_str().bytes();
        // All nodes must come to the same: FNV-1a.
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash % self.parts.len() as u64) as usize
    }

    /// Enters generations, or renews those that are entered.
    pub async fn enter(&self, held: &[(Task, Arc<Held>)]) -> Result<Renewed, EngineUnavailable> {
        let mut calls = self.calls(&self.enter);
        for (call, Part { cancel_prefix, .. }) in calls.iter_mut().zip(&self.parts) {
            call.0.arg(cancel_prefix);
        }
        for (task, Held { record, is_entered, .. }) in
            held.iter().map(|(task, held)| (task, &**held))
        {
            let is_new = !is_entered.load(Ordering::Relaxed);
            let (call, is_used) = &mut calls[self.part_of(&task.channel)];
            call.arg(member(task)).arg(record.to_json()).arg(u8::from(is_new));
            *is_used = true;
        }
        let tasks = |members: Vec<String>| {
            members.iter().filter_map(|member| task(member)).collect::<Vec<Task>>()
        };
        let mut renewed = Renewed { taken: Vec::new(), cancelled: Vec::new(), failed: Vec::new() };
        for (part, answer) in
            self.invoke_used::<(Vec<String>, Vec<String>)>(&self.enter, calls).await?
        {
            match answer {
                Some((taken, cancelled)) => {
                    renewed.taken.extend(tasks(taken));
                    renewed.cancelled.extend(tasks(cancelled));
                }
                None => renewed.failed.extend(self.tasks_of(part, held)),
            }
        }
        Ok(renewed)
    }

    fn tasks_of<T>(&self, part: usize, all: &[(Task, T)]) -> impl Iterator<Item = Task> {
        let is_of = move |task: &&Task| self.part_of(&task.channel) == part;
        all.iter().map(|(task, _)| task).filter(is_of).cloned()
    }

    /// Returns the generations whose shard of a cluster is unavailable.
    pub async fn release(
        &self,
        releases: &[(Task, Release)],
    ) -> Result<Vec<Task>, EngineUnavailable> {
        let mut calls = self.calls(&self.release);
        for (task, release) in releases {
            let (call, is_used) = &mut calls[self.part_of(&task.channel)];
            add_release(call, &member(task), release);
            *is_used = true;
        }
        let answers = self.invoke_used::<()>(&self.release, calls).await?;
        let failed = answers.into_iter().filter(|(_, answer)| answer.is_none());
        Ok(failed.flat_map(|(part, _)| self.tasks_of(part, releases)).collect())
    }

    /// Claims generations that were handed over and, unless `only_handed_over`, those whose lease has expired. A part that
    /// has only just become available again is left as much time.
    pub async fn claim(&self, only_handed_over: bool) -> Result<Vec<Claimed>, EngineUnavailable> {
        let mut calls = self.calls(&self.claim);
        for ((call, is_used), part) in calls.iter_mut().zip(&self.parts) {
            let only_handed_over = only_handed_over || self.parts.len() > 1 && !part.is_trusted();
            call.arg(&part.cancel_prefix).arg(MAX_CLAIMED).arg(u8::from(only_handed_over));
            *is_used = true;
        }
        let answers = self.invoke_used::<Vec<(String, String, bool)>>(&self.claim, calls).await?;
        let (mut claimed, mut is_malformed) = (Vec::new(), false);
        let mut releases = self.calls(&self.release);
        for (part, answer) in answers {
            let (release, is_used) = &mut releases[part];
            for (member, record, cancelled) in answer.into_iter().flatten() {
                match (task(&member), GenerationRecord::from_json(&record)) {
                    (Some(task), Some(record)) => claimed.push(Claimed { task, record, cancelled }),
                    _ => {
                        add_release(release, &member, &Release::Ended);
                        (*is_used, is_malformed) = (true, true);
                    }
                }
            }
        }
        if is_malformed {
            self.invoke_used::<()>(&self.release, releases).await?;
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
        let part = &self.parts[self.part_of(&task.channel)];
        let mut get = redis::cmd("HGET");
        let record: Option<String> =
            self.commands.query(get.arg(&part.record).arg(member(task))).await?;
        if record.is_none_or(|record| record.starts_with("- ")) {
            return Ok(false);
        }
        let () = self.commands.query(&set_cancel(&part.cancel_prefix, task, ttl)).await?;
        Ok(true)
    }

    /// Tells the worker of a cancelled task, whether it polls the key or listens to the channel.
    pub async fn notify_worker(&self, task: &Task, ttl: Duration) -> Result<(), EngineUnavailable> {
        let mut pipeline = redis::Pipeline::with_capacity(3);
        pipeline.add_command(set_cancel(&self.cancel_prefix, task, ttl)).ignore();
        let part = &self.parts[self.part_of(&task.channel)];
        if part.cancel_prefix != self.cancel_prefix {
            pipeline.add_command(set_cancel(&part.cancel_prefix, task, ttl)).ignore();
        }
        pipeline.cmd("PUBLISH").arg(&self.cancel_channel).arg(&*task.id).ignore();
        Ok(self.commands.pipeline(&pipeline).await?)
    }

    /// A call for each part, and that it is not used so far.
    fn calls<'a>(&self, script: &'a Script) -> Vec<(ScriptInvocation<'a>, bool)> {
        let call = |Part { generations, record, .. }: &Part| {
            let mut call = script.prepare_invoke();
            call.key(generations).key(record);
            call.arg(&self.node).arg(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX));
            (call, false)
        };
        self.parts.iter().map(call).collect()
    }

    /// Makes the calls that are used, and returns the answer of each part; `None` = it is unavailable. `Err` if no part
    /// answers.
    async fn invoke_used<T: FromRedisValue>(
        &self,
        script: &Script,
        calls: Vec<(ScriptInvocation<'_>, bool)>,
    ) -> Result<Vec<(usize, Option<T>)>, EngineUnavailable> {
        let used = calls.into_iter().enumerate();
        let (parts, calls): (Vec<usize>, Vec<_>) =
            used.filter_map(|(part, (call, is_used))| is_used.then_some((part, call))).unzip();
        if let ([part], [only]) = (&parts[..], &calls[..]) {
            let answer = self.commands.invoke(only).await;
            self.parts[*part].note(answer.is_ok());
            return Ok(vec![(*part, Some(answer?))]);
        }
        let answers = match self.commands.invoke_all(script, &calls).await {
            Ok(answers) => answers,
            Err(failure) => {
                parts.iter().for_each(|part| self.parts[*part].note(false));
                return Err(failure.into());
            }
        };
        let answer = |(part, answer): (usize, Result<T, RedisFailure>)| {
            self.parts[part].note(answer.is_ok());
            (part, answer.ok())
        };
        Ok(parts.into_iter().zip(answers).map(answer).collect())
    }
}

impl Part {
    /// Records whether it has answered.
    fn note(&self, has_answered: bool) {
        let mut since = self.answering_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = has_answered.then(|| since.unwrap_or_else(Instant::now));
    }

    /// Whether it has answered every call for longer than a lease: then all nodes could renew what they have in it.
    fn is_trusted(&self) -> bool {
        let since = self.answering_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() > LEASE)
    }
}

fn set_cancel(prefix: &str, task: &Task, ttl: Duration) -> redis::Cmd {
    let mut set = redis::cmd("SET");
    set.arg(format!("{prefix}{}", task.id)).arg(1);
    set.arg("EX").arg(ttl.as_secs().max(1));
    set
}

/// Adds the release of a generation to a call of release.lua.
fn add_release(call: &mut ScriptInvocation<'_>, member: &str, release: &Release) {
    let (how, record) = match release {
        Release::Ended => ("ended", String::new()),
        Release::Lost => ("lost", String::new()),
        Release::Free(record) => ("free", record.to_json()),
    };
    call.arg(member).arg(how).arg(record);
}

/// Channel names have no spaces.
fn member(task: &Task) -> String {
    format!("{} {}", task.channel, task.id)
}

fn task(member: &str) -> Option<Task> {
    let (channel, id) = member.split_once(' ')?;
    Some(Task { channel: ChannelName::new(channel).ok()?, id: id.into() })
}
