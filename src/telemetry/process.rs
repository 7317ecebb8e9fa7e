//! The process: its build, its resources, readiness, shutdown and reloads of the configuration.

use std::time::Duration;

use tracing::{error, info, warn};

use super::definitions::{Values, metrics, words};
use super::log::AUDIT;
use crate::clock;
use crate::protocol::{ClientNetwork, ConnectionId, label_enum};

metrics! {
    /// 1 from the signal to stop until the process ends.
    DRAINING = gauge "tidegate_draining";
    /// 1 if the last check of `/readyz` found the node ready. Each scrape is such a check.
    READY = gauge "tidegate_ready";
    /// Reloads of the configuration, by outcome.
    RELOADS = counter "tidegate_config_reloads_total" [outcome: words(&[ReloadOutcome::LABELS])];
    /// 0 while the config file, as it was last read, is not valid.
    LAST_SUCCESSFUL = gauge "tidegate_config_last_reload_successful";
    /// Time at which a valid configuration was last read, in seconds since 1970.
    LAST_TIMESTAMP = gauge "tidegate_config_last_reload_timestamp_seconds";
    /// 1 while the config file has a change that needs a restart.
    RESTART_NEEDED = gauge "tidegate_config_restart_needed";
    /// Panics, each of which is a bug. One in a session closes its connection with 1011; one in a part that all need ends
    /// the process.
    PANICS = counter "tidegate_panics_total";
    /// Always 1; the labels describe the running build.
    BUILD_INFO = gauge "tidegate_build_info" [
        version: Values::Fixed("the version of the package"),
        build: Values::Fixed("the packager's build id, such as a commit"),
        rust: Values::Fixed("the compiler"),
    ];
    /// What counts against `[server] max_memory`, in bytes: send queues, messages that are not received completely,
    /// messages on their way to an upstream, histories in memory, publications that wait to be passed on, and replies that are
    /// kept for `on_complete`.
    MEMORY = gauge "tidegate_memory_bytes" [part: words(&[MemoryPart::LABELS])];
    /// The budget from `[server] max_memory`; 0 = no limit.
    MEMORY_MAX = gauge "tidegate_memory_max_bytes";
    /// 1 while new connections are refused because the budget is used up.
    MEMORY_REFUSING = gauge "tidegate_memory_refusing";
    /// Connections that were closed because the budget was used up: their send queue was the largest (4008), or the
    /// messages of their address took more than a quarter of it (1013).
    MEMORY_CLOSES = counter "tidegate_memory_closes_total";
    /// CPU time in user space and in the kernel. Linux only, like all `process_` metrics.
    CPU = counter "process_cpu_seconds_total", read;
    /// Resident memory.
    RESIDENT = gauge "process_resident_memory_bytes", read;
    /// Virtual memory.
    VIRTUAL = gauge "process_virtual_memory_bytes", read;
    /// Open files and sockets.
    OPEN_FDS = gauge "process_open_fds", read;
    /// Limit of open files and sockets.
    MAX_FDS = gauge "process_max_fds", read;
    /// Threads of the operating system.
    THREADS = gauge "process_threads", read;
    /// Start time of the process, in seconds since 1970.
    START_TIME = gauge "process_start_time_seconds", read;
}

/// The process has installed its recorder.
pub(super) fn started() {
    let build = option_env!("TIDEGATE_BUILD").unwrap_or("unknown");
    BUILD_INFO.at([env!("CARGO_PKG_VERSION"), build, env!("TIDEGATE_RUST")]).set(1.0);
}

label_enum! {
    /// A part of the memory budget.
    pub enum MemoryPart {
        SendQueues => "send_queues",
        PartialMessages => "partial_messages",
        InProgress => "in_progress",
        Histories => "histories",
        /// Publications that wait to be passed to the threads.
        Intake => "intake",
        /// Replies that are kept until the URL of `on_complete` has taken them, running ones included.
        Replies => "replies",
    }
}

/// The memory budget is set or changed; 0 = no limit.
pub fn memory_limited(max: usize) {
    MEMORY_MAX.get().set(max as f64);
}

/// A part of the memory budget was measured.
pub fn memory_measured(part: MemoryPart, bytes: usize) {
    MEMORY.at([part.label()]).set(bytes as f64);
}

/// The budget is used up and new connections are refused, or no longer.
pub fn memory_refusing(refuses: bool, used: usize, max: usize) {
    MEMORY_REFUSING.get().set(if refuses { 1.0 } else { 0.0 });
    if refuses {
        warn!(
            event = "memory_used_up",
            used, max, "the memory budget is used up: new connections are refused"
        );
    } else {
        info!(event = "memory_free", used, max, "new connections are accepted again");
    }
}

/// A connection is closed because its send queue is the largest and the budget is used up.
pub fn memory_queue_closed(connection: ConnectionId, bytes: usize, over: usize) {
    MEMORY_CLOSES.get().increment(1);
    warn!(
        event = "memory_queue_closed",
        %connection,
        bytes,
        over,
        "the memory budget is used up: the largest send queue is closed"
    );
}

/// A connection is closed because the budget is used up, and the messages of its network take more than their share.
pub fn memory_client_closed(
    connection: ConnectionId,
    network: ClientNetwork,
    bytes: usize,
    over: usize,
) {
    MEMORY_CLOSES.get().increment(1);
    warn!(
        event = "memory_client_closed",
        %connection,
        %network,
        bytes,
        over,
        "the memory budget is used up: the messages of this address take the most"
    );
}

/// The limit of open files and sockets stays what it is.
pub fn descriptors_not_raised(limit: Option<u64>, error: &std::io::Error) {
    warn!(event = "descriptors_not_raised", limit, %error, "the limit of open files could not be raised");
}

/// `max_connections` cannot be reached: of `limit` open files, `usable` can be connections of clients.
pub fn descriptors_too_few(limit: u64, usable: u64, max_connections: u64) {
    warn!(
        event = "descriptors_too_few",
        limit,
        usable,
        max_connections,
        "the limit of open files allows fewer connections than server.max_connections"
    );
}

/// Somebody has checked whether this node is ready.
pub fn readiness_checked(ready: bool) {
    READY.get().set(if ready { 1.0 } else { 0.0 });
}

/// A panic, which is always a bug. It is counted here whatever it ends.
pub fn panicked(place: Option<&std::panic::Location<'_>>, why: &str) {
    PANICS.get().increment(1);
    let thread = std::thread::current();
    let (place, thread) = (place.map(tracing::field::display), thread.name());
    error!(event = "panic", place, thread, why, "a bug: please report it");
}

/// A part without which the process would only look alive has panicked: the process ends.
pub fn part_failed(part: &'static str) {
    error!(event = "part_failed", part, "a part of the gateway has failed: the process ends");
}

/// The gateway was asked to stop.
pub fn draining(drain: Duration) {
    DRAINING.get().set(1.0);
    info!(
        event = "draining",
        drain_seconds = drain.as_secs_f64(),
        "stopping: connections are being closed"
    );
}

/// The gateway has stopped. Unless `drained`, something was still running and was aborted.
pub fn stopped(drained: bool) {
    if drained {
        info!(event = "stopped", "stopped");
    } else {
        warn!(event = "shutdown_forced", "stopped before all connections and replies had ended");
    }
}

label_enum! {
    /// What came of reading the configuration again.
    pub enum ReloadOutcome {
        Applied => "applied",
        /// Nothing in it has changed.
        Unchanged => "unchanged",
        /// It is not valid, and the running configuration stays.
        Rejected => "rejected",
    }
}

/// The gateway has started with a valid configuration.
pub fn config_loaded() {
    LAST_SUCCESSFUL.get().set(1.0);
    LAST_TIMESTAMP.get().set(clock::since_unix_epoch().as_secs_f64());
}

/// A reload has applied the `changed` sections.
pub fn config_reloaded(changed: &[&str]) {
    count_reload(ReloadOutcome::Applied);
    let changed = changed.join(" ");
    info!(target: AUDIT, event = "config_reloaded", changed, "config reloaded");
}

/// A reload that was asked for has found nothing to change.
pub fn config_unchanged() {
    count_reload(ReloadOutcome::Unchanged);
    info!(event = "config_unchanged", "config unchanged");
}

/// The configuration is not valid; `why` lists the mistakes. The running one stays.
pub fn config_rejected(why: &str) {
    count_reload(ReloadOutcome::Rejected);
    error!(target: AUDIT, event = "config_rejected", why, "config rejected: the running config stays in effect");
}

/// The keys whose change takes effect after a restart; empty if all of the configuration is in effect.
pub fn restart_needed(keys: &[&str]) {
    RESTART_NEEDED.get().set(if keys.is_empty() { 0.0 } else { 1.0 });
    if !keys.is_empty() {
        let keys = keys.join(" ");
        warn!(event = "config_restart_needed", keys, "changes of these keys need a restart");
    }
}

/// A worker thread could not apply a new configuration and continues with the old one.
pub fn config_thread_failed(why: &str) {
    error!(event = "config_thread_failed", why, "a thread failed to apply the new config");
}

/// Connections are being closed because a reload has changed their route's channel or upstream.
pub fn connections_rerouted(connections: usize) {
    info!(
        event = "config_sent_away",
        connections, "closing connections of routes that have changed"
    );
}

fn count_reload(outcome: ReloadOutcome) {
    RELOADS.at([outcome.label()]).increment(1);
    if outcome == ReloadOutcome::Rejected {
        LAST_SUCCESSFUL.get().set(0.0);
    } else {
        config_loaded();
    }
}

/// What the operating system reports about this process.
struct Resources {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_fds: usize,
    /// `None` if there is no limit.
    max_fds: Option<u64>,
    threads: i64,
    /// In seconds since 1970.
    started: f64,
}

/// Adds the metrics of the process to a scrape's `page`, if they can be read. The recorder would round them to
/// whole numbers. Reads files, so it must not run on a thread that serves connections.
pub(super) fn write(page: &mut String) {
    let Some(resources) = Resources::read() else { return };
    CPU.write(page, resources.cpu_seconds);
    RESIDENT.write(page, resources.resident_bytes as f64);
    VIRTUAL.write(page, resources.virtual_bytes as f64);
    OPEN_FDS.write(page, resources.open_fds as f64);
    if let Some(max_fds) = resources.max_fds {
        MAX_FDS.write(page, max_fds as f64);
    }
    THREADS.write(page, resources.threads as f64);
    START_TIME.write(page, resources.started);
}

impl Resources {
    #[cfg(target_os = "linux")]
    fn read() -> Option<Self> {
        use procfs::process::{LimitValue, Process};

        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        let max_fds = match process.limits().ok()?.max_open_files.soft_limit {
            LimitValue::Value(count) => Some(count),
            LimitValue::Unlimited => None,
        };
        Some(Self {
            cpu_seconds: seconds(stat.utime + stat.stime),
            resident_bytes: stat.rss * procfs::page_size(),
            virtual_bytes: stat.vsize,
            open_fds: process.fd_count().ok()?,
            max_fds,
            threads: stat.num_threads,
            started: procfs::boot_time_secs().ok()? as f64 + seconds(stat.starttime),
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn read() -> Option<Self> {
        None
    }
}
