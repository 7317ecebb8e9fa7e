//! Routing by path. Invariant: of the routes and fixed replies whose path matches, the first in the file
//! serves the request.

use std::sync::Arc;

use crate::config;
use crate::protocol::Params;
use crate::telemetry::route::RouteMetrics;

/// The `[[route]]` tables: routes with a channel, and fixed replies.
pub struct Routes {
    routes: Vec<Arc<config::Route>>,
    replies: Vec<Arc<config::FixedReply>>,
}

#[derive(Debug)]
pub enum Found {
    Route(Arc<config::Route>, Params),
    Reply(Arc<config::FixedReply>),
}

impl Routes {
    pub fn new(routes: &[Arc<config::Route>], replies: &[Arc<config::FixedReply>]) -> Self {
        // The metrics of each route exist before its first client connects.
        for route in routes {
            RouteMetrics::of(&route.path);
        }
        Self { routes: routes.to_vec(), replies: replies.to_vec() }
    }

    /// Returns the routes that have a channel.
    pub fn with_channels(&self) -> &[Arc<config::Route>] {
        &self.routes
    }

    pub fn find(&self, path: &str) -> Option<Found> {
        let reply = self.replies.iter().find(|reply| reply.path.matches(path).is_some());
        let before = reply.map_or(self.routes.len(), |reply| reply.after);
        let mut routes = self.routes.iter().take(before);
        let route = routes.find_map(|route| Some((Arc::clone(route), route.path.matches(path)?)));
        match route {
            Some((route, params)) => Some(Found::Route(route, params)),
            None => reply.map(|reply| Found::Reply(Arc::clone(reply))),
        }
    }
}
