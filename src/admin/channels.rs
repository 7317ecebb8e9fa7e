//! `GET /v1/channels` and `GET /v1/channels/{channel}`: the channels that have connections, over all nodes.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Serialize;

use super::api::Query;
use super::lists::{self, Nodes};
use super::{Admin, Answer, api};
use crate::control::Channels;
use crate::protocol::{ChannelName, Epoch, Position};

#[derive(Serialize)]
struct List<'a> {
    channels: Vec<Row<'a>>,
    next_cursor: Option<&'a ChannelName>,
    /// Whether every node answered with all its rows.
    complete: bool,
    nodes: Nodes,
}

#[derive(Serialize)]
struct Row<'a> {
    channel: &'a ChannelName,
    connections: u64,
    /// Whether the channel keeps a history.
    history: bool,
    /// The position of its last publication, if it has a history at the moment.
    epoch: Option<Epoch>,
    offset: Option<u64>,
}

#[derive(Serialize)]
struct One<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    /// The offset of the oldest publication in the history.
    oldest_offset: Option<u64>,
    kept: u64,
    complete: bool,
    nodes: Nodes,
}

impl Admin {
    pub(super) async fn list_channels(&self, request: Request<Incoming>) -> Result<Answer, Answer> {
        let selection = selection(Query::of(&request)?)?;
        let _permit = self.listings.permit().await?;
        let listed = self.control.channels(selection).await.map_err(lists::refusal)?;
        let (part, reached) = (listed.part, listed.reached);
        let names: Vec<_> = part.rows.iter().map(|row| row.channel.clone()).collect();
        let positions = self.history.positions(&names).await.map_err(|_| api::engine_down())?;
        let rows = part.rows.iter().zip(positions);
        let channels =
            rows.map(|(row, position)| self.row(&row.channel, row.connections, position)).collect();
        let next_cursor = part.rows.last().map(|row| &row.channel).filter(|_| part.more);
        let body = List {
            channels,
            next_cursor,
            complete: reached.is_complete() && part.more == next_cursor.is_some(),
            nodes: reached.into(),
        };
        Ok(api::json(StatusCode::OK, &body))
    }

    /// A channel without connections is not an error: the answer describes what its name would get.
    pub(super) async fn describe_channel(
        &self,
        channel: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, Answer> {
        let channel = self.open_channel(channel)?;
        Query::of(&request)?.finish(&[])?;
        let _permit = self.listings.permit().await?;
        let selection = Channels { name: Some(channel.clone()), limit: 1, ..Channels::default() };
        let listed = self.control.channels(selection).await.map_err(lists::refusal)?;
        let extent = self.history.extent(&channel).await.map_err(|_| api::engine_down())?;
        let connections = listed.part.rows.first().map_or(0, |row| row.connections);
        let body = One {
            row: self.row(&channel, connections, extent.map(|extent| extent.now)),
            oldest_offset: extent.and_then(|extent| extent.oldest),
            kept: extent.map_or(0, |extent| extent.kept),
            complete: listed.reached.is_complete(),
            nodes: listed.reached.into(),
        };
        Ok(api::json(StatusCode::OK, &body))
    }

    fn row<'a>(
        &self,
        channel: &'a ChannelName,
        connections: u64,
        position: Option<Position>,
    ) -> Row<'a> {
        Row {
            channel,
            connections,
            history: self.history.keeps(channel),
            epoch: position.map(|position| position.epoch),
            offset: position.map(|position| position.offset),
        }
    }
}

fn selection(mut query: Query) -> Result<Channels, Answer> {
    let selection = Channels {
        name: None,
        prefix: query
            .take("prefix", "is longer than a channel's name", |text| {
                (text.len() <= ChannelName::MAX_BYTES).then(|| text.to_owned())
            })?
            .unwrap_or_default(),
        after: query.take("cursor", "must be the next_cursor of an answer", |name| {
            ChannelName::new(name).ok()
        })?,
        limit: query.take_limit()?,
    };
    query.finish(&["prefix", "limit", "cursor"])?;
    Ok(selection)
}
