//! Why a request to the proxy's upstream failed, and what the client is told.

use std::net::IpAddr;

use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::ProxyBody;
use super::framing::UnknownCoding;
use super::upload::{ClientFault, Stalled};
use crate::http_client::{self, Failure};
use crate::telemetry;
use crate::telemetry::proxy::ProxyFailure;
use crate::upstream::RequestEnd;

/// When a client may try again that met a bound.
const RETRY_SECONDS: u64 = 1;

/// Refuses a request of `client` that met a bound.
pub fn refuse(failure: ProxyFailure, client: IpAddr) -> Response<ProxyBody> {
    telemetry::proxy::refused(failure, client);
    to_response(failure)
}

/// A request that got no answer from its upstream.
pub(super) struct Failed {
    pub failure: ProxyFailure,
    /// What that says about the replica.
    pub end: RequestEnd,
}

/// Names the failure of a request, and logs it as the upstream's.
pub(super) fn of_upstream(error: &http_client::RequestError) -> Failed {
    let (failure, end) = match http_client::failure(error) {
        Failure::HeadTooLarge => (ProxyFailure::HeadTooLarge, RequestEnd::Answered),
        Failure::Malformed => (ProxyFailure::Malformed, RequestEnd::Failed),
        Failure::Lost => (ProxyFailure::Unreachable, RequestEnd::Failed),
        Failure::Unreachable => (ProxyFailure::Unreachable, RequestEnd::Unreachable),
    };
    telemetry::proxy::unreachable(failure, &http_client::error_chain(error));
    Failed { failure, end }
}

/// Logs an answer whose body cannot be passed on.
pub(super) fn of_framing(_: UnknownCoding) -> Failed {
    let reason = "it has a transfer coding other than chunked";
    telemetry::proxy::unreachable(ProxyFailure::Malformed, reason);
    Failed { failure: ProxyFailure::Malformed, end: RequestEnd::Failed }
}

/// Logs an answer that broke off. The connection to the client is closed, so that the client does not take it for whole.
pub(super) fn of_body(error: hyper::Error) -> hyper::Error {
    telemetry::proxy::broken_off(&http_client::error_chain(&error));
    error
}

/// A request that the client did not send as it should.
pub(super) fn of_client(fault: ClientFault) -> Failed {
    let failure = match fault {
        ClientFault::TooSlow => ProxyFailure::ClientTimedOut,
        ClientFault::Broken => ProxyFailure::BadBody,
    };
    Failed { failure, end: RequestEnd::Unknown }
}

/// A request that was given up because nothing happened for too long.
pub(super) fn of_stall(stalled: Stalled) -> Failed {
    match stalled {
        Stalled::Client => {
            Failed { failure: ProxyFailure::ClientTimedOut, end: RequestEnd::Unknown }
        }
        Stalled::Upstream => Failed { failure: ProxyFailure::TimedOut, end: RequestEnd::Failed },
    }
}

/// The answer that the client gets instead of the upstream's.
pub(super) fn to_response(failure: ProxyFailure) -> Response<ProxyBody> {
    let (status, error) = match failure {
        ProxyFailure::NoUpstream => (StatusCode::NOT_FOUND, "not found"),
        ProxyFailure::BadTarget => (StatusCode::BAD_REQUEST, "the request target is not a path"),
        ProxyFailure::BadBody => {
            (StatusCode::BAD_REQUEST, "the request body is malformed or incomplete")
        }
        ProxyFailure::Unreachable => (StatusCode::BAD_GATEWAY, "the service cannot be reached"),
        ProxyFailure::HeadTooLarge => {
            (StatusCode::BAD_GATEWAY, "the head of the service's answer is too large")
        }
        ProxyFailure::Malformed | ProxyFailure::BrokenOff => {
            (StatusCode::BAD_GATEWAY, "the service's answer is malformed")
        }
        ProxyFailure::ClientTimedOut => {
            (StatusCode::REQUEST_TIMEOUT, "timed out reading the request body")
        }
        ProxyFailure::Switched => (StatusCode::BAD_GATEWAY, "the service switched protocols"),
        ProxyFailure::TimedOut => {
            (StatusCode::GATEWAY_TIMEOUT, "the service did not answer in time")
        }
        ProxyFailure::Full => {
            (StatusCode::SERVICE_UNAVAILABLE, "too many requests are in progress; try again")
        }
        ProxyFailure::ShareFull => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests of this address are in progress; try again",
        ),
    };
    let body = serde_json::json!({ "error": error, "code": failure.label() }).to_string();
    let body = Full::from(body).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(failure, ProxyFailure::Full | ProxyFailure::ShareFull) {
        headers.insert(header::RETRY_AFTER, RETRY_SECONDS.into());
    }
    response
}
