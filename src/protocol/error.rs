//! Error events: what the gateway refuses and why, with what is known of the message.

use serde::Serialize;

use super::{EventName, label_enum};

label_enum! {
    /// The code of an error event that the gateway writes; part of the client protocol.
    pub enum ErrorCode {
        InvalidJson => "invalid_json",
        EmptyMessage => "empty_message",
        MessageTooLong => "message_too_long",
        RateLimited => "rate_limited",
        /// The upstream, or this connection, has the maximum of messages in flight.
        Busy => "busy",
        UpstreamUnavailable => "upstream_unavailable",
        /// The upstream refused this message.
        UpstreamRejected => "upstream_rejected",
        /// The upstream accepted the message, but its reply broke off.
        WorkerLost => "worker_lost",
        /// The worker's task failed, died, or is unknown to the worker; or the upstream ended its stream with an error.
        TaskFailed => "task_failed",
        /// The task was revoked, and not by a client.
        TaskRevoked => "task_revoked",
        /// The task waited too long for a worker.
        TaskExpired => "task_expired",
        /// This route accepts no messages.
        Forbidden => "forbidden",
        /// The engine that stores tokens and limits, or the service that authorizes channels, is unavailable.
        EngineUnavailable => "engine_unavailable",
        /// No generation with this id is running on the client's channel.
        UnknownTask => "unknown_task",
        /// The credentials of a `refresh` frame are not accepted.
        InvalidCredentials => "invalid_credentials",
    }
}

/// `{"event":"error","error":"…","code":"…"}` with the fields that are known.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorEvent<'a> {
    event: EventName,
    error: &'a str,
    code: ErrorCode,
    /// The upstream's own code.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<&'a str>,
}

impl<'a> ErrorEvent<'a> {
    pub fn new(code: ErrorCode, error: &'a str) -> Self {
        Self {
            event: EventName::Error,
            error,
            code,
            upstream_code: None,
            retry_after: None,
            id: None,
            task_id: None,
        }
    }

    /// Adds the code by which the upstream says what went wrong.
    pub fn upstream_code(mut self, code: Option<&'a str>) -> Self {
        self.upstream_code = code;
        self
    }

    /// Adds the time to wait, in whole seconds; the caller rounds up.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds the message id that the client chose.
    pub fn id(mut self, id: Option<&'a str>) -> Self {
        self.id = id;
        self
    }

    pub fn task_id(mut self, id: &'a str) -> Self {
        self.task_id = Some(id);
        self
    }

    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The id that the client chose for the message, if it chose one.
    pub fn message_id(&self) -> Option<&'a str> {
        self.id
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers serialize")
    }
}
