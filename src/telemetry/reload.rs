//! Facts about the config being read again while the gateway runs.

use tracing::{error, info, warn};

use super::definitions::{labels, metrics, words};
use super::log::AUDIT;
use crate::clock;

metrics! {
    /// Times at which the config was read again, by what came of it.
    RELOADS = counter "tidegate_config_reloads_total" [outcome: words(&[Outcome::LABELS])];
    /// 0 while the config file, as it was read last, cannot be used.
    LAST_SUCCESSFUL = gauge "tidegate_config_last_reload_successful";
    /// When a config that could be used was read last, in seconds since 1970.
    LAST_TIMESTAMP = gauge "tidegate_config_last_reload_timestamp_seconds";
    /// 1 while the config file says something that takes effect with the next start only.
    RESTART_NEEDED = gauge "tidegate_config_restart_needed";
}

labels! {
    /// What came of reading the config.
    pub enum Outcome {
        Applied = "applied",
        /// It says what it said.
        Unchanged = "unchanged",
        /// It is wrong; what was before goes on.
        Rejected = "rejected",
    }
}

/// The config that the gateway started with is in force.
pub fn started() {
    LAST_SUCCESSFUL.get().set(1.0);
    now();
}

/// The sections that have `changed` are in force.
pub fn applied(changed: &[&str]) {
    count(Outcome::Applied);
    now();
    let changed = changed.join(" ");
    info!(target: AUDIT, event = "config_reloaded", changed, "the config was reloaded");
}

/// A reload that was asked for.
pub fn unchanged() {
    count(Outcome::Unchanged);
    now();
    info!(event = "config_unchanged", "the config says what it said");
}

/// Nothing was changed, for these reasons.
pub fn rejected(why: &str) {
    count(Outcome::Rejected);
    error!(target: AUDIT, event = "config_rejected", why, "the config cannot be used; nothing was changed");
}

/// These keys take effect with the next start; none = all of the config is in force.
pub fn restart_needed(keys: &[&str]) {
    RESTART_NEEDED.get().set(if keys.is_empty() { 0.0 } else { 1.0 });
    if !keys.is_empty() {
        let keys = keys.join(" ");
        warn!(event = "config_restart_needed", keys, "these keys take effect with a restart");
    }
}

/// A worker thread goes on by the old config.
pub fn thread_failed(why: &str) {
    error!(event = "config_thread_failed", why, "a thread could not take the new config");
}

/// Connections whose route leads elsewhere now.
pub fn sent_away(connections: usize) {
    info!(event = "config_sent_away", connections, "connections of changed routes are sent away");
}

fn count(outcome: Outcome) {
    RELOADS.at([outcome.label()]).increment(1);
    LAST_SUCCESSFUL.get().set(if outcome == Outcome::Rejected { 0.0 } else { 1.0 });
}

fn now() {
    LAST_TIMESTAMP.get().set(clock::since_unix_epoch().as_secs_f64());
}
