//! Why a message is not relayed, and the error event for its sender.

use std::time::Duration;

use crate::protocol::{ErrorCode, ErrorEvent};
use crate::upstream::RelayError;

/// It is not known when a reply will end, so clients are asked to try again after this many seconds.
const REPLY_RETRY_SECONDS: u64 = 2;

/// Why the gateway does not relay a message now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The engine is unavailable, so it is not known whether the message was sent before.
    DedupUnavailable,
    /// The same message was sent before, and is still being relayed.
    StillRelaying,
    /// The user already has as many replies in progress as the route allows.
    TooManyReplies,
    /// A reply is in progress on the channel, and the route runs one at a time.
    ReplyRunning,
    /// As many messages as may wait for the replies before them on the channel.
    QueueFull,
    /// The gateway stops before the message was relayed.
    Stopping,
    RateLimited {
        retry_after: Duration,
    },
    /// The replies to the user took as many tokens as they may.
    UsageExceeded {
        retry_after: Duration,
    },
    /// The engine is unavailable, so it is not known whether the user is within its limits.
    LimitsUnavailable,
}

impl Refusal {
    pub fn event(self) -> ErrorEvent<'static> {
        match self {
            Self::DedupUnavailable => {
                let text = "cannot check whether this message was sent before; try again";
                ErrorEvent::new(ErrorCode::EngineUnavailable, text).retry_after(1)
            }
            Self::StillRelaying => {
                let text = "this message was sent before and is still being relayed";
                ErrorEvent::new(ErrorCode::Busy, text).retry_after(1)
            }
            Self::TooManyReplies => {
                let text = "too many replies in progress; try again when one has ended";
                ErrorEvent::new(ErrorCode::Busy, text).retry_after(REPLY_RETRY_SECONDS)
            }
            Self::ReplyRunning => {
                let text = "a reply is in progress on this channel; try again when it has ended";
                ErrorEvent::new(ErrorCode::Busy, text).retry_after(REPLY_RETRY_SECONDS)
            }
            Self::QueueFull => {
                let text = "too many messages are waiting on this channel; try again later";
                ErrorEvent::new(ErrorCode::Busy, text).retry_after(REPLY_RETRY_SECONDS)
            }
            Self::Stopping => {
                let text =
                    "the gateway is stopping, and has not relayed this message; send it again";
                ErrorEvent::new(ErrorCode::Busy, text).retry_after(1)
            }
            Self::RateLimited { retry_after } => rate_limited("too many messages", retry_after),
            Self::UsageExceeded { retry_after } => {
                rate_limited("the replies to you took as many tokens as they may", retry_after)
            }
            Self::LimitsUnavailable => {
                let text = "limits cannot be checked at the moment; try again";
                ErrorEvent::new(ErrorCode::EngineUnavailable, text).retry_after(1)
            }
        }
    }
}

fn rate_limited(text: &'static str, retry_after: Duration) -> ErrorEvent<'static> {
    let seconds = retry_after.as_millis().div_ceil(1000).max(1) as u64;
    ErrorEvent::new(ErrorCode::RateLimited, text).retry_after(seconds)
}

const BUSY: &str = "the service is busy; try again";

fn unavailable(seconds: u64) -> ErrorEvent<'static> {
    let text = "the service cannot be reached; try again";
    ErrorEvent::new(ErrorCode::UpstreamUnavailable, text).retry_after(seconds)
}

/// The answer to a message that its upstream did not take.
pub fn relay_error_event(error: &RelayError) -> ErrorEvent<'_> {
    match error {
        RelayError::Busy => ErrorEvent::new(ErrorCode::Busy, BUSY).retry_after(1),
        RelayError::Limited(limited) => {
            let failure = limited.failure.as_ref();
            let text = failure.map(|failure| &*failure.text).filter(|text| !text.is_empty());
            ErrorEvent::new(ErrorCode::Busy, text.unwrap_or(BUSY))
                .upstream_code(failure.and_then(|failure| failure.code.as_deref()))
                .retry_after(limited.retry_after.unwrap_or(1))
        }
        RelayError::Failed => {
            let text = "the service failed to take the message; try again";
            ErrorEvent::new(ErrorCode::UpstreamUnavailable, text).retry_after(5)
        }
        RelayError::Redirected => {
            let text = "the service answered with a redirect, which the gateway does not follow";
            ErrorEvent::new(ErrorCode::UpstreamUnavailable, text).retry_after(5)
        }
        RelayError::HeadTooLarge | RelayError::Malformed => {
            let text = "the service gave an answer that the gateway does not understand";
            ErrorEvent::new(ErrorCode::UpstreamUnavailable, text).retry_after(5)
        }
        RelayError::Unavailable | RelayError::Unreachable => unavailable(5),
        RelayError::UnavailableFor(seconds) => unavailable(*seconds),
        RelayError::TimedOut => {
            let text = "the service did not answer in time; try again";
            ErrorEvent::new(ErrorCode::UpstreamUnavailable, text).retry_after(5)
        }
        RelayError::Rejected(failure) => {
            ErrorEvent::new(ErrorCode::UpstreamRejected, &failure.text)
                .upstream_code(failure.code.as_deref())
        }
    }
}
