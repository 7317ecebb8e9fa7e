//! Facts about handshakes.

use std::net::IpAddr;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::definitions::{ROUTE, buckets, metrics, words};
use super::log::AUDIT;
use super::tokens::CREDENTIAL_REJECTIONS;
use crate::protocol::{ChannelName, ConnectionId, RequestId, UserId};

metrics! {
    /// WebSocket handshakes: admitted, or why not.
    HANDSHAKES = counter "tidegate_handshakes_total" [
        route: ROUTE,
        outcome: words(&[&[ADMITTED], REJECTIONS, CREDENTIAL_REJECTIONS]),
    ];
    /// From an upgrade request to its decision.
    HANDSHAKE_DURATION = histogram "tidegate_handshake_duration_seconds" in buckets::REQUEST;
    /// Authorize URLs that gave no decision.
    AUTHORIZE_FAILURES = counter "tidegate_authorize_failures_total";
    /// Requests to the token endpoint that got no token.
    TOKEN_REQUESTS_REFUSED = counter "tidegate_token_requests_refused_total" [
        cause: words(&[&["bad_request", "method", "csrf", "body"], REJECTIONS, CREDENTIAL_REJECTIONS]),
    ];
}

const ADMITTED: &str = "admitted";

/// Why a client stays out, whatever its credentials.
const REJECTIONS: &[&str] = &[
    "origin",
    "no_credentials",
    "several_cookies",
    "channel",
    "authorize",
    "authorize_unavailable",
    "connects",
    "connections",
    "connections_per_ip",
];

/// What is known of a client while it knocks.
#[derive(Clone, Copy)]
pub struct Visitor<'a> {
    pub route: &'a str,
    /// What its connection is called if it is let in.
    pub connection: ConnectionId,
    pub request: &'a RequestId,
    pub ip: IpAddr,
}

/// As whom a client was let in, and to what; a route that only answers knows neither.
#[derive(Clone, Copy, Default)]
pub struct Admitted<'a> {
    pub user: Option<&'a UserId>,
    pub channel: Option<&'a ChannelName>,
}

/// A handshake was decided; `Err` says why it was refused.
pub fn finished(
    visitor: Visitor<'_>,
    decision: Result<Admitted<'_>, &'static str>,
    took: Duration,
) {
    let outcome = decision.err().unwrap_or(ADMITTED);
    HANDSHAKES.at([visitor.route.to_owned(), outcome.to_owned()]).increment(1);
    HANDSHAKE_DURATION.get().record(took);
    let Visitor { route, connection, request, ip } = visitor;
    let took_ms = millis(took);
    match decision {
        Err(cause) => info!(
            event = "handshake_refused", %connection, %request, %ip, route, cause, took_ms,
            "a handshake was refused"
        ),
        Ok(Admitted { user, channel }) => debug!(
            event = "handshake_admitted",
            %connection,
            %request,
            user = user.map(tracing::field::display),
            channel = channel.map(ChannelName::as_str),
            %ip,
            route,
            took_ms,
            "a client was let in"
        ),
    }
}

/// The backend that decides about channels gave no decision.
pub fn authorize_failed(route: &str, connection: ConnectionId, request: &RequestId, why: &str) {
    AUTHORIZE_FAILURES.get().increment(1);
    warn!(
        event = "authorize_failed",
        %connection,
        %request,
        route,
        why,
        "the authorize URL gave no decision; the client stays out"
    );
}

/// The token endpoint gave no token; `cause` is a word of a fixed set. An audit event.
pub fn issue_refused(cause: &'static str) {
    TOKEN_REQUESTS_REFUSED.at([cause]).increment(1);
    info!(target: AUDIT, event = "issue_refused", cause, "the token endpoint gave no token");
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
