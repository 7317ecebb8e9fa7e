//! Reads a `RedisChannelLayer`: takes the messages of this node's mailbox, and renews its group memberships.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::importer::{Importer, Incoming, Payload};
use super::{Layer, Wire};
use crate::broker::history::ListenerState;
use crate::channel_layer::{MESSAGES_PER_TAKE, Mailbox, MailboxMessage};
use crate::redis_link::{
    ConnectionError, ConnectionEvent, Health, MonitoredLink, Primary, Supervised, supervise,
};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// The longest pause between two looks into the mailbox.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Takes the messages out of the mailbox, over one connection after another.
struct MailboxReader {
    layer: Layer,
    primary: Primary,
    importer: Importer,
}

impl Supervised for MailboxReader {
    type Connection = Mailbox;

    async fn connect(&mut self, health: &Health) -> Result<Mailbox, ConnectionError> {
        // Once this node is ready, the others must know it.
        self.layer.announce().await?;
        let expiry = self.layer.0.settings.expiry;
        match &self.layer.0.wire {
            Wire::Core { names, .. } => {
                let client = self.primary.client().await?;
                let mailbox = Mailbox::connect(&client, health, names, expiry).await?;
                if !mailbox.is_tracking() {
                    telemetry::channel_layer::changes_not_reported();
                }
                Ok(mailbox)
            }
            Wire::PubSub(_) => Err("this layer has no mailbox".into()),
        }
    }

    fn links_to_check(&self, mailbox: &Mailbox) -> Vec<MonitoredLink> {
        vec![mailbox.link()]
    }

    async fn serve(
        &mut self,
        mailbox: Mailbox,
        lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError {
        // Messages that were taken and not appended are taken again on the next connection.
        tokio::select! {
            error = lost => error,
            error = self.import_messages(mailbox) => error,
        }
    }

    fn disconnected(&mut self) {
        self.layer.0.up.store(false, Ordering::Release);
    }

    fn record(&self, event: ConnectionEvent<'_>) {
        match event {
            // The connection is recorded as up after the first answer.
            ConnectionEvent::Connected { .. } => {}
            ConnectionEvent::ConnectFailed { reason, .. } => {
                telemetry::channel_layer::connect_failed(reason);
            }
            ConnectionEvent::Lost { reason } => telemetry::channel_layer::connection_lost(reason),
        }
    }
}

impl MailboxReader {
    /// Imports messages until the connection is lost. They are appended before the next ones are taken, so that
    /// messages which the engine cannot accept yet wait in Redis and not in this process.
    async fn import_messages(&mut self, mut mailbox: Mailbox) -> ConnectionError {
        let layer = self.layer.clone();
        layer.0.earlier_members.borrow_mut().rewind();
        let mut is_first = true;
        loop {
            let read = layer.0.reads.begin();
            let messages = match mailbox.take().await {
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
            let is_empty = messages.is_empty();
            // The first answer may be what was taken on another connection, and not what is in the mailbox.
            let is_last = is_empty || messages.len() < MESSAGES_PER_TAKE && !is_first;
            is_first = false;
            let incoming = messages.into_iter().flat_map(|MailboxMessage { payload, score }| {
                self.importer.address(Incoming { payload, score: Some(score), channel: None })
            });
            let mut messages: Vec<_> = incoming.collect();
            if let Err(failure) =
                layer.add_messages_of_earlier_members(&mut messages, is_last).await
            {
                return failure.into();
            }
            self.importer.import_all(messages.into_iter().map(Payload::Addressed)).await;
            self.importer.import_held().await;
            if is_last {
                layer.0.reads.record_empty(read);
            }
            if is_empty {
                let pause = layer.0.earlier_members.borrow().pause(MAX_WAIT);
                mailbox.changed(pause).await;
            }
        }
    }
}

impl Layer {
    /// Reads the mailbox until the process is killed.
    pub(super) async fn read_mailbox(self, importer: Importer, shutdown: Shutdown) {
        let Some(Ok(primary)) = self.0.settings.hosts.first().map(Primary::named) else { return };
        supervise(&mut MailboxReader { layer: self, primary, importer }, &shutdown).await;
    }

    /// Reports that messages of all groups may have been missed.
    fn report_gap_of_all(&self) {
        let (layer, all) = (self.clone(), self.0.membership.borrow().confirmed());
        tokio::task::spawn_local(async move {
            layer.report_gap(all, ListenerState::Missed).await;
        });
    }

    /// Records how many messages are in the mailbox, including the `taken` ones, and warns if it was full.
    async fn record_mailbox_length(&self, taken: usize) {
        let Wire::Core { memberships, .. } = &self.0.wire else { return };
        let mut count = taken;
        if taken >= MESSAGES_PER_TAKE {
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
            self.renew_everything().await;
        }
    }

    /// Renews memberships and registrations.
    pub(super) async fn renew_everything(&self) {
        self.renew_memberships().await;
        self.renew_registrations().await;
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
