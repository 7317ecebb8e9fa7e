//! Proxied requests and the proxy's upstream.

use std::net::IpAddr;
use std::time::Duration;

use tracing::{info, warn};

use super::definitions::{buckets, metrics, words};
use crate::protocol::label_enum;

metrics! {
    /// Proxied requests, by the class of the response's status, or why the gateway answered instead of the upstream. One
    /// whose answer broke off counts twice.
    PROXY_REQUESTS = counter "tidegate_proxy_requests_total" [outcome: words(&[StatusClass::LABELS, ProxyFailure::LABELS])];
    /// Proxied requests that were sent again, because the upstream had closed the connection that they met.
    PROXY_RETRIES = counter "tidegate_proxy_retries_total";
    /// Time from a proxied request to the head of its response.
    PROXY_DURATION = histogram "tidegate_proxy_duration_seconds" in buckets::REQUEST;
}

label_enum! {
    /// The class of an HTTP status.
    enum StatusClass {
        Informational => "1xx",
        Success => "2xx",
        Redirection => "3xx",
        ClientError => "4xx",
        ServerError => "5xx",
    }
}

label_enum! {
    /// Why the gateway answered a proxied request instead of the upstream.
    pub enum ProxyFailure {
        NoUpstream => "no_upstream",
        /// The target of the request is not a path.
        BadTarget => "bad_target",
        /// The upstream cannot be reached, or closed the connection without an answer.
        Unreachable => "unreachable",
        /// The head of the upstream's answer is too large.
        HeadTooLarge => "head_too_large",
        /// The upstream's answer is not HTTP/1.1.
        Malformed => "malformed",
        TimedOut => "timed_out",
        /// The body of the request did not arrive in time.
        ClientTimedOut => "client_timed_out",
        /// The body of the request is malformed, or the client broke off.
        BadBody => "bad_body",
        /// The upstream switched protocols.
        Switched => "switched",
        /// The upstream's answer broke off, or its body is malformed; the client has its head.
        BrokenOff => "broken_off",
        /// It was not sent, because `max_in_flight` was reached.
        Full => "full",
        /// It was not sent, because its client's address holds its share of `max_in_flight`.
        ShareFull => "share_full",
    }
}

/// The proxy's upstream answered with this status; `took` is the time to the head of its response.
pub fn answered(status: u16, took: Duration) {
    let class = match status {
        100..200 => StatusClass::Informational,
        200..300 => StatusClass::Success,
        300..400 => StatusClass::Redirection,
        400..500 => StatusClass::ClientError,
        _ => StatusClass::ServerError,
    };
    PROXY_REQUESTS.at([class.label()]).increment(1);
    PROXY_DURATION.get().record(took);
}

/// The gateway answered a proxied request instead of the upstream.
pub fn failed(failure: ProxyFailure) {
    PROXY_REQUESTS.at([failure.label()]).increment(1);
}

/// The body of an answer of the proxy's upstream failed.
pub fn broken_off(error: &str) {
    failed(ProxyFailure::BrokenOff);
    unreachable(ProxyFailure::BrokenOff, error);
}

/// A request of this address was not sent to the proxy's upstream, because a bound of requests in flight is reached.
pub fn refused(failure: ProxyFailure, ip: IpAddr) {
    failed(failure);
    let cause = failure.label();
    const TEXT: &str = "too many requests to the proxy's upstream are in progress";
    match failure {
        ProxyFailure::ShareFull => info!(event = "proxy_refused", cause, %ip, "{TEXT}"),
        _ => warn!(event = "proxy_refused", cause, %ip, "{TEXT}"),
    }
}

/// A request to the proxy's upstream failed.
pub fn unreachable(failure: ProxyFailure, error: &str) {
    let cause = failure.label();
    warn!(event = "proxy_failed", cause, error, "the proxy's upstream gave no valid answer");
}

/// A request to the proxy's upstream is sent again: the upstream had closed the connection before.
pub fn retried() {
    PROXY_RETRIES.get().increment(1);
}
