//! A connection as a member of its channel: in it from after `connected` until it ends.

use tokio::sync::Mutex;

use super::Session;
use crate::broker::{PublishError, Publisher};
use crate::clock;
use crate::config;
use crate::presence::{Announcement, Member, Members, PresenceStore};
use crate::telemetry::presence as facts;

/// Events that are published in one step.
const BATCH: usize = 500;

/// The members of one thread, and what their channels are told of them.
pub struct Presence {
    members: Members,
    publisher: Publisher,
    /// Held while an announcement is published, so that they keep their command.
    publishing: Mutex<()>,
}

impl Presence {
    pub fn new(store: PresenceStore, publisher: Publisher) -> Self {
        Self { members: Members::new(store), publisher, publishing: Mutex::default() }
    }

    /// Keeps the engine and the channels up to date, for as long as the thread lives. Who publishes
    /// slowly holds up no lease.
    pub async fn run(&self) {
        let announce = async {
            loop {
                self.publish_all().await;
                self.members.announced().await;
            }
        };
        tokio::join!(self.members.run(), announce);
    }

    /// Tells the engine and the channels who has left. For the end of a thread: who is not told
    /// expires.
    pub async fn flush(&self) {
        self.members.flush().await;
        self.publish_all().await;
    }

    /// Tries each once: after a failure it may have been published, and clients that miss something
    /// are told so by the broker.
    async fn publish_all(&self) {
        loop {
            let _turn = self.publishing.lock().await;
            let Some(announcement) = self.members.next_announcement() else { return };
            if publish(&self.publisher, &announcement).await.is_err() {
                facts::not_announced(announcement.events.len());
            }
        }
    }
}

async fn publish(
    publisher: &Publisher,
    Announcement { channel, events }: &Announcement,
) -> Result<(), PublishError> {
    for events in events.chunks(BATCH) {
        publisher.publish_all(channel, events, None).await?;
    }
    Ok(())
}

impl Session {
    /// Its channel's subscription is confirmed, and `connected` is said where the route says it.
    pub(super) fn enter_channel(&self) {
        let client = &self.client;
        if client.route.borrow().presence == config::Presence::Off || !self.socket.is_open() {
            return;
        }
        let identity = client.identity.borrow();
        let member = Member {
            connection_id: client.connection_id,
            user_id: identity.user_id.clone(),
            username: identity.username.clone(),
            connected_at: clock::unix_seconds(),
            events: client.route.borrow().presence == config::Presence::Events,
        };
        self.services.presence.members.enter(&client.channel, member);
    }

    pub(super) fn leave_channel(&self) {
        if self.client.route.borrow().presence != config::Presence::Off {
            self.services.presence.members.leave(self.client.connection_id);
        }
    }
}
