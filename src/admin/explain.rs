//! `GET /v1/explain`: what all nodes know of a connection, a user or a channel.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Serialize;

use super::api::Query;
use super::limits::Limit;
use super::lists::{self, Nodes};
use super::{Admin, Answer, api};
use crate::control::{
    Concerning, ConnectionDetails, Details, ErrorRow, GenerationRow, InvalidTarget, Target,
};
use crate::protocol::{ChannelName, ConnectionId, Epoch, Params};

/// The most connections that one answer describes; the rest is counted.
pub(super) const MAX_CONNECTIONS: usize = 20;

/// The most replies in progress, and the most errors.
pub(super) const MAX_ROWS: usize = 50;

/// How long reading the limits and positions of all that is described may take.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Body<'a> {
    target: &'a Target,
    /// Whether anything at all is known: a connection, a reply, an error, a used limit or a history.
    known: bool,
    connections: &'a [ConnectionDetails],
    /// How many connections the target has, with those that are left out.
    total_connections: u64,
    generations: &'a [GenerationRow],
    more_generations: bool,
    errors: &'a [ErrorRow],
    more_errors: bool,
    /// `null` if the engine did not answer.
    limits: Option<Vec<UserLimits>>,
    /// `null` if the engine did not answer.
    channels: Option<Vec<ChannelStatus<'a>>>,
    complete: bool,
    /// Whether only the node that was called has answered, because the engine is unavailable.
    local: bool,
    nodes: Nodes,
    /// The nodes that have not answered, as far as they are known.
    missing_nodes: BTreeSet<String>,
}

/// The limits of a user on one route.
#[derive(Serialize)]
struct UserLimits {
    user_id: String,
    route: String,
    /// The parameters of a connection's path by which limits of the route are counted, if they are known.
    #[serde(skip_serializing_if = "Params::is_empty")]
    params: Params,
    limits: Vec<Limit>,
}

#[derive(Serialize)]
struct ChannelStatus<'a> {
    channel: &'a ChannelName,
    history: bool,
    epoch: Option<Epoch>,
    offset: Option<u64>,
}

impl Admin {
    pub(super) async fn explain(&self, request: Request<Incoming>) -> Result<Answer, Answer> {
        let target = target(Query::of(&request)?)?;
        let _permit = self.listings.permit().await?;
        let details = Details { target: target.clone(), limit: MAX_CONNECTIONS };
        let details = self.control.details(details).await.map_err(lists::refusal)?;
        let connections = details.part.rows;
        let channels = channels(&target, &connections);
        let concerning = Concerning {
            target: target.clone(),
            channels: channels.iter().cloned().collect(),
            limit: MAX_ROWS,
        };
        let (generations, errors) = tokio::join!(
            self.control.generations(concerning.clone()),
            self.control.errors(concerning)
        );
        let (generations, errors) =
            (generations.map_err(lists::refusal)?, errors.map_err(lists::refusal)?);
        let read = async {
            tokio::join!(self.limits_of(&target, &connections), self.channel_statuses(&channels),)
        };
        let (limits, channels) =
            tokio::time::timeout(ENGINE_TIMEOUT, read).await.unwrap_or_default();
        let nodes = [details.reached, generations.reached, errors.reached]
            .map(Nodes::from)
            .into_iter()
            .reduce(Nodes::both)
            .unwrap_or_else(|| details.reached.into());
        let is_local = details.is_local || generations.is_local || errors.is_local;
        let missing_nodes =
            [details.missing, generations.missing, errors.missing].into_iter().flatten().collect();
        let uses_limits = limits.iter().flatten().flat_map(|one| &one.limits).any(Limit::is_used);
        let is_channel = matches!(target, Target::Channel(_));
        let has_history =
            is_channel && channels.iter().flatten().any(|channel| channel.epoch.is_some());
        let body = Body {
            known: !connections.is_empty()
                || !generations.part.rows.is_empty()
                || !errors.part.rows.is_empty()
                || (matches!(target, Target::User(_)) && uses_limits)
                || has_history,
            target: &target,
            total_connections: details.reached.affected.max(connections.len() as u64),
            connections: &connections,
            more_generations: generations.part.more,
            generations: &generations.part.rows,
            more_errors: errors.part.more,
            errors: &errors.part.rows,
            limits,
            channels,
            complete: nodes.is_complete() && !is_local,
            local: is_local,
            nodes,
            missing_nodes,
        };
        Ok(api::json(StatusCode::OK, &body))
    }

    /// The limits of a user on every route, or those of the connections' users on their routes. `None` if the engine
    /// does not answer.
    async fn limits_of(
        &self,
        target: &Target,
        connections: &[ConnectionDetails],
    ) -> Option<Vec<UserLimits>> {
        let config = self.config.load_full();
        let mut users: Vec<_> = connections
            .iter()
            .filter_map(|ConnectionDetails { row, limit_params, .. }| {
                let user = row.user_id.as_ref()?.to_string();
                Some((row.route.to_string(), user, limit_params.clone()))
            })
            .collect();
        if let Target::User(user) = target {
            let is_missing = |route: &str| !users.iter().any(|(path, ..)| path == route);
            let paths = config.routes.iter().map(|route| route.path.as_str());
            let others: Vec<_> = paths.filter(|path| is_missing(path)).collect();
            let others = others
                .into_iter()
                .map(|path| (path.to_owned(), user.to_string(), Params::default()));
            users.extend(others);
        }
        users.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
        let mut all: Vec<UserLimits> = Vec::new();
        for (path, user_id, params) in users {
            let is_known = all
                .iter()
                .any(|one| (&one.route, &one.user_id, &one.params) == (&path, &user_id, &params));
            let route = config.routes.iter().find(|route| route.path.as_str() == path);
            let Some(route) = route.filter(|_| !is_known) else { continue };
            let limits = self.user_limits(route, &params, &user_id).await.ok()?;
            if !limits.is_empty() {
                all.push(UserLimits { user_id, route: path, params, limits });
            }
        }
        Some(all)
    }

    async fn channel_statuses<'a>(
        &self,
        channels: &'a BTreeSet<ChannelName>,
    ) -> Option<Vec<ChannelStatus<'a>>> {
        let names: Vec<_> = channels.iter().cloned().collect();
        let positions = self.history.positions(&names).await.ok()?;
        let status = |(channel, position): (&'a ChannelName, _)| {
            let position: Option<crate::protocol::Position> = position;
            ChannelStatus {
                channel,
                history: self.history.keeps(channel),
                epoch: position.map(|position| position.epoch),
                offset: position.map(|position| position.offset),
            }
        };
        Some(channels.iter().zip(positions).map(status).collect())
    }
}

/// The channels of the connections, and the target itself if it is one.
fn channels(target: &Target, connections: &[ConnectionDetails]) -> BTreeSet<ChannelName> {
    let own = match target {
        Target::Channel(channel) => Some(channel.clone()),
        _ => None,
    };
    connections.iter().filter_map(|one| one.row.channel.clone()).chain(own).collect()
}

fn target(mut query: Query) -> Result<Target, Answer> {
    let user = query.take_user()?.map(Target::User);
    let connection = query
        .take("connection_id", "must be 32 hex digits", ConnectionId::parse)?
        .map(Target::Connection);
    let channel = query.take_channel()?.map(Target::Channel);
    query.finish(&["user_id", "connection_id", "channel"])?;
    let mut given = [user, connection, channel].into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(target), None) => Ok(target),
        _ => Err(api::bad_request(&InvalidTarget::FieldCount.to_string())),
    }
}
