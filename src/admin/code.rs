//! Errors of the server API: a code for programs, and the HTTP status.

use hyper::StatusCode;

use crate::protocol::label_enum;

label_enum! {
    /// The `code` of an error. `openapi.json` lists all of them, which a test holds.
    pub enum Code {
        ApiDisabled => "api_disabled",
        BadChannel => "bad_channel",
        BadRequest => "bad_request",
        /// The request body ended early.
        Broken => "broken",
        Busy => "busy",
        Draining => "draining",
        EngineDown => "engine_down",
        /// Not all nodes answered.
        Incomplete => "incomplete",
        /// The path does not accept this method.
        Method => "method",
        NoHistory => "no_history",
        NoRoute => "no_route",
        NotFound => "not_found",
        Timeout => "timeout",
        TooLarge => "too_large",
        TooManyDebugged => "too_many_debugged",
        /// Too many calls of one address had no valid API key.
        TooManyFailures => "too_many_failures",
        TooManyTails => "too_many_tails",
        Unauthorized => "unauthorized",
    }
}

impl Code {
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadChannel | Self::BadRequest | Self::Broken => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ApiDisabled => StatusCode::FORBIDDEN,
            Self::NoHistory | Self::NoRoute | Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyDebugged | Self::TooManyFailures | Self::TooManyTails => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Busy | Self::Draining | Self::EngineDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Incomplete => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}
