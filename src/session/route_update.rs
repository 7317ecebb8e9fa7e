//! Open connections and a reload of the config.
//!
//! A connection follows its route where an open one can: limits, times, sizes of texts. If the route now
//! leads elsewhere or no longer exists, the client is asked to reconnect, after its messages were relayed.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::{Services, Session, UpstreamMode};
use crate::config::Route;
use crate::replies::ThreadConfig;
use crate::telemetry;

/// What a reload means for a connection of a route.
enum RouteUpdate {
    Unchanged,
    /// An open connection can follow the change.
    Changed(Arc<Route>),
    /// The route no longer exists, or leads elsewhere.
    Replaced,
}

impl Services {
    /// Puts a new configuration into effect on this thread. Sessions that cannot follow it are closed, spread
    /// over the time of a drain.
    pub async fn apply_config(self: &Rc<Self>, config: ThreadConfig) {
        let over = config.config.shutdown.drain;
        self.registry.set_routes(&config.config.routes);
        self.replies.set_config(config);
        let mut closing = VecDeque::new();
        self.registry
            .for_each(|session| {
                if !session.apply_route_update() {
                    closing.push_back(Rc::clone(session));
                }
            })
            .await;
        if !closing.is_empty() {
            telemetry::process::connections_rerouted(closing.len());
            let services = Rc::clone(self);
            tokio::task::spawn_local(async move {
                services.registry.close_gradually(closing, over).await;
            });
        }
    }
}

impl Session {
    /// Follows a change of the session's route. Returns false if an open connection cannot follow it.
    pub(super) fn apply_route_update(&self) -> bool {
        let config = self.services.config();
        let update = route_update(&config, &self.client.route.borrow(), self.client.upstream);
        match update {
            RouteUpdate::Unchanged => true,
            RouteUpdate::Changed(route) => {
                self.client.route.replace(route);
                true
            }
            RouteUpdate::Replaced => !self.socket.is_open(),
        }
    }
}

fn route_update(thread: &ThreadConfig, route: &Arc<Route>, upstream: UpstreamMode) -> RouteUpdate {
    let Some(now) = thread.config.routes.iter().find(|other| other.path == route.path) else {
        return RouteUpdate::Replaced;
    };
    if Arc::ptr_eq(now, route) || now == route {
        RouteUpdate::Unchanged
    } else if can_follow(route, now) && upstream == UpstreamMode::of(thread, now) {
        RouteUpdate::Changed(Arc::clone(now))
    } else {
        RouteUpdate::Replaced
    }
}

/// Whether everything is the same that is fixed when a connection opens.
fn can_follow(from: &Route, to: &Route) -> bool {
    from.channel == to.channel
        && from.upstream == to.upstream
        && from.protocol == to.protocol
        && from.binary == to.binary
        && from.presence == to.presence
        && (from.history.size > 0) == (to.history.size > 0)
}
