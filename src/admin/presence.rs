//! `GET /v1/channels/{channel}/presence`: who is connected to a channel, over all nodes.

use std::collections::HashSet;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Serialize;

use super::api::Query;
use super::{Admin, Answer, api};
use crate::presence::{Change, Page};
use crate::protocol::{ChannelName, ConnectionId, UserId};
use crate::telemetry;

/// Join and leave events that are published in one step.
const BATCH: usize = 500;

/// The answer. `users` are those with a connection in `connections`.
#[derive(Serialize)]
struct Body<'a> {
    channel: &'a str,
    users: Vec<User<'a>>,
    connections: Vec<Connection<'a>>,
    total_users: u64,
    total_connections: u64,
    next_cursor: Option<ConnectionId>,
}

#[derive(Serialize)]
struct User<'a> {
    user_id: &'a UserId,
    username: Option<&'a str>,
    /// All connections of the user, including those on other pages of the list.
    connections: u64,
}

#[derive(Serialize)]
struct Connection<'a> {
    connection_id: ConnectionId,
    user_id: Option<&'a UserId>,
    username: Option<&'a str>,
    /// Unix seconds.
    connected_at: u64,
}

impl Admin {
    /// `channel` is percent-encoded. A channel without members is not an error, since channels exist only
    /// while they have members.
    pub(super) async fn list_presence(
        &self,
        channel: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, Answer> {
        let channel = api::channel(channel)?;
        let mut query = Query::of(&request)?;
        let limit = query.take_limit()?;
        let cursor =
            query.take("cursor", "must be the next_cursor of an answer", |id| id.parse().ok())?;
        query.finish(&["limit", "cursor"])?;
        let (changes, page) = self.presence.list(&channel, cursor, limit).await;
        self.publish_changes(&channel, &changes).await;
        let page = page.map_err(|_| api::engine_down())?;
        Ok(api::json(StatusCode::OK, &body(&channel, &page)))
    }

    /// Publishes the leave events of members that were found expired: nothing else reports them.
    async fn publish_changes(&self, channel: &ChannelName, changes: &[Change]) {
        let events: Vec<_> = changes.iter().map(Change::event).collect();
        for events in events.chunks(BATCH) {
            if self.publisher.publish_unstored(channel, events).await.is_err() {
                telemetry::presence::not_announced(events.len());
            }
        }
    }
}

fn body<'a>(channel: &'a ChannelName, page: &'a Page) -> Body<'a> {
    let mut seen = HashSet::new();
    let mut users = Vec::new();
    let mut connections = Vec::with_capacity(page.members.len());
    for (member, of_user) in &page.members {
        let username = member.username.as_deref();
        if let Some(user_id) = &member.user_id
            && seen.insert(user_id)
        {
            users.push(User { user_id, username, connections: *of_user });
        }
        connections.push(Connection {
            connection_id: member.connection_id,
            user_id: member.user_id.as_ref(),
            username,
            connected_at: member.connected_at,
        });
    }
    let last = connections.last().map(|connection| connection.connection_id);
    Body {
        channel: channel.as_str(),
        users,
        connections,
        total_users: page.total_users,
        total_connections: page.total_connections,
        next_cursor: last.filter(|_| page.more),
    }
}

#[cfg(test)]
mod tests;
