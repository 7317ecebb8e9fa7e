//! A shared connection for commands to one server.
//!
//! Only the supervisor opens the connection, declares it lost and opens the next one. All users clone it for one
//! command, and can only report that it may be lost. [`super::Commands`] is what the users have.

mod supervision;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::ThreadId;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, ErrorKind, FromRedisValue, Pipeline};
use redis::{RedisError, RedisResult, ScriptInvocation};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use supervision::Supervisor;

use super::cluster::NodeSlots;
use super::label;
use super::open::COMMAND_DEADLINE;
use super::primary::Primary;
use super::probe::{Needs, ProbeError, Refusal, Transactions};
use super::reason::{describe, one_line};
use super::thread_links;
use super::{Health, MonitoredLink, RedisFailure, Supervised, supervise};
use crate::config::RedisUrl;
use crate::shutdown::Shutdown;
use crate::telemetry;

/// The interval between probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);

/// The interval while Redis refuses something. It is short, so that the node becomes ready again soon.
const PROBE_RETRY: Duration = Duration::from_millis(500);

/// An answer that took longer may be that of a primary which hung, and was replaced: it runs what waits in its sockets
/// before it learns of that, and then loses what this wrote. Where there are sentinels, they are asked.
pub(super) const LATE: Duration = Duration::from_millis(500);

/// The beginning of a problem that a probe has found.
const REFUSES: &str = "Redis refuses ";

/// A supervised connection for commands to one server, for use from any thread. Clones share it, and it ends with the
/// last clone.
#[derive(Clone)]
pub(super) struct ServerCommands {
    pub shared: Arc<Shared>,
    _supervisor_guard: Arc<DropGuard>,
}

pub(super) struct Shared {
    /// Where the connection leads, and those of single threads ([`ServerCommands::serve_thread`]).
    pub(super) primary: Primary,
    /// `Some` while the last check was passed. Only the supervisor writes it.
    pub(super) link: ArcSwapOption<Link>,
    /// Why there is no `link`, or why Redis does not accept what `needs` names; `None` if all is well.
    problem: ArcSwapOption<String>,
    /// What the users of the connection send, by the name of the user.
    needs: Mutex<BTreeMap<&'static str, Needs>>,
    needs_changed: Notify,
    /// Whether there is a `link`, for tasks that wait for it.
    up: watch::Sender<bool>,
    pub name: &'static str,
    /// The thread that drives the connection.
    pub(super) thread: ThreadId,
    /// The slots that the server has as a node of a cluster; `None` if it is none.
    pub(super) slots: Option<NodeSlots>,
    /// When a refusal was last logged, in seconds after `began`, plus one; 0 if never.
    refusal_logged: AtomicU64,
    began: Instant,
}

pub(super) struct Link {
    pub monitored: MonitoredLink,
    pub health: Health,
}

/// The connections for commands of this process, also those that have ended since the last one was added or looked
/// for.
pub(super) fn all() -> MutexGuard<'static, Vec<Weak<Shared>>> {
    static ALL: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ServerCommands {
    /// Starts the supervisor on the current runtime. `name` is the label in logs and metrics. It is not an error if Redis
    /// cannot be reached: the supervisor keeps trying.
    pub fn start(url: &RedisUrl, name: &str, shutdown: &Shutdown) -> Result<Self, String> {
        Ok(Self::start_at(Primary::named(url)?, None, name, shutdown))
    }

    /// The same for a node of a cluster.
    pub fn start_node(client: Client, slots: NodeSlots, name: &str, shutdown: &Shutdown) -> Self {
        Self::start_at(Primary::Server(Arc::new(client)), Some(slots), name, shutdown)
    }

    fn start_at(
        primary: Primary,
        slots: Option<NodeSlots>,
        name: &str,
        shutdown: &Shutdown,
    ) -> Self {
        let name = label::intern(name);
        telemetry::engine::redis_configured(name);
        let shared = Arc::new(Shared {
            primary,
            slots,
            link: ArcSwapOption::empty(),
            problem: ArcSwapOption::empty(),
            needs: Mutex::default(),
            needs_changed: Notify::new(),
            up: watch::Sender::new(false),
            name,
            thread: std::thread::current().id(),
            refusal_logged: AtomicU64::new(0),
            began: Instant::now(),
        });
        let transactions = Transactions::Unknown;
        all().push(Arc::downgrade(&shared));
        let mut supervisor = Supervisor { shared: shared.clone(), transactions };
        let shutdown = shutdown.clone();
        let stop = CancellationToken::new();
        let guard = Arc::new(stop.clone().drop_guard());
        let part = shutdown.clone().essential("redis connection", async move {
            tokio::select! {
                () = supervise(&mut supervisor, &shutdown) => {}
                () = stop.cancelled() => {}
            }
            supervisor.disconnected();
        });
        tokio::spawn(part);
        Self { shared, _supervisor_guard: guard }
    }

    /// Declares what `user` sends over this connection from now on, instead of what it has declared before. Redis is
    /// probed for it every few seconds, and [`ServerCommands::check`] reports what is refused.
    pub fn declare(&self, user: &'static str, needs: Needs) {
        let before = self.shared.needs().insert(user, needs.clone());
        if before.is_none_or(|before| before != needs) {
            self.shared.needs_changed.notify_one();
        }
    }

    /// For readiness checks: whether there is a connection, and Redis accepts what was declared. The error is for
    /// operators; it has the command and the reason that Redis gave.
    pub fn check(&self) -> Result<(), String> {
        self.shared.check()
    }

    /// Whether sentinels name the server, so that late answers are to be [`ServerCommands::confirmed`].
    pub fn has_sentinels(&self) -> bool {
        self.shared.primary.sentinels().is_some()
    }

    /// Whether both are the same connection, so that a chain can have steps of the users of both.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Gives up every connection to the server of this one, whatever it is used for, so that all are opened again and
    /// lead to the same server.
    pub fn reconnect_all(&self, reason: &'static str) {
        if let Some(link) = self.shared.link.load_full() {
            link.monitored.server.drop_all(&link.health, reason);
        }
    }

    /// Sends one command and waits for its answer, for at most two seconds.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        let name = name_of(command);
        self.send(name, async |mut connection| command.query_async(&mut connection).await).await
    }

    /// Calls a script with EVALSHA, after SCRIPT LOAD if the server does not know it yet. Waits for at most two
    /// seconds in total.
    pub async fn invoke<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        self.send("EVALSHA", async |mut connection| script.invoke_async(&mut connection).await)
            .await
    }

    /// Loads the script of a call.
    pub async fn load(&self, script: &ScriptInvocation<'_>) -> Result<(), RedisFailure> {
        let loaded =
            self.send("SCRIPT", async |mut connection| script.load_async(&mut connection).await);
        loaded.await.map(|_hash| ())
    }

    /// Makes the connection be checked at once.
    pub fn suspect(&self) {
        if let Some(link) = &*self.shared.link.load() {
            link.health.suspect();
        }
    }

    /// Sends all commands of `pipeline` in one write and waits for their answers, for at most two seconds.
    /// An error answer to one command is returned for all of them, although the others ran.
    pub async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
    ) -> Result<T, RedisFailure> {
        self.send("", async |mut connection| pipeline.query_async(&mut connection).await).await
    }

    /// Classifies an error answer to `command`, which may be empty for one of several.
    pub fn classify(&self, command: &str, error: RedisError) -> RedisFailure {
        self.shared.classify(command, error, self.shared.link.load().as_deref())
    }

    /// Records that Redis has refused a part of a script.
    pub fn record_refusal(&self, reason: &str) {
        let Shared { name, .. } = *self.shared;
        let is_due = self.shared.take_refusal_slot();
        telemetry::engine::redis_refused(name, "EVALSHA", &one_line(reason), is_due);
    }

    /// Returns a receiver that reports whether the last check was passed.
    pub fn subscribe_up(&self) -> watch::Receiver<bool> {
        self.shared.up.subscribe()
    }

    /// Whether the last check was passed: the server answers and is the primary.
    pub fn is_up(&self) -> bool {
        self.shared.link.load().is_some()
    }

    /// Waits for the answer to a command, and has the sentinels confirm that one which is late is the primary's. Does
    /// nothing where there are none.
    pub async fn confirmed<T>(
        &self,
        answer: impl Future<Output = Result<T, RedisFailure>>,
    ) -> Result<T, RedisFailure> {
        let link = thread_links::choose(&self.shared).ok_or(RedisFailure::Unavailable)?;
        let began = Instant::now();
        let answer = answer.await?;
        if let Some(sentinels) = self.shared.primary.sentinels()
            && began.elapsed() > LATE
        {
            // With a new answer of theirs, links to a former primary are given up.
            let is_confirmed =
                sentinels.answer_in_time().await && link.health.give_up_reason().is_none();
            return is_confirmed.then_some(answer).ok_or(RedisFailure::Unavailable);
        }
        Ok(answer)
    }

    async fn send<T, F: Future<Output = RedisResult<T>>>(
        &self,
        name: &str,
        command: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, RedisFailure> {
        let link = thread_links::choose(&self.shared).ok_or(RedisFailure::Unavailable)?;
        // The library's own deadline starts when the command is written. This one also covers the wait for a free
        // slot and the second round trip of a script.
        match timeout(COMMAND_DEADLINE, command(link.monitored.connection.clone())).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.shared.classify(name, error, Some(&link))),
            Err(_) => {
                link.health.suspect();
                Err(RedisFailure::Unavailable)
            }
        }
    }
}

/// The name of `command`, for the log.
pub(super) fn name_of(command: &Cmd) -> &str {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(name)) => std::str::from_utf8(name).unwrap_or_default(),
        _ => "",
    }
}

impl Shared {
    pub fn check(&self) -> Result<(), String> {
        match (self.link.load().is_some(), self.problem.load_full()) {
            (true, None) => Ok(()),
            (true, Some(refused)) => Err(refused.to_string()),
            (false, Some(reason)) => Err(format!("Redis cannot be reached: {reason}")),
            (false, None) => Err("Redis cannot be reached".to_owned()),
        }
    }

    /// Distinguishes error answers from missing answers. `link` is the connection that was used; errors that suggest
    /// a lost connection or a demoted server are reported to it. `command` is for the log.
    fn classify(&self, command: &str, error: RedisError, link: Option<&Link>) -> RedisFailure {
        if error.kind() == ErrorKind::Io || error.is_unrecoverable_error() {
            link.inspect(|link| link.health.suspect());
            return RedisFailure::Unavailable;
        }
        let reason = describe(&error);
        telemetry::engine::redis_refused(self.name, command, &reason, self.take_refusal_slot());
        let failure = RedisFailure::Refused(error);
        link.inspect(|link| link.monitored.inspect(&link.health, &failure));
        failure
    }

    /// Returns whether to log a refusal as a warning: at most one in ten seconds, since a full Redis refuses every
    /// command.
    fn take_refusal_slot(&self) -> bool {
        let now = self.began.elapsed().as_secs() + 1;
        let last = self.refusal_logged.load(Ordering::Relaxed);
        let is_due = last == 0 || now >= last + 10;
        is_due
            && self
                .refusal_logged
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    fn needs(&self) -> MutexGuard<'_, BTreeMap<&'static str, Needs>> {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records why there is no connection.
    fn record_down(&self, reason: &str) {
        self.problem.store(Some(Arc::new(reason.to_owned())));
    }

    /// Records the outcome of a probe.
    fn record_probe(&self, outcome: Result<Option<Refusal>, ProbeError>) {
        let refusal = match outcome {
            Ok(refusal) => refusal,
            Err(ProbeError::NoAnswer | ProbeError::Stuck) => Some(Refusal {
                commands: "a probe".to_owned(),
                reason: format!("no answer within {COMMAND_DEADLINE:?}"),
            }),
        };
        let text = refusal
            .as_ref()
            .map(|Refusal { commands, reason }| Arc::new(format!("{REFUSES}{commands}: {reason}")));
        let before = self.problem.swap(text.clone());
        match &refusal {
            Some(Refusal { commands, reason }) => {
                telemetry::engine::redis_probe_failed(self.name, commands, reason, before != text);
            }
            None => {
                let was_refused = before.is_some_and(|before| before.starts_with(REFUSES));
                telemetry::engine::redis_probe_passed(self.name, was_refused);
            }
        }
    }

    fn set(&self, link: Option<Link>) {
        let up = link.is_some();
        self.link.store(link.map(Arc::new));
        // Failed attempts do not wake tasks that wait for a change.
        self.up.send_if_modified(|was_up| std::mem::replace(was_up, up) != up);
    }
}
