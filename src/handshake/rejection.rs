//! The reasons to refuse a handshake, in one table: close code, HTTP status, text for the client, and label
//! for logs and metrics.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode, header};

use crate::protocol::{CloseReason, ErrorCode, ErrorEvent, UserId};
use crate::telemetry::credentials::{CredentialCause, RefusalDetails, RejectionCause};
use crate::tokens::{CredentialRejection, JwtFailure};

/// Why a client is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub cause: RejectionCause,
    pub reason: CloseReason,
    /// The text for the client, which never says how a credential failed.
    pub message: &'static str,
    /// The seconds to wait, and the code of the error event with them. Present with 4029 and 1013.
    retry: Option<(u64, ErrorCode)>,
    /// The HTTP status, where it does not follow from the cause.
    status: Option<StatusCode>,
    /// For the log.
    details: Option<Box<Details>>,
}

/// What the log says about a refused client beside the cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Details {
    origin: Option<String>,
    user: Option<UserId>,
    channel: Option<String>,
    jwt: Option<JwtFailure>,
}

const NOT_AUTHENTICATED: &str = "not authenticated";
const NOT_ALLOWED: &str = "not allowed";
const TOO_MANY: &str = "too many connections";
const TOO_MANY_REQUESTS: &str = "too many requests";
const NO_SERVICE: &str = "the service cannot be reached";
const TOO_SLOW: &str = "the service did not answer in time";
const FORWARDED_TOO_LARGE: &str =
    "the headers and cookies that the service gets are larger than 8 KiB";
const TRY_AGAIN: &str = "the service cannot decide at the moment; try again";

/// The most characters of a text that a client chose in one field of a log line.
const MAX_LOGGED_CHARS: usize = 256;

/// The time to wait where the duration of an outage is not known.
const TRY_AGAIN_SECONDS: u64 = 5;

impl Rejection {
    const fn new(cause: RejectionCause, reason: CloseReason, message: &'static str) -> Self {
        Self { cause, reason, message, retry: None, status: None, details: None }
    }

    const fn after(mut self, seconds: u64, code: ErrorCode) -> Self {
        self.retry = Some((seconds, code));
        self
    }

    fn details(&mut self) -> &mut Details {
        self.details.get_or_insert_default()
    }

    /// Adds the `Origin` header for the log.
    pub fn with_origin(mut self, origin: Option<&str>) -> Self {
        if let Some(origin) = origin {
            self.details().origin = Some(origin.chars().take(MAX_LOGGED_CHARS).collect());
        }
        self
    }

    /// Adds the user and the channel for the log.
    pub fn with_user(mut self, user: Option<&UserId>, channel: Option<&str>) -> Self {
        self.details().user = user.cloned();
        self.details().channel =
            channel.map(|channel| channel.chars().take(MAX_LOGGED_CHARS).collect());
        self
    }

    /// Returns what the log says beside the cause.
    pub fn log_details(&self) -> RefusalDetails<'_> {
        self.details.as_deref().map_or_else(RefusalDetails::default, |details| RefusalDetails {
            origin: details.origin.as_deref(),
            user: details.user.as_ref(),
            channel: details.channel.as_deref(),
            jwt: details.jwt,
        })
    }

    pub fn origin() -> Self {
        Self::new(RejectionCause::Origin, CloseReason::Forbidden, NOT_ALLOWED)
    }

    pub fn no_credentials() -> Self {
        Self::new(RejectionCause::NoCredentials, CloseReason::Unauthenticated, NOT_AUTHENTICATED)
    }

    /// The request has session cookies of several users, or too many.
    pub fn several_cookies() -> Self {
        Self::new(RejectionCause::SeveralCookies, CloseReason::Unauthenticated, NOT_AUTHENTICATED)
    }

    pub fn credential(rejection: CredentialRejection) -> Self {
        let mut refused = Self::of_credential(rejection);
        if let Some(failure) = rejection.jwt_failure() {
            refused.details().jwt = Some(failure);
        }
        refused
    }

    fn of_credential(rejection: CredentialRejection) -> Self {
        let cause = RejectionCause::Credential(rejection.cause());
        if let Some(code) = rejection.unavailable() {
            return Self::new(cause, CloseReason::Overloaded, TRY_AGAIN)
                .after(TRY_AGAIN_SECONDS, code);
        }
        match rejection {
            CredentialRejection::TokenOrigin | CredentialRejection::TokenBinding => {
                Self::new(cause, CloseReason::Forbidden, NOT_ALLOWED)
            }
            _ => Self::new(cause, CloseReason::Unauthenticated, NOT_AUTHENTICATED),
        }
    }

    pub fn channel() -> Self {
        Self::new(RejectionCause::Channel, CloseReason::Forbidden, NOT_ALLOWED)
    }

    /// The backend refused the client.
    pub fn not_authorized() -> Self {
        Self::new(RejectionCause::Authorize, CloseReason::Forbidden, NOT_ALLOWED)
    }

    /// The backend could not be reached, or gave no decision.
    pub fn authorize_unavailable() -> Self {
        Self::new(RejectionCause::AuthorizeUnavailable, CloseReason::Overloaded, TRY_AGAIN)
            .after(TRY_AGAIN_SECONDS, ErrorCode::UpstreamUnavailable)
    }

    /// Too many clients wait for the backend's decision.
    pub fn authorize_busy() -> Self {
        Self::new(RejectionCause::AuthorizeBusy, CloseReason::Overloaded, TRY_AGAIN)
            .after(TRY_AGAIN_SECONDS, ErrorCode::UpstreamUnavailable)
    }

    /// The engine that stores tokens and limits is not available.
    pub fn engine() -> Self {
        Self::new(
            RejectionCause::Credential(CredentialCause::Engine),
            CloseReason::Overloaded,
            TRY_AGAIN,
        )
        .after(TRY_AGAIN_SECONDS, ErrorCode::EngineUnavailable)
    }

    pub fn connects(retry_after: Duration) -> Self {
        Self::too_many(RejectionCause::Connects, seconds(retry_after))
    }

    pub fn channels(retry_after: Duration) -> Self {
        Self::too_many(RejectionCause::Channels, seconds(retry_after))
    }

    pub fn connections(retry_after: Duration) -> Self {
        Self::too_many(RejectionCause::Connections, seconds(retry_after))
    }

    /// New connections of this client address come too fast.
    pub fn connects_per_ip(retry_after: Duration) -> Self {
        Self::too_many(RejectionCause::ConnectsPerIp, seconds(retry_after))
    }

    pub fn connections_per_ip() -> Self {
        Self::too_many(RejectionCause::ConnectionsPerIp, 10)
    }

    /// Requests of this client address come too fast.
    pub fn requests_per_ip(retry_after: Duration) -> Self {
        let mut rejection = Self::too_many(RejectionCause::RequestsPerIp, seconds(retry_after));
        rejection.message = TOO_MANY_REQUESTS;
        rejection
    }

    /// The upstream answered with this status, and asks to wait for so many seconds.
    pub fn by_upstream(status: StatusCode, retry_after: Option<u64>) -> Self {
        let cause = RejectionCause::UpstreamRefused;
        let seconds = retry_after.unwrap_or(TRY_AGAIN_SECONDS);
        match status {
            StatusCode::UNAUTHORIZED => {
                Self::new(cause, CloseReason::Unauthenticated, NOT_AUTHENTICATED)
            }
            StatusCode::TOO_MANY_REQUESTS => Self::too_many(cause, seconds),
            _ if status.is_client_error() => Self::new(cause, CloseReason::Forbidden, NOT_ALLOWED),
            _ => Self::new(cause, CloseReason::Overloaded, NO_SERVICE)
                .after(seconds, ErrorCode::UpstreamUnavailable),
        }
    }

    /// The upstream cannot be reached, or its answer is not valid.
    pub fn bad_gateway() -> Self {
        Self::new(RejectionCause::UpstreamUnavailable, CloseReason::Overloaded, NO_SERVICE)
            .after(TRY_AGAIN_SECONDS, ErrorCode::UpstreamUnavailable)
    }

    /// No request is sent to the upstream, because it has failed before.
    pub fn circuit_open() -> Self {
        Self { status: Some(StatusCode::SERVICE_UNAVAILABLE), ..Self::bad_gateway() }
    }

    /// The upstream did not answer in time.
    pub fn gateway_timeout() -> Self {
        Self::new(RejectionCause::UpstreamTimeout, CloseReason::Overloaded, TOO_SLOW)
            .after(TRY_AGAIN_SECONDS, ErrorCode::UpstreamUnavailable)
    }

    /// The upstream has no room for this client.
    pub fn upstream_busy() -> Self {
        Self::new(RejectionCause::UpstreamBusy, CloseReason::Overloaded, TRY_AGAIN)
            .after(TRY_AGAIN_SECONDS, ErrorCode::Busy)
    }

    /// The client gave up while its upstream was asked.
    pub fn gone() -> Self {
        Self::new(RejectionCause::Gone, CloseReason::Normal, "")
    }

    /// What the upstream asks for of the handshake is too large to be kept.
    pub fn forwarded_too_large() -> Self {
        let status = Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        let cause = RejectionCause::ForwardedTooLarge;
        Self { status, ..Self::new(cause, CloseReason::Forbidden, FORWARDED_TOO_LARGE) }
    }

    /// The memory budget of this node is used up.
    pub fn memory() -> Self {
        Self::new(RejectionCause::Memory, CloseReason::Overloaded, TRY_AGAIN)
            .after(TRY_AGAIN_SECONDS, ErrorCode::Busy)
    }

    /// This node takes no more connections.
    pub fn node_full() -> Self {
        Self::new(RejectionCause::ConnectionsTotal, CloseReason::Overloaded, TRY_AGAIN)
            .after(TRY_AGAIN_SECONDS, ErrorCode::Busy)
    }

    /// Whether there is no room for a socket, not even for one that is closed at once.
    pub fn is_of_node(&self) -> bool {
        self.cause == RejectionCause::ConnectionsTotal
    }

    /// Whether the client's address is over a limit, so that nothing of the gateway is held for it.
    pub fn is_of_address(&self) -> bool {
        matches!(
            self.cause,
            RejectionCause::ConnectsPerIp
                | RejectionCause::ConnectionsPerIp
                | RejectionCause::RequestsPerIp
        )
    }

    fn too_many(cause: RejectionCause, seconds: u64) -> Self {
        Self::new(cause, CloseReason::TooManyConnections, TOO_MANY)
            .after(seconds, ErrorCode::RateLimited)
    }

    /// Returns the `error` event that precedes the close (`reject = "close"`), if there is a time to wait.
    pub fn event(&self) -> Option<String> {
        let (seconds, code) = self.retry?;
        Some(ErrorEvent::new(code, self.message).retry_after(seconds).to_json())
    }

    fn status(&self) -> StatusCode {
        if let Some(status) = self.status {
            return status;
        }
        match self.cause {
            RejectionCause::UpstreamUnavailable => return StatusCode::BAD_GATEWAY,
            RejectionCause::UpstreamTimeout => return StatusCode::GATEWAY_TIMEOUT,
            _ => {}
        }
        match self.reason {
            CloseReason::Unauthenticated => StatusCode::UNAUTHORIZED,
            CloseReason::Forbidden => StatusCode::FORBIDDEN,
            CloseReason::TooManyConnections => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the rejection as an HTTP response (`reject = "http"`).
    pub fn to_response(&self) -> Response<Full<Bytes>> {
        let mut response = json_error(self.status(), self.message, self.reason.label());
        let headers = response.headers_mut();
        if let Some((seconds, _)) = self.retry {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.reason == CloseReason::Unauthenticated {
            let scheme = header::HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// Whole seconds, at least one.
pub(super) fn seconds(retry_after: Duration) -> u64 {
    u64::try_from(retry_after.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

/// Returns a response `{"error":"…","code":"…"}` that must not be cached.
pub fn json_error(status: StatusCode, error: &str, code: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": error, "code": code }).to_string();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
