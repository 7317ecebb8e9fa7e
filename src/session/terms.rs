//! What a thread serves its clients by, and what becomes of open connections when that changes.
//!
//! A connection follows its route where an open one can: limits, times, sizes of texts. Where its route
//! leads elsewhere now, or is gone, it is asked to come back; what it had under way is finished first.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::{Services, Session, Upstream};
use crate::config::{Config, Route};
use crate::telemetry;
use crate::tokens::Authenticator;
use crate::upstream::Upstreams;

/// What a reload replaces as a whole, on each thread.
pub struct ThreadConfig {
    pub config: Arc<Config>,
    pub upstreams: Upstreams,
    pub authenticator: Authenticator,
}

/// What has become of a route.
enum Now {
    Same,
    /// Open connections can follow.
    Changed(Arc<Route>),
    /// It is gone, or leads elsewhere.
    Other,
}

impl Services {
    /// As they are now; what takes a while keeps those that it began with.
    pub fn terms(&self) -> Rc<ThreadConfig> {
        Rc::clone(&self.terms.borrow())
    }

    /// From now on by these. Sends away, spread over the time of a drain, who cannot follow.
    pub async fn adopt(self: &Rc<Self>, terms: ThreadConfig) {
        let over = terms.config.shutdown.drain;
        self.registry.set_routes(&terms.config.routes);
        self.terms.replace(Rc::new(terms));
        let mut leaving = VecDeque::new();
        self.registry
            .visit(|session| {
                if !session.apply_route_update() {
                    leaving.push_back(Rc::clone(session));
                }
            })
            .await;
        if !leaving.is_empty() {
            telemetry::process::connections_rerouted(leaving.len());
            let services = Rc::clone(self);
            tokio::task::spawn_local(async move { services.registry.dismiss(leaving, over).await });
        }
    }
}

impl Session {
    /// Follows its route, if it can.
    pub(super) fn apply_route_update(&self) -> bool {
        let now = self.services.terms().now(&self.client.route.borrow(), self.client.upstream);
        match now {
            Now::Same => true,
            Now::Changed(route) => {
                self.client.route.replace(route);
                true
            }
            Now::Other => !self.socket.is_open(),
        }
    }
}

impl ThreadConfig {
    /// How messages of this route travel.
    pub fn upstream(&self, route: &Route) -> Upstream {
        let name = route.upstream.as_deref();
        Upstream::of(name.and_then(|name| self.upstreams.kind(name)))
    }

    fn now(&self, route: &Arc<Route>, upstream: Upstream) -> Now {
        let Some(now) = self.config.routes.iter().find(|other| other.path == route.path) else {
            return Now::Other;
        };
        if Arc::ptr_eq(now, route) || now == route {
            Now::Same
        } else if is_followed(route, now) && upstream == self.upstream(now) {
            Now::Changed(Arc::clone(now))
        } else {
            Now::Other
        }
    }
}

/// What an open connection is made of stays as it is.
fn is_followed(from: &Route, to: &Route) -> bool {
    from.channel == to.channel
        && from.upstream == to.upstream
        && from.protocol == to.protocol
        && from.binary == to.binary
        && from.presence == to.presence
        && (from.history.size > 0) == (to.history.size > 0)
}
