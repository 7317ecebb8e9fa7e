//! Whole replies that are posted to the URL of `on_complete`.

use metrics::{Counter, Gauge, SharedString};
use tracing::{debug, warn};

use super::definitions::{UPSTREAM, metrics, words};
use crate::protocol::label_enum;

metrics! {
    /// Replies that have ended and were to be posted to the URL of `on_complete`, by what came of it.
    POSTS = counter "tidegate_on_complete_total" [upstream: UPSTREAM, outcome: words(&[PostEnd::LABELS])], late;
    /// Attempts to post a reply that failed and were followed by another one.
    RETRIES = counter "tidegate_on_complete_retries_total" [upstream: UPSTREAM], late;
    /// Replies that wait until they are taken.
    WAITING = gauge "tidegate_on_complete_waiting" [upstream: UPSTREAM], late;
}

label_enum! {
    /// What came of the posting of a reply.
    pub enum PostEnd {
        /// The receiver answered 2xx.
        Taken => "taken",
        /// It answered that it will not take it.
        Rejected => "rejected",
        /// It failed too often, or for too long.
        GivenUp => "given_up",
        /// Too many replies, or too many bytes of them, waited already.
        Dropped => "dropped",
        /// The gateway stopped first.
        Abandoned => "abandoned",
    }
}

/// The metrics of one upstream's `on_complete`, whose series are looked up once.
pub struct PostMetrics {
    upstream: Box<str>,
    /// In the order of [`PostEnd::ALL`].
    ends: Box<[Counter]>,
    retries: Counter,
    waiting: Gauge,
}

impl PostMetrics {
    pub fn new(upstream: &str) -> Self {
        let label = SharedString::from(upstream.to_owned());
        let counter = |end: &PostEnd| POSTS.at([label.clone(), end.label().into()]);
        Self {
            upstream: upstream.into(),
            ends: PostEnd::ALL.iter().map(counter).collect(),
            retries: RETRIES.at([label.clone()]),
            waiting: WAITING.at([label]),
        }
    }

    /// This many more replies wait.
    pub fn waiting(&self, more: f64) {
        self.waiting.increment(more);
    }

    /// An attempt failed, and will be repeated.
    pub fn retried(&self, channel: &str, task_id: &str, attempts: u32, reason: &str) {
        self.retries.increment(1);
        let upstream = &*self.upstream;
        debug!(
            event = "reply_post_retried",
            upstream,
            channel,
            task_id,
            attempts,
            reason,
            "failed to post a reply; it is tried again"
        );
    }

    /// A reply was taken.
    pub fn posted(&self, channel: &str, task_id: &str, attempts: u32) {
        self.ends[PostEnd::Taken as usize].increment(1);
        let upstream = &*self.upstream;
        debug!(event = "reply_posted", upstream, channel, task_id, attempts, "posted a reply");
    }

    /// A reply will not be posted any more.
    pub fn not_posted(
        &self,
        channel: &str,
        task_id: &str,
        end: PostEnd,
        attempts: u32,
        reason: &str,
    ) {
        self.ends[end as usize].increment(1);
        let (upstream, outcome) = (&*self.upstream, end.label());
        warn!(
            event = "reply_not_posted",
            upstream,
            channel,
            task_id,
            outcome,
            attempts,
            reason,
            "failed to post a reply to the URL of on_complete"
        );
    }
}
