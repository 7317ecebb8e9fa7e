//! Client connections: the listener, handshakes, open and closed connections.

use std::collections::HashMap;
use std::error::Error as _;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, SharedString};
use tracing::{debug, error, info, warn};

use super::credentials::{RefusalDetails, RejectionCause};
use super::definitions::{ROUTE, buckets, metrics, millis, words};
use super::log::{ConnectionFields, connection_event};
use super::messages::{LocalLimit, local_limit_refused};
use super::recent_errors::{self, ErrorScope, Occurrence};
use crate::protocol::{
    ChannelName, ClientNetwork, CloseReason, ConnectionId, HeadMistake, RequestId, UserId,
    label_enum,
};

metrics! {
    /// Open connections of the public port, WebSockets and plain HTTP alike.
    CLIENT_SOCKETS = gauge "tidegate_client_sockets";
    /// Limit of open connections, from `[server] max_connections`.
    CLIENT_SOCKETS_MAX = gauge "tidegate_client_sockets_max";
    /// Open connections over HTTP/2. Each socket on one counts in `tidegate_client_sockets` as well.
    HTTP2_CONNECTIONS = gauge "tidegate_http2_connections";
    /// Streams of these connections: requests, and extended CONNECTs (WebSockets).
    HTTP2_STREAMS = counter "tidegate_http2_streams_total" [kind: words(&[StreamKind::LABELS])];
    /// Connections that the operating system failed to accept.
    ACCEPT_ERRORS = counter "tidegate_accept_errors_total";
    /// Requests that HTTP does not allow, and connections that ended in the middle of a request.
    HTTP_ERRORS = counter "tidegate_http_errors_total" [cause: words(&[HttpError::LABELS])];
    /// Connections that were closed because of the header of the PROXY protocol with which they must begin.
    PROXY_HEADERS = counter "tidegate_proxy_headers_refused_total" [cause: words(&[ProxyHeaderFault::LABELS])];
    /// Requests whose `Forwarded` and `X-Forwarded-*` named different clients; neither was believed.
    FORWARDING_DISAGREEMENTS = counter "tidegate_forwarding_disagreements_total";
    /// WebSocket handshakes: admitted, or the reason of the rejection.
    HANDSHAKES = counter "tidegate_handshakes_total" [
        route: ROUTE,
        outcome: words(&[HandshakeOutcome::LABELS]),
    ];
    /// Requests of a route's path that are no handshakes and were not passed on to its upstream.
    ROUTE_REQUESTS_REFUSED = counter "tidegate_route_requests_refused_total" [
        route: ROUTE,
        cause: words(&[RejectionCause::LABELS]),
    ];
    /// Time from an upgrade request to its decision.
    HANDSHAKE_DURATION = histogram "tidegate_handshake_duration_seconds" in buckets::REQUEST;
    /// Refused clients that were accepted in order to be closed: whether their close waits (`[server] refusal_delay`),
    /// or comes at once because too many wait already.
    REFUSALS_DELAYED = counter "tidegate_refusal_closes_total" [close: words(&[RefusalClose::LABELS])];
    /// Calls of an authorize URL that gave no decision.
    AUTHORIZE_FAILURES = counter "tidegate_authorize_failures_total";
    /// Open WebSocket connections.
    CONNECTIONS = gauge "tidegate_connections" [route: ROUTE];
    /// Closed WebSocket connections, by who closed them and why.
    CLOSES = counter "tidegate_closes_total" [
        route: ROUTE,
        by: words(&[ClosedBy::LABELS]),
        reason: words(&[CloseCause::LABELS]),
    ], late;
    /// Bytes queued for slow clients, measured once a second.
    SEND_QUEUE = gauge "tidegate_send_queue_bytes";
}

label_enum! {
    /// When a refused client is closed.
    enum RefusalClose {
        Waits => "waits",
        AtOnce => "at_once",
    }
}

/// The counter of admitted handshakes of each route and fixed reply that had one. Each configuration adds only its own.
static ADMITTED: LazyLock<RwLock<HashMap<Box<str>, Counter>>> = LazyLock::new(RwLock::default);
static DURATION: LazyLock<Histogram> = LazyLock::new(|| HANDSHAKE_DURATION.get());
static OPEN_SOCKETS: LazyLock<Gauge> = LazyLock::new(|| CLIENT_SOCKETS.get());
static QUEUED_BYTES: LazyLock<Gauge> = LazyLock::new(|| SEND_QUEUE.get());

/// A connection of the public port was accepted.
pub fn client_socket_opened() {
    OPEN_SOCKETS.increment(1.0);
}

/// A connection of the public port was closed.
pub fn client_socket_closed() {
    OPEN_SOCKETS.decrement(1.0);
}

label_enum! {
    /// What a stream of HTTP/2 begins with.
    pub enum StreamKind {
        Request => "request",
        Connect => "connect",
    }
}

/// An open connection over HTTP/2.
pub struct Http2Gauge(());

impl Http2Gauge {
    pub fn open() -> Self {
        HTTP2_CONNECTIONS.get().increment(1.0);
        Self(())
    }
}

impl Drop for Http2Gauge {
    fn drop(&mut self) {
        HTTP2_CONNECTIONS.get().decrement(1.0);
    }
}

/// A client has begun a stream.
pub fn http2_stream_opened(kind: StreamKind) {
    HTTP2_STREAMS.at([kind.label()]).increment(1);
}

/// The limit of open connections is set or changed.
pub fn client_sockets_limited(max: usize) {
    CLIENT_SOCKETS_MAX.get().set(max as f64);
}

/// The operating system failed to accept a connection.
pub fn accept_failed(error: &std::io::Error) {
    ACCEPT_ERRORS.get().increment(1);
    error!(event = "accept_failed", %error, "failed to accept a connection");
}

/// A limit refused a connection when it was accepted, or a request behind a trusted proxy. `network` is the client's,
/// or the peer's if the client is not known yet.
pub fn connection_refused(limit: LocalLimit, network: ClientNetwork) {
    local_limit_refused(limit);
    let is_of_one_client = matches!(
        limit,
        LocalLimit::ConnectsPerIp | LocalLimit::ConnectionsPerIp | LocalLimit::RequestsPerIp
    );
    let limit = limit.label();
    // The fields are the same, so that one search finds both.
    if is_of_one_client {
        info!(event = "connection_refused", limit, %network, "an address is over a limit");
    } else {
        warn!(event = "node_full", limit, %network, "this node takes no more connections");
    }
}

label_enum! {
    /// Why a connection ended in the middle of a request.
    pub enum HttpError {
        /// The head of a request did not arrive in time.
        Timeout => "timeout",
        TooLarge => "too_large",
        Malformed => "malformed",
        /// The client took the response too slowly.
        TooSlow => "too_slow",
        /// A client of HTTP/2 reset most of its requests before they were answered.
        Resets => "resets",
        /// The connection was reset or closed.
        Broken => "broken";
        Head(HeadMistake),
    }
}

/// A connection ended before its request was answered, by a rule of the gateway.
pub fn http_ended(cause: HttpError) {
    let cause = cause.label();
    HTTP_ERRORS.at([cause]).increment(1);
    debug!(event = "http_ended", cause, "a connection was ended in the middle of a request");
}

/// The head of a request is not valid in HTTP/1.1; it is answered with an error.
pub fn http_head_refused(mistake: HeadMistake, peer: IpAddr) {
    let cause = HttpError::Head(mistake).label();
    HTTP_ERRORS.at([cause]).increment(1);
    debug!(event = "http_head_refused", cause, %peer, "a request was refused because of its head");
}

/// A connection ended in the middle of a request: its head was slow, too large or malformed, or it was reset. An answer
/// that broke off is a failure of the proxy's upstream.
pub fn http_failed(error: &hyper::Error) {
    if error.is_user() && error.source().is_some() {
        return;
    }
    let cause = if error.is_timeout() {
        HttpError::Timeout
    } else if error.is_parse_too_large() {
        HttpError::TooLarge
    } else if error.is_parse() {
        HttpError::Malformed
    } else {
        HttpError::Broken
    };
    let cause = cause.label();
    HTTP_ERRORS.at([cause]).increment(1);
    debug!(event = "http_failed", cause, %error, "a connection ended in the middle of a request");
}

label_enum! {
    /// Why a connection is closed because of the header that `[server] proxy_protocol` requires.
    pub enum ProxyHeaderFault {
        /// The peer is not in `trusted_proxies`.
        Untrusted => "untrusted",
        /// What has come is no such header.
        Malformed => "malformed",
        TooLarge => "too_large",
        /// It did not arrive in time.
        Timeout => "timeout",
        /// The connection ended in the middle of it.
        Incomplete => "incomplete",
    }
}

/// A connection of `peer` is closed, because it does not begin with a header of a trusted load balancer.
pub fn proxy_header_refused(fault: ProxyHeaderFault, peer: IpAddr) {
    let cause = fault.label();
    PROXY_HEADERS.at([cause]).increment(1);
    warn!(event = "proxy_header_refused", cause, %peer, "a connection has no header of the PROXY protocol from a trusted proxy");
}

/// A request through the trusted proxy `peer` has both kinds of forwarding headers, and they contradict each other.
pub fn forwarding_disagreed(peer: IpAddr) {
    FORWARDING_DISAGREEMENTS.get().increment(1);
    warn!(
        event = "forwarding_disagreed",
        %peer,
        "Forwarded and X-Forwarded-* name different clients, so neither is believed: say in server.forwarding_header which \
         your proxies set"
    );
}

/// A refused client is closed after `delay`, or at once if too many refused clients wait already.
pub fn refusal_delayed(network: ClientNetwork, delay: Duration, waits: bool) {
    let close = if waits { RefusalClose::Waits } else { RefusalClose::AtOnce }.label();
    REFUSALS_DELAYED.at([close]).increment(1);
    let delay_ms = millis(delay);
    debug!(event = "refusal_delayed", %network, close, delay_ms, "the close of a refused client waits");
}

/// A client's attempt to connect.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    pub route: &'a str,
    /// The id that the connection has if it is admitted.
    pub connection: ConnectionId,
    pub request: &'a RequestId,
    pub ip: IpAddr,
}

/// The user and the channel of an admitted client; a fixed-reply route knows neither.
#[derive(Clone, Copy, Default)]
pub struct Admitted<'a> {
    pub user: Option<&'a UserId>,
    pub channel: Option<&'a ChannelName>,
}

label_enum! {
    /// The outcome of a handshake.
    pub enum HandshakeOutcome {
        Admitted => "admitted";
        Rejected(RejectionCause),
    }
}

fn count_admitted(route: &str) {
    let counted = ADMITTED.read().unwrap_or_else(PoisonError::into_inner).get(route).cloned();
    let counter = counted.unwrap_or_else(|| {
        let counter = HANDSHAKES.at([route, HandshakeOutcome::Admitted.label()].map(str::to_owned));
        let mut all = ADMITTED.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(route.into(), counter.clone());
        counter
    });
    counter.increment(1);
}

/// A handshake was decided; `Err` is the reason of the rejection, and `details` are about it.
pub fn handshake_finished(
    attempt: Attempt<'_>,
    decision: Result<Admitted<'_>, RejectionCause>,
    details: RefusalDetails<'_>,
    took: Duration,
) {
    let outcome = decision.err().map_or(HandshakeOutcome::Admitted, HandshakeOutcome::Rejected);
    match decision {
        Ok(_) => count_admitted(attempt.route),
        Err(_) => HANDSHAKES.at([attempt.route.to_owned(), outcome.to_string()]).increment(1),
    }
    DURATION.record(took);
    let Attempt { route, connection, request, ip } = attempt;
    let took_ms = millis(took);
    if let Err(cause) = decision
        && (details.user.is_some() || details.channel.is_some())
    {
        recent_errors::record(Occurrence {
            scope: ErrorScope::Handshake,
            code: cause.label(),
            connection: Some(connection),
            user: details.user,
            channel: details.channel,
            task: None,
        });
    }
    match decision {
        Err(cause) => info!(
            event = "handshake_refused",
            %connection,
            %request,
            %ip,
            route,
            cause = cause.label(),
            origin = details.origin,
            user = details.user.map(tracing::field::display),
            channel = details.channel,
            check = details.check(),
            claim = details.claim(),
            took_ms,
            "handshake rejected"
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
            "handshake admitted"
        ),
    }
}

/// A request that is no handshake does not go to the upstream of its route.
pub fn request_refused(attempt: Attempt<'_>, cause: RejectionCause, details: RefusalDetails<'_>) {
    let Attempt { route, request, ip, .. } = attempt;
    ROUTE_REQUESTS_REFUSED.at([route.to_owned(), cause.to_string()]).increment(1);
    info!(
        event = "request_refused",
        %request,
        %ip,
        route,
        cause = cause.label(),
        origin = details.origin,
        user = details.user.map(tracing::field::display),
        channel = details.channel,
        check = details.check(),
        claim = details.claim(),
        "a request is not passed on to the upstream of its route"
    );
}

/// The authorize URL gave no decision about a channel, so that the client is rejected.
pub fn authorize_failed(route: &str, connection: ConnectionId, request: &RequestId, why: &str) {
    AUTHORIZE_FAILURES.get().increment(1);
    warn!(
        event = "authorize_failed",
        %connection,
        %request,
        route,
        why,
        "the authorize URL gave no decision; the client is rejected"
    );
}

label_enum! {
    /// Who closed a connection.
    pub enum ClosedBy {
        Gateway => "gateway",
        /// Your server, through the server API.
        Server => "server",
        Client => "client",
        /// The upstream of a pass route.
        Upstream => "upstream",
    }
}

label_enum! {
    /// Why a connection was closed.
    pub enum CloseCause {
        /// The client sent a close frame.
        Closed => "closed",
        /// The connection ended without a close frame.
        Lost => "lost";
        Reason(CloseReason),
    }
}

/// Where a client comes from.
#[derive(Clone, Copy)]
pub struct ClientOrigin<'a> {
    pub address: IpAddr,
    /// The `Origin` of its handshake, if there was one.
    pub origin: Option<&'a str>,
}

/// The connections of one route.
pub struct ConnectionMetrics {
    route: Arc<str>,
    open: Gauge,
    closes: Vec<(ClosedBy, CloseCause, Counter)>,
}

impl ConnectionMetrics {
    pub(super) fn new(route: Arc<str>) -> Self {
        let label = SharedString::from(Arc::clone(&route));
        let by_client =
            [CloseCause::Closed, CloseCause::Lost].map(|cause| (ClosedBy::Client, cause));
        let by_upstream =
            [CloseCause::Closed, CloseCause::Lost].map(|cause| (ClosedBy::Upstream, cause));
        let by_gateway =
            CloseReason::ALL.iter().map(|r| (ClosedBy::Gateway, CloseCause::Reason(*r)));
        let by_server = [(ClosedBy::Server, CloseCause::Reason(CloseReason::Disconnected))];
        let counters = by_client.into_iter().chain(by_upstream).chain(by_gateway).chain(by_server);
        let counters = counters.map(|(by, cause)| {
            (by, cause, CLOSES.at([label.clone(), by.label().into(), cause.label().into()]))
        });
        Self { closes: counters.collect(), open: CONNECTIONS.at([label.clone()]), route }
    }

    /// An admitted client is connected.
    pub fn opened(&self, fields: ConnectionFields<'_>) {
        self.open.increment(1);
        let route = &*self.route;
        connection_event!(debug, fields, event = "connection_opened", route, "connection opened");
    }

    /// The connection is closed, with the code of the close frame or 1005 or 1006 where there was none.
    pub fn closed(
        &self,
        fields: ConnectionFields<'_>,
        from: ClientOrigin<'_>,
        by: ClosedBy,
        code: u16,
        cause: CloseCause,
    ) {
        self.open.decrement(1);
        let closes = self.closes.iter().find(|closes| (closes.0, closes.1) == (by, cause));
        debug_assert!(closes.is_some(), "closed by {by}, {cause}");
        if let Some((_, _, closes)) = closes {
            closes.increment(1);
        }
        if let CloseCause::Reason(reason) = cause
            && !matches!(reason, CloseReason::Normal | CloseReason::Restarting)
        {
            recent_errors::record(Occurrence {
                scope: ErrorScope::Close,
                code: reason.label(),
                connection: Some(fields.connection),
                user: fields.user,
                channel: fields.channel.map(ChannelName::as_str),
                task: None,
            });
        }
        let (route, by, reason) = (&*self.route, by.label(), cause.label());
        let ClientOrigin { address, origin } = from;
        connection_event!(
            info,
            fields,
            event = "connection_closed",
            route,
            %address,
            origin,
            by,
            code,
            reason,
            "connection closed"
        );
    }
}

/// A panic in the session of this connection, which is closed for it with 1011. The others are not affected.
pub fn session_panicked(fields: ConnectionFields<'_>) {
    connection_event!(error, fields, event = "session_panicked", "a panic closes this connection");
}

/// Bytes that are queued for the connections of one thread, at the last measurement and now.
pub fn send_queues_measured(before: usize, now: usize) {
    if now != before {
        QUEUED_BYTES.increment(now as f64 - before as f64);
    }
}
