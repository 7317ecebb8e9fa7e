//! The metrics of each route, whose series are looked up once.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use metrics::SharedString;

use super::connections::{self, ConnectionMetrics};
use super::definitions::{self, Configured};
use super::messages::{self, MessageMetrics};
use super::replies::{self, ReplyMetrics};
use crate::protocol::PathPattern;

/// By path pattern. Keeps every route that any configuration of this process had, as the recorder keeps its
/// series.
static ROUTES: LazyLock<RwLock<HashMap<Box<str>, Arc<RouteMetrics>>>> =
    LazyLock::new(RwLock::default);

/// The metrics of one route. A reload that replaces a route by one of the same path keeps them.
pub struct RouteMetrics {
    pub connections: ConnectionMetrics,
    pub messages: MessageMetrics,
    pub replies: Arc<ReplyMetrics>,
}

impl RouteMetrics {
    /// The metrics of the route at `path`. The first call adds its series to the scrapes.
    pub fn of(path: &PathPattern) -> Arc<Self> {
        let known =
            ROUTES.read().unwrap_or_else(PoisonError::into_inner).get(path.as_str()).cloned();
        known.unwrap_or_else(|| {
            let mut routes = ROUTES.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Self::new(path.as_str()));
            Arc::clone(routes.entry(path.as_str().into()).or_insert_with(new))
        })
    }

    pub(super) fn new(path: &str) -> Self {
        for metrics in [connections::METRICS, messages::METRICS, replies::METRICS] {
            definitions::register_configured(metrics, Configured::Route, path);
        }
        let route: Arc<str> = path.into();
        Self {
            messages: MessageMetrics::new(&SharedString::from(Arc::clone(&route))),
            replies: Arc::new(ReplyMetrics::new(Arc::clone(&route))),
            connections: ConnectionMetrics::new(route),
        }
    }
}
