//! Which node looks after which generation, so that another can when it dies.
//!
//! A node enters its generations and renews them all the time; what is not renewed is taken over by
//! another node, in one step. A node that finds one of its own taken leaves it alone. On the memory
//! engine there is nobody to take over, and the ledger keeps nothing.

mod redis;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Running, Task};
use crate::redis_link::{Commands, EngineUnavailable};
use crate::telemetry;
use redis::{RedisLedger, Renewed};

/// A generation is looked after for this long without renewal: how soon a node's death is noticed.
const LEASE: Duration = Duration::from_secs(10);
/// Two renewals may fail.
const RENEWAL: Duration = Duration::from_secs(3);
/// How often it is worth looking for what nobody looks after.
pub const SWEEP: Duration = Duration::from_secs(2);
/// After a failure.
const RETRY: Duration = Duration::from_millis(500);
/// Generations that go to the engine in one step.
const BATCH: usize = 250;
/// Ends that wait for an engine that is away; beyond it the oldest are forgotten, and taken over.
const MAX_LEAVING: usize = 20_000;

/// Shared by all threads of the node. Cheap to clone.
#[derive(Clone)]
pub struct Ledger(Option<Arc<Inner>>);

struct Inner {
    redis: RedisLedger,
    running: Running,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    entries: HashMap<Task, Entered>,
    /// Not told to the engine yet.
    fresh: Vec<Task>,
    leaving: VecDeque<(Task, Leaving)>,
    /// The engine has answered every renewal and every look since; after an outage all nodes need
    /// time to renew what is theirs.
    answering_since: Option<Instant>,
}

struct Entered {
    facts: Facts,
    taken: CancellationToken,
}

/// What another node needs to know to look after a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The path pattern of its route.
    pub route: String,
    /// The node that relayed it streams its reply: nobody else can go on with it.
    pub streams: bool,
    /// When it counts as running no more, in milliseconds since 1970.
    pub ends_ms: u64,
    /// The user whose limit it counts against, and the lease by which it does.
    #[serde(rename = "place", default, skip_serializing_if = "Option::is_none")]
    pub user_lease: Option<(String, String)>,
}

impl Facts {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers serialize")
    }

    fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}

/// A generation that this node has taken over.
#[derive(Debug)]
pub struct Claimed {
    pub task: Task,
    pub facts: Facts,
    /// Somebody wants it to end.
    pub cancelled: bool,
}

/// How a node ends its care.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Leaving {
    Gone,
    Dead,
    Left(Facts),
}

impl Ledger {
    /// Keeps nothing.
    pub fn memory() -> Self {
        Self(None)
    }

    /// `running` learns what is to be cancelled. [`Ledger::run`] does the work.
    pub fn redis(commands: Commands, key_prefix: &str, running: &Running) -> Self {
        Self(Some(Arc::new(Inner {
            redis: RedisLedger::new(commands, key_prefix),
            running: running.clone(),
            state: Mutex::default(),
            changed: Notify::new(),
        })))
    }

    /// A generation of this node begins.
    pub fn enter(&self, task: &Task, facts: Facts) -> Entry {
        self.put(task, facts, true)
    }

    /// This node goes on with a generation that it has claimed.
    pub fn resume(&self, claimed: &Claimed) -> Entry {
        self.put(&claimed.task, claimed.facts.clone(), false)
    }

    fn put(&self, task: &Task, facts: Facts, fresh: bool) -> Entry {
        let taken = CancellationToken::new();
        if let Some(inner) = &self.0 {
            let mut state = inner.lock();
            state.entries.insert(task.clone(), Entered { facts, taken: taken.clone() });
            if fresh {
                state.fresh.push(task.clone());
            }
            drop(state);
            inner.changed.notify_one();
        }
        Entry { ledger: self.clone(), task: task.clone(), taken }
    }

    /// What nobody looks after any more; this node does from now on. Nothing where the engine cannot
    /// be reached, or has only just come back.
    pub async fn claim(&self) -> Vec<Claimed> {
        let Some(inner) = &self.0 else { return Vec::new() };
        if !inner.is_trusted() {
            inner.note(inner.redis.look().await);
            return Vec::new();
        }
        let claimed = inner.note(inner.redis.claim().await).unwrap_or_default();
        telemetry::replies::generations_taken_over(claimed.len());
        claimed
    }

    /// A claimed generation is over: its node is to learn that, should it live.
    pub fn bury(&self, task: &Task) {
        self.leave(task, Leaving::Dead);
    }

    /// A claimed generation is not looked after here.
    pub fn release(&self, task: &Task) {
        self.leave(task, Leaving::Gone);
    }

    /// Asks whichever node looks after it to cancel it, at its next renewal at the latest. False = no
    /// node does. `ttl` is how long its worker may go on.
    pub async fn request_cancel(
        &self,
        task: &Task,
        ttl: Duration,
    ) -> Result<bool, EngineUnavailable> {
        match &self.0 {
            None => Ok(false),
            Some(inner) => inner.redis.request_cancel(task, ttl).await,
        }
    }

    /// The channel that workers hear of cancelled tasks on.
    pub fn workers_channel(&self) -> Option<&str> {
        self.0.as_deref().map(|inner| inner.redis.workers_channel())
    }

    /// Tells the worker of a cancelled generation.
    pub async fn tell_worker(&self, task: &Task, ttl: Duration) -> Result<(), EngineUnavailable> {
        match &self.0 {
            None => Ok(()),
            Some(inner) => inner.redis.tell_worker(task, ttl).await,
        }
    }

    fn leave(&self, task: &Task, how: Leaving) {
        let Some(inner) = &self.0 else { return };
        let mut state = inner.lock();
        state.entries.remove(task);
        if state.leaving.len() >= MAX_LEAVING {
            state.leaving.pop_front();
        }
        state.leaving.push_back((task.clone(), how));
        drop(state);
        inner.changed.notify_one();
    }

    /// Keeps the engine informed, for as long as the process lives.
    pub async fn run(self) {
        let Some(inner) = self.0 else { return };
        let mut renewed = Instant::now();
        loop {
            let due = renewed + RENEWAL;
            tokio::select! {
                () = inner.changed.notified() => {}
                () = tokio::time::sleep_until(due.into()) => {}
            }
            let mut told = inner.flush().await;
            if told && Instant::now() >= due {
                told = inner.renew().await;
                renewed = Instant::now();
            }
            if !told {
                tokio::time::sleep(RETRY).await;
                inner.changed.notify_one();
            }
        }
    }

    /// Tells the engine of all beginnings and ends so far, where it can be reached.
    pub async fn flush(&self) {
        if let Some(inner) = &self.0 {
            inner.flush().await;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what was not renewed is dead: everybody who lives has had the time.
    fn is_trusted(&self) -> bool {
        self.lock().answering_since.is_some_and(|since| since.elapsed() > LEASE)
    }

    fn note<T>(&self, answer: Result<T, EngineUnavailable>) -> Option<T> {
        let mut state = self.lock();
        state.answering_since = match answer {
            Ok(_) => state.answering_since.or_else(|| Some(Instant::now())),
            Err(_) => None,
        };
        drop(state);
        answer.ok()
    }

    async fn flush(&self) -> bool {
        loop {
            let batch: Vec<_> = {
                let mut state = self.lock();
                let count = state.leaving.len().min(BATCH);
                state.leaving.drain(..count).collect()
            };
            if batch.is_empty() {
                break;
            }
            if self.note(self.redis.leave(&batch).await).is_none() {
                let mut state = self.lock();
                batch.into_iter().rev().for_each(|one| state.leaving.push_front(one));
                return false;
            }
        }
        let fresh = std::mem::take(&mut self.lock().fresh);
        self.tell(fresh, true).await
    }

    async fn renew(&self) -> bool {
        let all: Vec<_> = self.lock().entries.keys().cloned().collect();
        self.tell(all, false).await
    }

    /// False if the engine cannot be told now; a beginning is then told by a later renewal.
    async fn tell(&self, tasks: Vec<Task>, fresh: bool) -> bool {
        for some in tasks.chunks(BATCH) {
            let entries: Vec<_> = {
                let state = self.lock();
                let facts = |task: &Task| state.entries.get(task).map(|entry| entry.facts.clone());
                let entry = |task: &Task| Some((task.clone(), facts(task)?, fresh));
                some.iter().filter_map(entry).collect()
            };
            if entries.is_empty() {
                continue;
            }
            let Some(renewed) = self.note(self.redis.enter(&entries).await) else { return false };
            self.learn(renewed);
        }
        true
    }

    fn learn(&self, Renewed { taken, cancelled }: Renewed) {
        for task in cancelled {
            self.running.cancel(&task);
        }
        let mut state = self.lock();
        for task in taken {
            if let Some(entry) = state.entries.remove(&task) {
                telemetry::replies::generation_lost_to_another_node(&task.channel, &task.id);
                entry.taken.cancel();
            }
        }
    }
}

/// A generation that this node looks after. Dropped = it has ended.
pub struct Entry {
    ledger: Ledger,
    task: Task,
    taken: CancellationToken,
}

impl Entry {
    /// Completes when another node has taken it over, believing this one dead.
    pub async fn taken(&self) {
        self.taken.cancelled().await;
    }

    /// Any other node may go on with it, at dedup.
    pub fn hand_over(self) {
        let facts = self.ledger.0.as_deref().and_then(|inner| {
            inner.lock().entries.get(&self.task).map(|entry| entry.facts.clone())
        });
        if let Some(facts) = facts {
            self.ledger.leave(&self.task, Leaving::Left(facts));
        }
        self.forget();
    }

    /// It is not looked after any more, and to be taken over when its lease is over, by whichever node
    /// can.
    pub fn abandon(self) {
        if let Some(inner) = &self.ledger.0 {
            inner.lock().entries.remove(&self.task);
        }
        self.forget();
    }

    fn forget(mut self) {
        self.ledger = Ledger::memory();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.taken.is_cancelled() {
            self.ledger.leave(&self.task, Leaving::Gone);
        }
    }
}
