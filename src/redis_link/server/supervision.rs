//! Opens the connection to a server, and probes what its users need.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Link, PROBE_INTERVAL, PROBE_RETRY, Shared};
use crate::redis_link::open;
use crate::redis_link::probe::{Needs, ProbeError, Transactions, probe};
use crate::redis_link::{ConnectionError, ConnectionEvent, Health, MonitoredLink, Supervised};
use crate::telemetry;

/// The only writer of `shared.link`.
pub(super) struct Supervisor {
    pub shared: Arc<Shared>,
    pub transactions: Transactions,
}

impl Supervisor {
    /// Probes what the users need. `Err` if the connection can no longer be used.
    async fn probe(&mut self, link: &mut MonitoredLink) -> Result<(), ConnectionError> {
        let needs: Vec<Needs> = self.shared.needs().values().cloned().collect();
        let could = self.transactions != Transactions::Refused;
        let slots = self.shared.slots.as_ref();
        let outcome = probe(&mut link.connection, &mut self.transactions, &needs, slots).await;
        if could && self.transactions == Transactions::Refused {
            telemetry::engine::redis_probe_limited(self.shared.name);
        }
        let is_stuck = matches!(outcome, Err(ProbeError::Stuck));
        self.shared.record_probe(outcome);
        if is_stuck { Err("DISCARD was refused after MULTI".into()) } else { Ok(()) }
    }
}

impl Supervised for Supervisor {
    type Connection = MonitoredLink;

    async fn connect(&mut self, health: &Health) -> Result<MonitoredLink, ConnectionError> {
        let client = self.shared.primary.client().await?;
        let mut link = open::connect_for_commands(&client, health).await?;
        self.transactions = Transactions::Unknown;
        self.probe(&mut link).await?;
        // The link is published before the connection is reported, so that it can be used after the report. What
        // Redis refuses is refused to each user by itself.
        self.shared.set(Some(Link { monitored: link.clone(), health: health.clone() }));
        Ok(link)
    }

    fn links_to_check(&self, link: &MonitoredLink) -> Vec<MonitoredLink> {
        vec![link.clone()]
    }

    async fn serve(
        &mut self,
        mut link: MonitoredLink,
        mut lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError {
        let shared = Arc::clone(&self.shared);
        loop {
            let is_refusing = shared.problem.load().is_some();
            let pause = if is_refusing { PROBE_RETRY } else { PROBE_INTERVAL };
            tokio::select! {
                error = &mut lost => return error,
                () = tokio::time::sleep(pause) => {}
                () = shared.needs_changed.notified() => {}
            }
            tokio::select! {
                error = &mut lost => return error,
                probed = self.probe(&mut link) => if let Err(error) = probed {
                    return error;
                }
            }
        }
    }

    fn disconnected(&mut self) {
        self.shared.set(None);
    }

    fn record(&self, event: ConnectionEvent<'_>) {
        event.record(self.shared.name);
        match event {
            ConnectionEvent::Connected { .. } => {
                let is_accepted = self.shared.problem.load().is_none();
                telemetry::engine::redis_usable(self.shared.name, is_accepted);
            }
            ConnectionEvent::ConnectFailed { reason, .. } | ConnectionEvent::Lost { reason } => {
                self.shared.record_down(reason);
            }
        }
    }
}
