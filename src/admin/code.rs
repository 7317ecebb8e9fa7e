//! Errors of the server API: a code for programs, and the HTTP status.

use hyper::StatusCode;

/// The `code` of an error. `openapi.json` lists all of them, which a test holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    ApiDisabled,
    BadChannel,
    BadRequest,
    /// The request body ended early.
    Broken,
    Busy,
    Draining,
    EngineDown,
    /// Not all nodes answered.
    Incomplete,
    /// The path does not accept this method.
    Method,
    NoHistory,
    NoRoute,
    NotFound,
    Timeout,
    TooLarge,
    TooManyDebugged,
    TooManyTails,
    Unauthorized,
}

impl Code {
    #[cfg(test)]
    pub const ALL: [Self; 17] = [
        Self::ApiDisabled,
        Self::BadChannel,
        Self::BadRequest,
        Self::Broken,
        Self::Busy,
        Self::Draining,
        Self::EngineDown,
        Self::Incomplete,
        Self::Method,
        Self::NoHistory,
        Self::NoRoute,
        Self::NotFound,
        Self::Timeout,
        Self::TooLarge,
        Self::TooManyDebugged,
        Self::TooManyTails,
        Self::Unauthorized,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Self::ApiDisabled => "api_disabled",
            Self::BadChannel => "bad_channel",
            Self::BadRequest => "bad_request",
            Self::Broken => "broken",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::EngineDown => "engine_down",
            Self::Incomplete => "incomplete",
            Self::Method => "method",
            Self::NoHistory => "no_history",
            Self::NoRoute => "no_route",
            Self::NotFound => "not_found",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::TooManyDebugged => "too_many_debugged",
            Self::TooManyTails => "too_many_tails",
            Self::Unauthorized => "unauthorized",
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Self::BadChannel | Self::BadRequest | Self::Broken => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ApiDisabled => StatusCode::FORBIDDEN,
            Self::NoHistory | Self::NoRoute | Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyDebugged | Self::TooManyTails => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::Draining | Self::EngineDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Incomplete => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}
