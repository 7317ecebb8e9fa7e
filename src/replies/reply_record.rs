//! What a streamed reply came to, and what is done with it: its usage is counted and charged to its user, and all of it is
//! posted where the upstream has `on_complete`.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Sender;
use super::ended_post::Post;
use super::user_limits::usage_key;
use crate::config::Route;
use crate::generations::PostRecord;
use crate::limits::SharedLimits;
use crate::protocol::{ChannelName, Params, SenderKey};
use crate::shutdown::Shutdown;
use crate::telemetry::replies::{GenerationEnd, ReplyMetrics, UsageKind};
use crate::upstream::{ReplySummary, Usage};

/// The record of one reply, until its end.
pub(super) struct ReplyRecord {
    limits: SharedLimits,
    route: Arc<Route>,
    params: Params,
    sender: SenderKey,
    /// Set when nothing more of the reply is read.
    summary: OnceCell<ReplySummary>,
    is_charged: Cell<bool>,
    post: Option<Post>,
}

impl ReplyRecord {
    pub fn new(limits: &SharedLimits, sender: &Sender) -> Self {
        Self {
            limits: limits.clone(),
            route: Arc::clone(&sender.route),
            params: sender.params.clone(),
            sender: sender.key.clone(),
            summary: OnceCell::new(),
            is_charged: Cell::new(false),
            post: None,
        }
    }

    pub fn with_post(self, post: Post) -> Self {
        Self { post: Some(post), ..self }
    }

    /// What another node needs to post the reply; `None` = it is not posted.
    pub fn post_record(&self) -> Option<Box<PostRecord>> {
        self.post.as_ref().map(Post::record)
    }

    /// The first event of the reply was published at this instant, or one after it.
    pub fn begin(&self, now: Instant) {
        if let Some(post) = &self.post {
            post.begin(now);
        }
    }

    /// Takes the terminal event.
    pub fn set_end(&self, json: &[u8]) {
        if let Some(post) = &self.post {
            post.set_end(json);
        }
    }

    pub fn set_timed_out(&self) {
        if let Some(post) = &self.post {
            post.set_timed_out();
        }
    }

    /// Posts a reply that has ended, if it is to be. Nothing waits for it but a drain.
    pub fn post(
        &self,
        task_id: &str,
        channel: &ChannelName,
        end: GenerationEnd,
        shutdown: &Shutdown,
        stops_after: Duration,
    ) {
        let Some(post) = &self.post else { return };
        let nothing = ReplySummary::default();
        let summary = self.summary.get().unwrap_or(&nothing);
        post.send(task_id, channel, end, summary, shutdown, stops_after);
    }

    /// Takes what the whole reply came to.
    pub fn close(&self, summary: ReplySummary) {
        // A reply is closed once.
        let _ = self.summary.set(summary);
    }

    /// Charges the reply to its user, once, by what is known of its usage. If the engine is unavailable, it
    /// is charged later.
    pub async fn charge(&self) {
        let Some(rate) = &self.route.limits.usage_per_user else { return };
        let Some(summary) = self.summary.get() else { return };
        let tokens = summary.usage.charged();
        if tokens == 0 || self.is_charged.replace(true) {
            return;
        }
        let (path, user) = (self.route.path.as_str(), usage_key(&self.sender));
        // In a box, because most routes do not charge.
        Box::pin(self.limits.charge_usage(tokens, path, &self.params, &user, rate)).await;
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
