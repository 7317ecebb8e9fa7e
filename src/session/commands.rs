//! Commands of the server API, from any node: closing and listing this thread's sessions.
//!
//! A session is found from the moment that it is in the registry, which is before it subscribes. A client
//! that is still in its handshake is not found: to revoke a user, stop issuing credentials first.

use std::rc::Rc;
use std::time::Duration;

use super::{Services, Session};
use crate::clock;
use crate::control::{
    ChannelRow, Channels, ConnectionRow, Connections, Disconnect, Gathering, ListPart, Listing,
    Part, Target, ThreadCommand, WorkerHandle, truncate,
};
use crate::protocol::UserId;

/// Carries out this thread's commands, one after the other, until the gateway ends.
pub async fn run_commands(services: Rc<Services>, mut worker: WorkerHandle) {
    while let Some(task) = worker.next().await {
        match &*task.command {
            ThreadCommand::Disconnect(command) => {
                let closed = services.disconnect(command).await;
                task.answer_closed(closed);
            }
            ThreadCommand::List(Listing::Connections(query)) => {
                let part = services.connections(query).await;
                task.answer_list(ListPart::Connections(part));
            }
            ThreadCommand::List(Listing::Channels(query)) => {
                let part = services.channels(query).await;
                task.answer_list(ListPart::Channels(part));
            }
            ThreadCommand::List(Listing::Details(query)) => {
                let (part, matching) = services.details(query).await;
                task.answer_counted(ListPart::Details(part), matching);
            }
            ThreadCommand::List(Listing::Errors(query)) => {
                let part = services.recent_errors(query);
                task.answer_list(ListPart::Errors(part));
            }
            // A node answers this without its threads.
            ThreadCommand::List(Listing::Generations(_)) => drop(task),
        }
    }
}

impl Services {
    async fn disconnect(&self, command: &Disconnect) -> u64 {
        let mut closed = 0;
        self.registry
            .for_each(|session| {
                if session.is_target(command.target()) && session.socket.is_open() {
                    session.socket.disconnect(command.code(), command.reason());
                    closed += 1;
                }
            })
            .await;
        closed
    }

    async fn connections(&self, query: &Connections) -> Part<ConnectionRow> {
        let mut rows = Gathering::new(query.limit);
        let (node, elapsed, unix_now) =
            (self.control.node(), self.now(), clock::since_unix_epoch());
        self.registry
            .for_each(|session| {
                let id = session.client.connection_id;
                if query.is_after(id)
                    && session.matches(query)
                    && session.socket.is_open()
                    && rows.offer(&id)
                {
                    rows.add(session.row(node, elapsed, unix_now));
                }
            })
            .await;
        rows.finish()
    }

    async fn channels(&self, query: &Channels) -> Part<ChannelRow> {
        let mut rows = Gathering::new(query.limit);
        self.registry
            .for_each(|session| {
                let Some(channel) = &session.client.channel else { return };
                if query.matches(channel) && session.socket.is_open() && rows.offer(channel) {
                    rows.add(ChannelRow { channel: channel.clone(), connections: 1 });
                }
            })
            .await;
        rows.finish()
    }
}

impl Session {
    fn matches(&self, query: &Connections) -> bool {
        let Connections { user_id, channel, route, .. } = query;
        let client = &self.client;
        user_id.as_ref().is_none_or(|id| client.user_id() == Some(id))
            && (channel.is_none() || client.channel == *channel)
            && route.as_ref().is_none_or(|route| client.route.borrow().path.as_str() == route)
    }

    /// The session as lists show it, `elapsed` after the thread started.
    pub(super) fn row(&self, node: &str, elapsed: Duration, unix_now: Duration) -> ConnectionRow {
        let client = &self.client;
        let age = self.opened.elapsed(elapsed);
        ConnectionRow {
            connection_id: client.connection_id,
            user_id: client.user_id().map(|id| match id {
                UserId::Integer(id) => UserId::Integer(*id),
                UserId::Text(id) => UserId::Text(truncate(id)),
            }),
            username: client.username().as_deref().map(truncate),
            channel: client.channel.clone(),
            route: client.route.borrow().path.as_str().into(),
            node: node.into(),
            address: client.address,
            connected_at: unix_now.saturating_sub(age).as_secs(),
            expires_at: client.expires_at(),
            send_queue_bytes: self.socket.queued_bytes() as u64,
        }
    }

    pub(super) fn is_target(&self, target: &Target) -> bool {
        match target {
            Target::User(id) => self.client.user_id() == Some(id),
            Target::Connection(id) => self.client.connection_id == *id,
            Target::Channel(name) => self.client.channel.as_ref() == Some(name),
        }
    }
}
