//! What a streamed reply came to, and what is done with it: its usage is counted, and charged to its user.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use super::Sender;
use super::user_limits::usage_key;
use crate::config::Route;
use crate::limits::SharedLimits;
use crate::protocol::{Params, SenderKey};
use crate::telemetry::replies::{ReplyMetrics, UsageKind};
use crate::upstream::{ReplySummary, Usage};

/// The record of one reply, until its end.
pub(super) struct ReplyRecord {
    limits: SharedLimits,
    route: Arc<Route>,
    params: Arc<Params>,
    sender: SenderKey,
    /// Set when nothing more of the reply is read.
    summary: OnceCell<ReplySummary>,
    is_charged: Cell<bool>,
}

impl ReplyRecord {
    pub fn new(limits: &SharedLimits, sender: &Sender) -> Self {
        Self {
            limits: limits.clone(),
            route: Arc::clone(&sender.route),
            params: Arc::clone(&sender.params),
            sender: sender.key.clone(),
            summary: OnceCell::new(),
            is_charged: Cell::new(false),
        }
    }

    /// Takes what the whole reply came to.
    pub fn close(&self, summary: ReplySummary) {
        // A reply is closed once.
        let _ = self.summary.set(summary);
    }

    /// Charges the reply to its user, once, by what is known of its usage. If the engine is unavailable, it is not charged.
    pub async fn charge(&self) {
        let Some(rate) = &self.route.limits.usage_per_user else { return };
        let Some(summary) = self.summary.get() else { return };
        let tokens = summary.usage.charged();
        if tokens == 0 || self.is_charged.replace(true) {
            return;
        }
        let (path, user) = (self.route.path.as_str(), usage_key(&self.sender));
        // The failure is counted.
        let _ = self.limits.charge_usage(tokens, path, &self.params, &user, rate).await;
    }

    /// Counts the usage of a reply that has ended, and charges it if this was not done with its terminal event.
    pub async fn settle(&self, metrics: &ReplyMetrics) {
        self.charge().await;
        let Some(summary) = self.summary.get() else { return };
        let Usage { input, output, cached_input, cache_write, reasoning, .. } = summary.usage;
        for (kind, tokens) in [
            (UsageKind::Input, input),
            (UsageKind::Output, output),
            (UsageKind::CachedInput, cached_input),
            (UsageKind::CacheWrite, cache_write),
            (UsageKind::Reasoning, reasoning),
        ] {
            metrics.usage(kind, tokens.unwrap_or(0));
        }
    }
}
