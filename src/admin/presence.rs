//! `GET /v1/channels/{channel}/presence`: who is connected to a channel, over all nodes.

use std::collections::HashSet;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use url::form_urlencoded;

use super::{Admin, Answer, api};
use crate::presence::{Change, Page};
use crate::protocol::{ChannelName, ConnectionId, UserId};
use crate::telemetry::presence as facts;

/// Connections of one answer.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Joins and leaves that are published in one step.
const BATCH: usize = 500;

/// Which part of the list is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Query {
    limit: usize,
    /// The last connection of the part before.
    cursor: Option<ConnectionId>,
}

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
    /// In all, also those of other parts of the list.
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
    /// `channel` is percent-encoded. A channel with nobody in it is no error: channels exist while
    /// somebody is there.
    pub(super) async fn list_presence(
        &self,
        channel: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, Answer> {
        let channel = decode(channel)?;
        let query = Query::parse(request.uri().query().unwrap_or_default())?;
        let (changes, page) = self.presence.list(&channel, query.cursor, query.limit).await;
        self.publish_changes(&channel, &changes).await;
        let page = page.map_err(|_| api::engine_down())?;
        Ok(api::json(StatusCode::OK, &body(&channel, &page)))
    }

    /// Members that were found to have expired: nobody else is told of them.
    async fn publish_changes(&self, channel: &ChannelName, changes: &[Change]) {
        let events: Vec<_> = changes.iter().map(Change::event).collect();
        for events in events.chunks(BATCH) {
            if self.publisher.publish_all(channel, events, None).await.is_err() {
                facts::not_announced(events.len());
            }
        }
    }
}

fn decode(channel: &str) -> Result<ChannelName, Answer> {
    let wrong = |message: &str| api::error(StatusCode::BAD_REQUEST, "bad_channel", message);
    let name = percent_decode_str(channel)
        .decode_utf8()
        .map_err(|_| wrong("a channel name is UTF-8, percent-encoded"))?;
    ChannelName::new(&name).map_err(|invalid| wrong(&invalid.to_string()))
}

impl Query {
    fn parse(query: &str) -> Result<Self, Answer> {
        let mut parsed = Self { limit: DEFAULT_LIMIT, cursor: None };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    let wrong = || api::bad_request("limit is a number from 1 to 1000");
                    parsed.limit = limit.ok_or_else(wrong)?;
                }
                "cursor" => {
                    let wrong = |_| api::bad_request("cursor is no next_cursor of an answer");
                    parsed.cursor = Some(value.parse().map_err(wrong)?);
                }
                _ => return Err(api::bad_request("there are only limit and cursor")),
            }
        }
        Ok(parsed)
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
