//! Facts about the config being read again while the gateway runs.

use metrics::{counter, gauge};
use tracing::{error, info, warn};

/// What came of reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    /// It says what it said.
    Unchanged,
    /// It is wrong; what was before goes on.
    Rejected,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
        }
    }
}

/// The config that the gateway started with is in force.
pub fn started() {
    gauge!("tidegate_config_last_reload_successful").set(1.0);
    gauge!("tidegate_config_restart_needed").set(0.0);
    now();
}

/// The sections that have `changed` are in force.
pub fn applied(changed: &[&str]) {
    count(Outcome::Applied);
    now();
    info!(event = "config_reloaded", changed = changed.join(" "), "the config was reloaded");
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
    error!(event = "config_rejected", why, "the config cannot be used; nothing was changed");
}

/// These keys take effect with the next start; none = all of the config is in force.
pub fn restart_needed(keys: &[&str]) {
    gauge!("tidegate_config_restart_needed").set(if keys.is_empty() { 0.0 } else { 1.0 });
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
    counter!("tidegate_config_reloads_total", "outcome" => outcome.label()).increment(1);
    let good = outcome != Outcome::Rejected;
    gauge!("tidegate_config_last_reload_successful").set(if good { 1.0 } else { 0.0 });
}

fn now() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    gauge!("tidegate_config_last_reload_timestamp_seconds")
        .set(now.unwrap_or_default().as_secs_f64());
}
