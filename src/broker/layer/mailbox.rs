//! Reads a `RedisChannelLayer`: empties this node's mailbox, and keeps its memberships.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use redis::Client;
use redis::aio::MultiplexedConnection;

use super::importer::{Importer, Incoming};
use super::{Layer, Wire};
use crate::broker::history::ListenerState;
use crate::channel_layer::{LETTERS_PER_POP, Letter, Mailbox};
use crate::redis_link::{ConnectionError, ConnectionEvent, Health, Supervised, client, supervise};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// How long a pop waits in Redis; a connection that died is noticed two seconds later.
const POP_WAIT: Duration = Duration::from_secs(2);
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

/// Empties the mailbox over one connection after the other.
struct MailboxReader {
    layer: Layer,
    client: Client,
    importer: Importer,
}

impl Supervised for MailboxReader {
    type Connection = Mailbox;

    async fn connect(&mut self, _health: &Health) -> Result<Mailbox, ConnectionError> {
        match &self.layer.0.wire {
            Wire::Core { names, .. } => Mailbox::connect(&self.client, names).await,
            Wire::PubSub(_) => Err("this layer has no mailbox".into()),
        }
    }

    /// Nothing, since the pops occupy the connection; each of them is answered within a deadline.
    fn pinged(&self, _mailbox: &Mailbox) -> Vec<MultiplexedConnection> {
        Vec::new()
    }

    async fn serve(
        &mut self,
        mailbox: Mailbox,
        lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError {
        // Without PINGs `lost` does not complete, so that no pop is dropped.
        let error = tokio::select! {
            error = lost => error,
            error = self.empty(mailbox) => error,
        };
        // The answer that was on its way may have held messages.
        self.layer.report_gap_of_all();
        error
    }

    fn disconnected(&mut self) {
        self.layer.0.up.store(false, Ordering::Release);
    }

    fn record(&self, event: ConnectionEvent<'_>) {
        match event {
            // The mailbox counts as read with the first answer to a pop.
            ConnectionEvent::Connected { .. } => {}
            ConnectionEvent::ConnectFailed { reason, .. } => {
                telemetry::channel_layer::connect_failed(reason);
            }
            ConnectionEvent::Lost { .. } => telemetry::channel_layer::connection_lost(),
        }
    }
}

impl MailboxReader {
    /// Pops messages until the connection is lost. What was popped is handed on before the next pop, so
    /// that what the engine cannot take waits in Redis and not here.
    async fn empty(&mut self, mut mailbox: Mailbox) -> ConnectionError {
        let layer = self.layer.clone();
        loop {
            // Readiness waits for the first answer, which is therefore to come soon.
            let longest = if layer.0.up.load(Ordering::Acquire) { POP_WAIT } else { SHORTEST_WAIT };
            let wait = self.importer.next_due().map_or(longest, |due| {
                due.saturating_duration_since(Instant::now()).clamp(SHORTEST_WAIT, longest)
            });
            let letters = match mailbox.pop(wait).await {
                Ok(letters) => letters,
                Err(failure) => return failure.into(),
            };
            // Redis has removed a mailbox that was not read for this long, for whatever reason.
            let now = Instant::now();
            let last = layer.0.last_read.replace(now);
            if now.saturating_duration_since(last) >= layer.0.settings.expiry {
                layer.report_gap_of_all();
            }
            if !layer.0.up.swap(true, Ordering::AcqRel) {
                telemetry::channel_layer::connected();
            }
            layer.warn_of_capacity(letters.len()).await;
            let incoming = letters.into_iter().map(|Letter { payload, score }| Incoming {
                payload,
                score: Some(score),
                channel: None,
            });
            self.importer.import_all(incoming).await;
        }
    }
}

impl Layer {
    /// Empties the mailbox until the process is killed.
    pub(super) async fn read_mailbox(self, importer: Importer, shutdown: Shutdown) {
        let Some(Ok(client)) = self.0.settings.hosts.first().map(client) else { return };
        supervise(&mut MailboxReader { layer: self, client, importer }, &shutdown).await;
    }

    /// Messages of all groups may have been missed. No other node needs to have read them.
    fn report_gap_of_all(&self) {
        let (layer, all) = (self.clone(), self.0.membership.borrow().confirmed());
        tokio::task::spawn_local(async move {
            layer.report_gap(all, ListenerState::Missed).await;
        });
    }

    /// Counts what is in the mailbox, of which `popped` were taken, and warns where it was full.
    async fn warn_of_capacity(&self, popped: usize) {
        let Wire::Core { memberships, .. } = &self.0.wire else { return };
        let mut count = popped;
        if popped >= LETTERS_PER_POP {
            let waiting = memberships.waiting().await.unwrap_or_default();
            telemetry::channel_layer::mailbox_measured(waiting);
            count += waiting;
        }
        if count >= self.0.settings.capacity {
            telemetry::channel_layer::mailbox_full(count, self.0.settings.capacity);
        }
    }

    /// Renews memberships on a timer, and at once where a host has come back. One that had to be made
    /// anew was lost, by an eviction or with a server's data.
    pub(super) async fn keep_memberships(self) {
        let Wire::Core { memberships, .. } = &self.0.wire else { return };
        let mut ups = memberships.ups();
        let mut ticks = tokio::time::interval(self.0.settings.refresh);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = any_changed(&mut ups) => {}
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

/// Completes when one of the connections came back or was lost.
async fn any_changed(ups: &mut [tokio::sync::watch::Receiver<bool>]) {
    let changes = ups.iter_mut().map(|up| Box::pin(up.changed()));
    // Which one it was, and whether it has ended, does not matter.
    let _ = futures_util::future::select_all(changes).await;
}
