//! Reads a `RedisChannelLayer`: empties this node's mailbox, and keeps its memberships.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::importer::{Importer, Incoming};
use super::{Layer, Wire};
use crate::broker::history::ListenerState;
use crate::channel_layer::{LETTERS_PER_POP, Letter, Mailbox};
use crate::redis_link::{Backoff, blocking_client};
use crate::telemetry;

/// How long a pop waits in Redis; a connection that died is noticed two seconds later.
const POP_WAIT: Duration = Duration::from_secs(2);
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

impl Layer {
    /// Empties the mailbox for ever. What was popped is handed on before the next pop, so that what the
    /// engine cannot take waits in Redis and not here.
    pub(super) async fn read_mailbox(self, mut importer: Importer) {
        let Wire::Core { names, .. } = &self.0.wire else { return };
        let Some(host) = self.0.settings.hosts.first() else { return };
        let Ok(client) = blocking_client(host) else { return };
        let mut backoff = Backoff::new();
        loop {
            match Mailbox::connect(&client, names).await {
                Ok(mailbox) => {
                    self.empty(mailbox, &mut importer, &mut backoff).await;
                    telemetry::channel_layer::connection_lost();
                    // The answer that was on its way may have held messages.
                    self.all_missed();
                }
                Err(failure) => telemetry::channel_layer::connect_failed(&failure),
            }
            self.0.up.store(false, Ordering::Release);
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Returns when the connection is lost.
    async fn empty(&self, mut mailbox: Mailbox, importer: &mut Importer, backoff: &mut Backoff) {
        loop {
            // The first answer says that the mailbox is read, and this node waits for that to be ready.
            let patience = if self.0.up.load(Ordering::Acquire) { POP_WAIT } else { SHORTEST_WAIT };
            let wait = importer.next_due().map_or(patience, |due| {
                due.saturating_duration_since(Instant::now()).clamp(SHORTEST_WAIT, patience)
            });
            let Ok(letters) = mailbox.pop(wait).await else { return };
            // A mailbox that nobody read for this long was gone, whatever kept this node from it.
            let read = Instant::now();
            let last = self.0.heard.replace(read);
            if read.saturating_duration_since(last) >= self.0.settings.expiry {
                self.all_missed();
            }
            if !self.0.up.swap(true, Ordering::AcqRel) {
                backoff.reset();
                telemetry::channel_layer::connected();
            }
            self.warn_of_capacity(letters.len()).await;
            let incoming = letters.into_iter().map(|Letter { payload, score }| Incoming {
                payload,
                score: Some(score),
                channel: None,
            });
            importer.bring(incoming).await;
        }
    }

    /// What this node has not read, no other one need have.
    fn all_missed(&self) {
        let (layer, all) = (self.clone(), self.0.membership.borrow().settled());
        tokio::task::spawn_local(async move { layer.missed(all, ListenerState::Missed).await });
    }

    /// `popped` were in the mailbox, and perhaps more are.
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
            self.renew_attendance().await;
        }
    }

    async fn renew_memberships(&self) {
        let Wire::Core { memberships, .. } = &self.0.wire else { return };
        let settled = self.0.membership.borrow().settled();
        let Ok(joined) = memberships.join(&settled).await else { return };
        let new = joined.into_iter().filter(|joined| matches!(joined.is_new, Ok(true)));
        let lost: Vec<_> = new
            .map(|joined| joined.channel)
            .filter(|channel| self.0.membership.borrow().contains(channel))
            .collect();
        telemetry::channel_layer::memberships_lost(lost.len());
        self.missed(lost, ListenerState::Missed).await;
        if let Ok(waiting) = memberships.waiting().await {
            telemetry::channel_layer::mailbox_measured(waiting);
        }
    }
}

/// Completes when one of the connections came back or was lost.
async fn any_changed(ups: &mut [tokio::sync::watch::Receiver<bool>]) {
    let changes = ups.iter_mut().map(|up| Box::pin(up.changed()));
    let _ended = futures_util::future::select_all(changes).await;
}
