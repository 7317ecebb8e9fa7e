//! A connection as a member of its channel, from after `connected` until it ends.

use tokio::sync::Mutex;

use super::Session;
use crate::broker::{PublishError, Publisher};
use crate::clock;
use crate::config;
use crate::presence::{Announcement, Member, Members, PresenceStore};
use crate::telemetry;

/// How many events are published in one step.
const BATCH: usize = 500;

/// The members on one thread, and the announcements of their joining and leaving.
pub struct Presence {
    members: Members,
    publisher: Publisher,
    /// Held while an announcement is published, so that announcements keep their order.
    publishing: Mutex<()>,
}

impl Presence {
    pub fn new(store: PresenceStore, publisher: Publisher) -> Self {
        Self { members: Members::new(store), publisher, publishing: Mutex::default() }
    }

    /// Keeps the engine and the channels up to date for as long as the thread lives. Slow publishing does
    /// not delay the renewal of leases.
    pub async fn run(&self) {
        let announce = async {
            loop {
                self.publish_all().await;
                self.members.wait_for_announcement().await;
            }
        };
        tokio::join!(self.members.run(), announce);
    }

    /// Removes members that have left from the engine, and announces it. For the end of a thread; members that
    /// cannot be removed expire.
    pub async fn flush(&self) {
        self.members.flush().await;
        self.publish_all().await;
    }

    /// Tries each announcement once: after a failure it may have been published all the same, and clients
    /// that miss something are closed by the broker.
    async fn publish_all(&self) {
        loop {
            let _lock = self.publishing.lock().await;
            let Some(announcement) = self.members.next_announcement() else { return };
            if publish(&self.publisher, &announcement).await.is_err() {
                telemetry::presence::not_announced(announcement.events.len());
            }
        }
    }
}

async fn publish(
    publisher: &Publisher,
    Announcement { channel, events }: &Announcement,
) -> Result<(), PublishError> {
    for events in events.chunks(BATCH) {
        publisher.publish_unstored(channel, events).await?;
    }
    Ok(())
}

impl Session {
    /// Announces the client on its channel, once the subscription is confirmed and `connected` is sent.
    pub(super) fn join_presence(&self) {
        let client = &self.client;
        let Some(channel) = &client.channel else { return };
        if client.route.borrow().presence == config::Presence::Off || !self.socket.is_open() {
            return;
        }
        let member = Member {
            connection_id: client.connection_id,
            user_id: client.user_id().cloned(),
            username: client.username(),
            connected_at: clock::unix_seconds(),
            events: client.route.borrow().presence == config::Presence::Events,
        };
        self.services.presence.members.enter(channel, member);
    }

    pub(super) fn leave_presence(&self) {
        if self.client.route.borrow().presence != config::Presence::Off {
            self.services.presence.members.leave(self.client.connection_id);
        }
    }
}
