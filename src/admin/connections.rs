//! `GET /v1/connections`: the open connections of all nodes, or some of them.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Serialize;

use super::api::Query;
use super::lists::{self, Nodes};
use super::{Admin, Answer, api};
use crate::control::{ConnectionRow, Connections};
use crate::protocol::ConnectionId;

/// The longest name of a node, in hex digits.
const MAX_NODE_BYTES: usize = 32;

#[derive(Serialize)]
struct Body<'a> {
    connections: &'a [ConnectionRow],
    next_cursor: Option<ConnectionId>,
    /// Whether every node answered with all its rows.
    complete: bool,
    nodes: Nodes,
}

impl Admin {
    pub(super) async fn list_connections(
        &self,
        request: Request<Incoming>,
    ) -> Result<Answer, Answer> {
        let selection = selection(Query::of(&request)?)?;
        let _permit = self.listings.permit().await?;
        let listed = self.control.connections(selection).await.map_err(lists::refusal)?;
        let (part, reached) = (listed.part, listed.reached);
        let next_cursor = part.rows.last().map(|row| row.connection_id).filter(|_| part.more);
        let body = Body {
            connections: &part.rows,
            next_cursor,
            complete: reached.is_complete() && part.more == next_cursor.is_some(),
            nodes: reached.into(),
        };
        Ok(api::json(StatusCode::OK, &body))
    }
}

fn selection(mut query: Query) -> Result<Connections, Answer> {
    let selection = Connections {
        user_id: query.take_user()?,
        channel: query.take_channel()?,
        route: query.take("route", "must be the path of a route as in the config", |text| {
            (1..=api::MAX_ROUTE_BYTES).contains(&text.len()).then(|| text.to_owned())
        })?,
        node: query.take("node", "must be the name of a node: up to 32 hex digits", |text| {
            let fits = (1..=MAX_NODE_BYTES).contains(&text.len());
            (fits && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_owned())
        })?,
        after: query
            .take("cursor", "must be the next_cursor of an answer", |id| id.parse().ok())?,
        limit: query.take_limit()?,
    };
    query.finish(&["user_id", "channel", "route", "node", "limit", "cursor"])?;
    Ok(selection)
}
