//! Connections for commands that a thread has for itself.
//!
//! The shared connection is driven by the engine thread: a command of another thread wakes that thread, and its answer
//! wakes the other one, which takes longer than the command. A connection of the thread's own wakes nobody. It is only
//! used while the shared one is up, which decides and reports whether Redis can be reached; until it is open, and after
//! it is lost, commands go over the shared one.

use std::cell::RefCell;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::server::{Link, ServerCommands, Shared};
use super::{ConnectionError, ConnectionEvent, Health, MonitoredLink, Supervised};
use super::{open, supervise};
use crate::shutdown::Shutdown;

thread_local! {
    /// The connections of this thread, each with the shared one that it stands in for.
    static LINKS: RefCell<Vec<(Arc<Shared>, Arc<Link>)>> = const { RefCell::new(Vec::new()) };
}

/// The connection for a command of the current thread; `None` while Redis cannot be reached.
pub(super) fn choose(shared: &Arc<Shared>) -> Option<Arc<Link>> {
    let common = shared.link.load();
    let common = common.as_ref()?;
    let own = LINKS.with_borrow(|links| {
        let found = links.iter().find(|(of, _)| Arc::ptr_eq(of, shared));
        // One that is to be given up may lead to a server that is not the primary any more.
        found
            .filter(|(_, link)| link.health.give_up_reason().is_none())
            .map(|(_, link)| link.clone())
    });
    Some(own.unwrap_or_else(|| Arc::clone(common)))
}

impl ServerCommands {
    /// Keeps a connection for the commands of the current thread, until the process is killed or this is dropped. Does
    /// nothing on the thread that drives the shared connection.
    pub fn serve_thread(&self, shutdown: &Shutdown) -> impl Future<Output = ()> + use<> {
        let mut connection = ThreadConnection { shared: Arc::clone(&self.shared) };
        let shutdown = shutdown.clone();
        async move {
            if connection.shared.thread != std::thread::current().id() {
                supervise(&mut connection, &shutdown).await;
            }
        }
    }
}

struct ThreadConnection {
    shared: Arc<Shared>,
}

impl Drop for ThreadConnection {
    fn drop(&mut self) {
        self.disconnected();
    }
}

impl Supervised for ThreadConnection {
    type Connection = MonitoredLink;

    async fn connect(&mut self, health: &Health) -> Result<MonitoredLink, ConnectionError> {
        let client = self.shared.primary.client().await?;
        let link = open::connect_for_commands(&client, health).await?;
        let own = Arc::new(Link { monitored: link.clone(), health: health.clone() });
        LINKS.with_borrow_mut(|links| links.push((Arc::clone(&self.shared), own)));
        Ok(link)
    }

    fn links_to_check(&self, link: &MonitoredLink) -> Vec<MonitoredLink> {
        vec![link.clone()]
    }

    async fn serve(
        &mut self,
        _link: MonitoredLink,
        lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError {
        lost.await
    }

    fn disconnected(&mut self) {
        LINKS.with_borrow_mut(|links| links.retain(|(of, _)| !Arc::ptr_eq(of, &self.shared)));
    }

    /// The shared connection reports whether Redis can be reached.
    fn record(&self, _event: ConnectionEvent<'_>) {}
}

#[cfg(test)]
mod tests;
