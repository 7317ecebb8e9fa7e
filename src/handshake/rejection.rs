//! Every way a handshake is refused, in one table: the close code, the HTTP status, what the client is
//! told, and the word for logs and metrics.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode, header};

use crate::protocol::CloseReason;
use crate::tokens::JwtRejection;

/// Why a client may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// A stable word; the metric label.
    pub cause: &'static str,
    pub reason: CloseReason,
    /// What the client is told; never in what way a credential failed.
    pub message: &'static str,
    /// Seconds, with 4029 and 1013.
    pub retry_after: Option<u64>,
}

const NOT_AUTHENTICATED: &str = "not authenticated";
const NOT_ALLOWED: &str = "not allowed";
const TOO_MANY: &str = "too many connections";
const TRY_AGAIN: &str = "the service cannot decide at the moment; try again";

impl Rejection {
    const fn new(cause: &'static str, reason: CloseReason, message: &'static str) -> Self {
        Self { cause, reason, message, retry_after: None }
    }

    const fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub fn origin() -> Self {
        Self::new("origin", CloseReason::Forbidden, NOT_ALLOWED)
    }

    pub fn no_credentials() -> Self {
        Self::new("no_credentials", CloseReason::Unauthenticated, NOT_AUTHENTICATED)
    }

    /// Unknown, expired, used or malformed.
    pub fn token() -> Self {
        Self::new("token", CloseReason::Unauthenticated, NOT_AUTHENTICATED)
    }

    pub fn token_origin() -> Self {
        Self::new("token_origin", CloseReason::Forbidden, NOT_ALLOWED)
    }

    pub fn token_binding() -> Self {
        Self::new("token_binding", CloseReason::Forbidden, NOT_ALLOWED)
    }

    pub fn jwt(rejection: JwtRejection) -> Self {
        match rejection {
            JwtRejection::KeysUnavailable => {
                Self::new("jwt_keys", CloseReason::Overloaded, TRY_AGAIN).after(5)
            }
            JwtRejection::Expired => {
                Self::new("jwt_expired", CloseReason::Unauthenticated, NOT_AUTHENTICATED)
            }
            _ => Self::new("jwt", CloseReason::Unauthenticated, NOT_AUTHENTICATED),
        }
    }

    pub fn channel() -> Self {
        Self::new("channel", CloseReason::Forbidden, NOT_ALLOWED)
    }

    /// The backend said no.
    pub fn not_authorized() -> Self {
        Self::new("authorize", CloseReason::Forbidden, NOT_ALLOWED)
    }

    /// The backend could not be asked.
    pub fn authorize_unavailable() -> Self {
        Self::new("authorize_unavailable", CloseReason::Overloaded, TRY_AGAIN).after(5)
    }

    /// The engine that keeps tokens or limits could not be asked.
    pub fn engine() -> Self {
        Self::new("engine", CloseReason::Overloaded, TRY_AGAIN).after(5)
    }

    pub fn connects(retry_after: Duration) -> Self {
        Self::new("connects", CloseReason::TooManyConnections, TOO_MANY).after(seconds(retry_after))
    }

    pub fn connections(retry_after: Duration) -> Self {
        let seconds = seconds(retry_after);
        Self::new("connections", CloseReason::TooManyConnections, TOO_MANY).after(seconds)
    }

    pub fn connections_per_ip() -> Self {
        Self::new("connections_per_ip", CloseReason::TooManyConnections, TOO_MANY).after(10)
    }

    fn status(&self) -> StatusCode {
        match self.reason {
            CloseReason::Unauthenticated => StatusCode::UNAUTHORIZED,
            CloseReason::Forbidden => StatusCode::FORBIDDEN,
            CloseReason::TooManyConnections => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The refusal as an HTTP answer (`reject = "http"`).
    pub fn to_http(&self) -> Response<Full<Bytes>> {
        let mut response = json_error(self.status(), self.message, self.reason.label());
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

fn seconds(retry_after: Duration) -> u64 {
    u64::try_from(retry_after.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

/// `{"error":"…","code":"…"}`, never cached.
pub(super) fn json_error(status: StatusCode, error: &str, code: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": error, "code": code }).to_string();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
