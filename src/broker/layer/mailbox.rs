//! Reads a `RedisChannelLayer`: pops the messages of this node's mailbox, and renews its group memberships.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use redis::Client;

use super::importer::{Importer, Incoming};
use super::{Layer, Wire};
use crate::broker::history::ListenerState;
use crate::channel_layer::{MESSAGES_PER_POP, Mailbox, MailboxMessage};
use crate::redis_link::{
    ConnectionError, ConnectionEvent, Health, MonitoredLink, Supervised, client, supervise,
};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// The longest time that a pop waits in Redis. A dead connection is noticed two seconds later.
const MAX_POP_WAIT: Duration = Duration::from_secs(2);

/// The shortest time that a pop waits in Redis.
const MIN_POP_WAIT: Duration = Duration::from_millis(10);

/// Pops the messages of the mailbox, over one connection after another.
struct MailboxReader {
    layer: Layer,
    client: Client,
    importer: Importer,
}

impl Supervised for MailboxReader {
    type Connection = Mailbox;

    async fn connect(&mut self, health: &Health) -> Result<Mailbox, ConnectionError> {
        match &self.layer.0.wire {
            Wire::Core { names, .. } => Mailbox::connect(&self.client, names, health).await,
            Wire::PubSub(_) => Err("this layer has no mailbox".into()),
        }
    }

    /// No link is checked: a waiting pop blocks the connection, and each pop has its own deadline.
    fn links_to_check(&self, _mailbox: &Mailbox) -> Vec<MonitoredLink> {
        Vec::new()
    }

    async fn serve(
        &mut self,
        mailbox: Mailbox,
        lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError {
        // Without links to check, `lost` only completes when the server is demoted, which ends a pop as well.
        let error = tokio::select! {
            error = lost => error,
            error = self.pop_messages(mailbox) => error,
        };
        // The answer that was lost may have contained messages.
        self.layer.report_gap_of_all();
        error
    }

    fn disconnected(&mut self) {
        self.layer.0.up.store(false, Ordering::Release);
    }

    fn record(&self, event: ConnectionEvent<'_>) {
        match event {
            // The connection is recorded as up after the first answer to a pop.
            ConnectionEvent::Connected { .. } => {}
            ConnectionEvent::ConnectFailed { reason, .. } => {
                telemetry::channel_layer::connect_failed(reason);
            }
            ConnectionEvent::Lost { reason } => telemetry::channel_layer::connection_lost(reason),
        }
    }
}

impl MailboxReader {
    /// Pops messages until the connection is lost. They are imported before the next pop, so that messages which
    /// the engine cannot accept yet wait in Redis and not in this process.
    async fn pop_messages(&mut self, mut mailbox: Mailbox) -> ConnectionError {
        let layer = self.layer.clone();
        loop {
            // The first answer makes the node ready, so the first pop waits only briefly.
            let longest =
                if layer.0.up.load(Ordering::Acquire) { MAX_POP_WAIT } else { MIN_POP_WAIT };
            let wait = self.importer.next_due().map_or(longest, |due| {
                due.saturating_duration_since(Instant::now()).clamp(MIN_POP_WAIT, longest)
            });
            let messages = match mailbox.pop(wait).await {
                Ok(messages) => messages,
                Err(failure) => return failure.into(),
            };
            // Redis removes a mailbox that was not read for this long.
            let now = Instant::now();
            let last = layer.0.last_read.replace(now);
            if now.saturating_duration_since(last) >= layer.0.settings.expiry {
                layer.report_gap_of_all();
            }
            if !layer.0.up.swap(true, Ordering::AcqRel) {
                telemetry::channel_layer::connected();
            }
            layer.record_mailbox_length(messages.len()).await;
            let incoming = messages.into_iter().map(|MailboxMessage { payload, score }| Incoming {
                payload,
                score: Some(score),
                channel: None,
            });
            self.importer.import_all(incoming).await;
        }
    }
}

impl Layer {
    /// Reads the mailbox until the process is killed.
    pub(super) async fn read_mailbox(self, importer: Importer, shutdown: Shutdown) {
        let Some(Ok(client)) = self.0.settings.hosts.first().map(client) else { return };
        supervise(&mut MailboxReader { layer: self, client, importer }, &shutdown).await;
    }

    /// Reports that messages of all groups may have been missed.
    fn report_gap_of_all(&self) {
        let (layer, all) = (self.clone(), self.0.membership.borrow().confirmed());
        tokio::task::spawn_local(async move {
            layer.report_gap(all, ListenerState::Missed).await;
        });
    }

    /// Records how many messages are in the mailbox, including the `popped` ones, and warns if it was full.
    async fn record_mailbox_length(&self, popped: usize) {
        let Wire::Core { memberships, .. } = &self.0.wire else { return };
        let mut count = popped;
        if popped >= MESSAGES_PER_POP {
            let waiting = memberships.waiting().await.unwrap_or_default();
            telemetry::channel_layer::mailbox_measured(waiting);
            count += waiting;
        }
        if count >= self.0.settings.capacity {
            telemetry::channel_layer::mailbox_full(count, self.0.settings.capacity);
        }
    }

    /// Renews memberships on a timer, and at once when a host is reachable again. A membership that had to be added
    /// again was lost, for example by an eviction or with a server's data.
    pub(super) async fn renew_memberships_periodically(self) {
        let Wire::Core { memberships, .. } = &self.0.wire else { return };
        let mut up_changes = memberships.subscribe_up();
        let mut ticks = tokio::time::interval(self.0.settings.refresh);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = any_changed(&mut up_changes) => {}
            }
            self.renew_memberships().await;
            self.renew_registrations().await;
        }
    }

    async fn renew_memberships(&self) {
        let Wire::Core { memberships, .. } = &self.0.wire else { return };
        let confirmed = self.0.membership.borrow().confirmed();
        let Ok(joined) = memberships.join(&confirmed).await else { return };
        let new = joined.into_iter().filter(|joined| matches!(joined.is_new, Ok(true)));
        let lost: Vec<_> = new
            .map(|joined| joined.channel)
            .filter(|channel| self.0.membership.borrow().contains(channel))
            .collect();
        telemetry::channel_layer::memberships_lost(lost.len());
        self.report_gap(lost, ListenerState::Missed).await;
        if let Ok(waiting) = memberships.waiting().await {
            telemetry::channel_layer::mailbox_measured(waiting);
        }
    }
}

/// Completes when one of the connections comes up or is lost.
async fn any_changed(up_changes: &mut [tokio::sync::watch::Receiver<bool>]) {
    let changes = up_changes.iter_mut().map(|up| Box::pin(up.changed()));
    // Which connection changed, and whether its task has ended, does not matter.
    let _ = futures_util::future::select_all(changes).await;
}
