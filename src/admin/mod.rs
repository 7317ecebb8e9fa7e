//! The admin port: `/metrics`, `/livez`, `/readyz` and the server API under `/v1`.

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::broker::Publisher;
use crate::config;
use crate::shutdown::Shutdown;
use crate::tokens::TokenStore;

/// One thing that must be so for the node to be ready. Called at each `/readyz`.
pub type ReadyCheck = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// What the admin port needs.
pub struct Admin {
    pub settings: config::Admin,
    pub token_ttl: std::time::Duration,
    pub max_publication_bytes: usize,
    pub publisher: Publisher,
    pub tokens: TokenStore,
    /// Name and check.
    pub ready: Vec<(&'static str, ReadyCheck)>,
    pub metrics: metrics_exporter_prometheus::PrometheusHandle,
    pub shutdown: Shutdown,
}

impl Admin {
    /// Serves until killed; health and metrics go on while draining.
    pub async fn serve(self, listener: TcpListener) {
        let _ = listener;
        todo!()
    }
}
