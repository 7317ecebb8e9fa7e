//! What the sessions of one worker thread share.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Presence, SessionRegistry};
use crate::broker::{Broker, History};
use crate::control::Control;
use crate::limits::{AddressLimits, LeaseSet, RefusalDelay, RefusalDelays};
use crate::protocol::ClientNetwork;
use crate::replies::{Replies, ThreadConfig};
use crate::shutdown::Shutdown;

/// How long the end of a thread waits for replies to be handed over and leases to be released.
const SHUT_DOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it waits for the announcements of members that left.
const PRESENCE_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Services {
    pub replies: Rc<Replies>,
    pub broker: Rc<Broker>,
    pub history: History,
    pub presence: Presence,
    pub registry: SessionRegistry,
    /// The leases of `connections_per_user`.
    pub leases: Rc<LeaseSet>,
    pub control: Control,
    /// What all threads count by client address.
    pub addresses: AddressLimits,
    pub refusals: RefusalDelays,
    pub shutdown: Shutdown,
    /// When the thread started. Sessions keep points in time as durations since then, which are smaller.
    pub started: Instant,
}

impl Services {
    /// The current configuration of this thread. Work that spans a reload keeps the one it began with.
    pub fn config(&self) -> Rc<ThreadConfig> {
        self.replies.config()
    }

    /// The time since the thread started.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Counts a refusal of `ip`. `None` if its close does not wait.
    pub fn delay_refusal(&self, ip: IpAddr) -> Option<RefusalDelay> {
        let config = &self.config().config;
        let network = ClientNetwork::of(ip, config.limits.ipv6_prefix);
        self.refusals.refuse(network, config.server.refusal_delay)
    }

    /// Completes when the close of a refused client has waited, or the gateway drains.
    pub(super) async fn wait_to_close(&self, delay: RefusalDelay) {
        tokio::select! {
            () = tokio::time::sleep(delay.duration) => {}
            () = self.shutdown.draining() => {}
        }
    }

    /// The end of a drain, when all sessions have ended: hands the replies of workers over to other nodes,
    /// and releases what the thread holds in the engine. What cannot be released in time expires.
    pub async fn shut_down(&self) {
        let presence = tokio::time::timeout(PRESENCE_TIMEOUT, self.presence.flush());
        let all = async { tokio::join!(self.replies.hand_over(), presence) };
        let _ = tokio::time::timeout(SHUT_DOWN_TIMEOUT, all).await;
    }
}
