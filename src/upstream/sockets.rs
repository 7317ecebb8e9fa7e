//! Sockets of WebSocket upstreams, and the requests that go where they are: opened for messages, or for a client's own
//! handshake.

use hyper::{HeaderMap, Uri};
use tokio::time::timeout_at;

use super::{
    ClientHandshake, NO_RESPONSE, PassRefusal, PassedUpstream, Pool, RelayError, SharedUpstreams,
    SocketRequest, UNFIT_FOR_URL, UpstreamSocket, Upstreams, deadline_after, websocket,
};
use crate::config::UpstreamKind;
use crate::telemetry::upstreams::RequestOutcome;

impl Upstreams {
    /// Opens the upstream socket of one client (`kind = "websocket"`).
    pub async fn open_socket(
        &self,
        name: &str,
        request: &SocketRequest<'_>,
    ) -> Result<UpstreamSocket, RelayError> {
        let Some(upstream) = self.shared.get(name) else {
            return Err(RelayError::Unavailable);
        };
        if let UpstreamKind::WebSocket(config) = &upstream.config.kind
            && config.urls.iter().any(|url| websocket::url(url, request).is_err())
        {
            let metrics = &upstream.gate.metrics;
            metrics.request_not_sent(request.log_fields(), RequestOutcome::Rejected);
            return Err(RelayError::rejected(UNFIT_FOR_URL));
        }
        let mut pending = upstream.gate.enter(request.log_fields(), request.sender)?;
        let (UpstreamKind::WebSocket(config), Some(client)) =
            (&upstream.config.kind, self.opening.get(name))
        else {
            return Err(pending.refuse(RelayError::Unavailable, "opens no sockets"));
        };
        let timeout = upstream.config.timeout;
        let deadline = deadline_after(timeout);
        loop {
            let opening = websocket::connect(client, &config.urls[pending.replica()], request);
            return match timeout_at(deadline, opening).await {
                Ok(Ok(stream)) => {
                    let in_flight = pending.accept(RequestOutcome::Taken);
                    Ok(UpstreamSocket::new(stream, request.max_message_bytes, timeout, in_flight))
                }
                // Nothing was sent, so that another replica can be asked.
                Ok(Err((error @ RelayError::Unreachable, reason)))
                    if pending.try_another(&error, &reason) =>
                {
                    continue;
                }
                Ok(Err((error, reason))) => Err(pending.refuse(error, &reason)),
                Err(_) => Err(pending.refuse(RelayError::TimedOut, NO_RESPONSE)),
            };
        }
    }

    /// Carries whole messages over a socket that the upstream called `name` has opened.
    pub fn relay_messages(
        &self,
        name: &str,
        opened: PassedUpstream,
        max_message_bytes: usize,
    ) -> UpstreamSocket {
        let PassedUpstream { stream, in_flight, .. } = opened;
        UpstreamSocket::new(stream, max_message_bytes, self.relay_timeout(name), in_flight)
    }

    /// Opens a socket of an upstream for a client whose own handshake is `handshake`.
    pub async fn pass(
        &self,
        name: &str,
        request: &SocketRequest<'_>,
        handshake: &ClientHandshake,
    ) -> Result<PassedUpstream, PassRefusal> {
        let Some(upstream) = self.shared.get(name) else { return Err(PassRefusal::Unreachable) };
        let (UpstreamKind::WebSocket(config), Some(client)) =
            (&upstream.config.kind, self.opening.get(name))
        else {
            return Err(PassRefusal::Unreachable);
        };
        let entered = upstream.gate.enter(request.log_fields(), request.sender);
        let pending = entered.map_err(|error| match error {
            RelayError::Busy => PassRefusal::Busy,
            _ => PassRefusal::CircuitOpen,
        })?;
        let deadline = deadline_after(upstream.config.timeout);
        websocket::pass(client, &config.urls, request, handshake, pending, deadline).await
    }
}

impl SharedUpstreams {
    /// Returns the replicas of an upstream for clients' requests that are no handshakes.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.get(name).map(|upstream| &upstream.gate.pool)
    }

    /// Returns the URL of a replica of a WebSocket upstream for a client's request that is no handshake, and the headers
    /// that the gateway sets on it. `None` = a value has no place in the URL.
    pub fn request_head(
        &self,
        name: &str,
        replica: usize,
        request: &SocketRequest<'_>,
        handshake: &ClientHandshake,
    ) -> Option<(Uri, HeaderMap)> {
        match &self.get(name)?.config.kind {
            UpstreamKind::WebSocket(config) => {
                websocket::request_head(config.urls.get(replica)?, request, handshake)
            }
            _ => None,
        }
    }
}
