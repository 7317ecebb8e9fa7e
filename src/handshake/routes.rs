//! Routing by path. Invariants: of the routes and fixed replies whose path matches, the first in the file serves the
//! request; paths that end with a rest come after all others, the most specific one first; a path that has the shape of
//! one route, but a value that it cannot have, gets to no route that ends with a rest and is less specific.

use std::sync::Arc;

use crate::config;
use crate::protocol::Params;
use crate::telemetry::route::RouteMetrics;

/// The `[[route]]` tables: routes with a channel, and fixed replies.
pub struct Routes {
    all: Vec<Arc<config::Route>>,
    /// Those whose path does not end with a rest, in the order of the file. Each with its index there.
    plain: Vec<(usize, Arc<config::Route>)>,
    /// The others, in the order in which they are tried.
    with_rest: Vec<Arc<config::Route>>,
    replies: Vec<Arc<config::FixedReply>>,
}

#[derive(Debug)]
pub enum Found {
    Route(Arc<config::Route>, Params),
    Reply(Arc<config::FixedReply>),
    /// The path has the shape of the route's, but a value that it cannot have.
    Unfit(Arc<config::Route>),
}

impl Routes {
    pub fn new(routes: &[Arc<config::Route>], replies: &[Arc<config::FixedReply>]) -> Self {
        // The metrics of each route exist before its first client connects.
        for route in routes {
            RouteMetrics::of(&route.path);
        }
        let numbered = routes.iter().cloned().enumerate();
        let (with_rest, plain): (Vec<_>, Vec<_>) =
            numbered.partition(|(_, route)| route.path.has_rest());
        let mut with_rest: Vec<_> = with_rest.into_iter().map(|(_, route)| route).collect();
        with_rest.sort_by(|one, other| one.path.compare_rest(&other.path));
        Self { all: routes.to_vec(), plain, with_rest, replies: replies.to_vec() }
    }

    /// Returns the routes that have a channel.
    pub fn with_channels(&self) -> &[Arc<config::Route>] {
        &self.all
    }

    pub fn find(&self, path: &str) -> Option<Found> {
        let reply = self.replies.iter().find(|reply| reply.path.matches(path).is_some());
        let before = reply.map_or(usize::MAX, |reply| reply.after);
        let plain = self.plain.iter().take_while(|(index, _)| *index < before);
        let plain = plain.map(|(_, route)| route);
        if let Some((route, params)) = plain.clone().find_map(|route| matching(route, path)) {
            return Some(Found::Route(route, params));
        }
        if let Some(reply) = reply {
            return Some(Found::Reply(Arc::clone(reply)));
        }
        let mut candidates = plain.chain(&self.with_rest);
        let route = candidates.find(|route| route.path.has_shape_of(path))?;
        Some(match matching(route, path) {
            Some((route, params)) => Found::Route(route, params),
            None => Found::Unfit(Arc::clone(route)),
        })
    }
}

fn matching(route: &Arc<config::Route>, path: &str) -> Option<(Arc<config::Route>, Params)> {
    Some((Arc::clone(route), route.path.matches(path)?))
}

#[cfg(test)]
mod tests;
