//! Replies: from a checked message to the end of its reply, which comes exactly once.
//!
//! A message is deduplicated, admitted under its user's limits and relayed. Its reply is published here
//! (where the upstream streams it) or monitored (where a worker publishes it), and can be cancelled. When
//! a node dies, the other nodes end or monitor its replies.
//!
//! This module knows the sender's socket, but not its session: [`Replies::relay`] returns what became of a
//! message, and the session answers it. Invariant: whatever a message or a reply holds (publications held back,
//! leases, marks, registrations) is released by a guard.

mod admission;
mod attached;
mod cancel;
mod deduplicate;
mod ended_post;
mod failover;
mod history_mark;
mod last_events;
mod message;
mod past_end;
mod refusal;
mod relay;
mod reply_publisher;
mod reply_record;
mod streamed_reply;
mod thread_config;
mod turn;
mod unheard;
mod user_limits;
mod worker_reply;

pub use cancel::CancelOutcome;
pub use failover::run_failover;
pub use message::{CheckedMessage, Sender};
pub use refusal::{Refusal, relay_error_event};
pub use relay::RelayOutcome;
pub use thread_config::ThreadConfig;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::broker::{Broker, History, ThreadPublisher};
use crate::control::Control;
use crate::generations::Generations;
use crate::limits::{LeaseSet, SharedLimits};
use crate::shutdown::Shutdown;
use attached::AttachedReplies;

/// How long releasing leases in the engine may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The parts of the gateway that replies use.
pub struct ReplyServices {
    pub broker: Rc<Broker>,
    pub publisher: ThreadPublisher,
    pub generations: Generations,
    pub control: Control,
    pub limits: SharedLimits,
    pub leases: Rc<LeaseSet>,
    pub shutdown: Shutdown,
}

/// The replies of one worker thread.
pub struct Replies {
    services: ReplyServices,
    history: History,
    config: RefCell<Rc<ThreadConfig>>,
    attached: AttachedReplies,
    /// Tracks the replies of workers that this thread monitors.
    monitored_replies: TaskTracker,
}

impl Replies {
    pub fn new(services: ReplyServices, config: ThreadConfig) -> Rc<Self> {
        Rc::new(Self {
            history: services.publisher.history(),
            services,
            config: RefCell::new(Rc::new(config)),
            attached: AttachedReplies::default(),
            monitored_replies: TaskTracker::new(),
        })
    }

    /// The current configuration of this thread. Work that spans a reload keeps the one it began with.
    pub fn config(&self) -> Rc<ThreadConfig> {
        Rc::clone(&self.config.borrow())
    }

    pub fn set_config(&self, config: ThreadConfig) {
        self.config.replace(Rc::new(config));
    }

    /// Completes when a drain has handed the replies of workers over to other nodes, and all leases that ended
    /// are released in the engine.
    pub async fn hand_over(&self) {
        self.monitored_replies.close();
        self.monitored_replies.wait().await;
        self.flush().await;
    }

    /// Releases all leases that ended in the engine. Those that cannot be released in time expire.
    async fn flush(&self) {
        let ReplyServices { leases, generations, .. } = &self.services;
        let flush = async { tokio::join!(leases.flush(), generations.ledger.flush()) };
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, flush).await;
    }

    /// While draining, the thread may end before the next regular flush.
    async fn flush_when_draining(&self) {
        if self.services.shutdown.is_draining() {
            self.flush().await;
        }
    }
}
