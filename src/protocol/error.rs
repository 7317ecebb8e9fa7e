//! Error events: what the gateway refuses and why, with what is known of the message.

use serde::Serialize;

/// Error events that the gateway writes; the code is part of the client protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    InvalidJson,
    EmptyMessage,
    MessageTooLong,
    RateLimited,
    /// The upstream, or this connection, already has as much in flight as it may.
    Busy,
    UpstreamUnavailable,
    /// The upstream answered that it will not take this message.
    UpstreamRejected,
    /// The upstream took the message and its reply broke off.
    WorkerLost,
    /// The worker's task raised, died, or is unknown to it.
    TaskFailed,
    /// Somebody other than a client has revoked the task.
    TaskRevoked,
    /// The task waited too long for a worker.
    TaskExpired,
    /// This route takes no messages.
    Forbidden,
    /// The engine that keeps tokens and limits, or whoever decides about channels, cannot be reached.
    EngineUnavailable,
    /// No such generation runs on the client's channel.
    UnknownTask,
    /// What a client offered to stay connected is not accepted.
    InvalidCredentials,
}

impl ErrorCode {
    pub const ALL: [Self; 15] = [
        Self::InvalidJson,
        Self::EmptyMessage,
        Self::MessageTooLong,
        Self::RateLimited,
        Self::Busy,
        Self::UpstreamUnavailable,
        Self::UpstreamRejected,
        Self::WorkerLost,
        Self::TaskFailed,
        Self::TaskRevoked,
        Self::TaskExpired,
        Self::Forbidden,
        Self::EngineUnavailable,
        Self::UnknownTask,
        Self::InvalidCredentials,
    ];

    /// In the order of [`Self::ALL`], which is that of the variants.
    pub const LABELS: [&'static str; Self::ALL.len()] = {
        let mut labels = [""; Self::ALL.len()];
        let mut index = 0;
        while index < labels.len() {
            labels[index] = Self::ALL[index].label();
            index += 1;
        }
        labels
    };

    /// The code on the wire and as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::EmptyMessage => "empty_message",
            Self::MessageTooLong => "message_too_long",
            Self::RateLimited => "rate_limited",
            Self::Busy => "busy",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::UpstreamRejected => "upstream_rejected",
            Self::WorkerLost => "worker_lost",
            Self::TaskFailed => "task_failed",
            Self::TaskRevoked => "task_revoked",
            Self::TaskExpired => "task_expired",
            Self::Forbidden => "forbidden",
            Self::EngineUnavailable => "engine_unavailable",
            Self::UnknownTask => "unknown_task",
            Self::InvalidCredentials => "invalid_credentials",
        }
    }
}

/// `{"event":"error","error":"…","code":"…"}` with what else is known.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorEvent<'a> {
    event: &'static str,
    error: &'a str,
    code: ErrorCode,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<&'a str>,
}

impl<'a> ErrorEvent<'a> {
    pub fn new(code: ErrorCode, error: &'a str) -> Self {
        Self { event: "error", error, code, retry_after: None, id: None, task_id: None }
    }

    /// Whole seconds, rounded up by the caller.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The message id that the client chose.
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

    /// The client's name for the message that it answers.
    pub fn message_id(&self) -> Option<&'a str> {
        self.id
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers serialize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_what_is_sent() {
        for (index, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!((code as usize, ErrorCode::LABELS[index]), (index, code.label()));
            let sent = serde_json::to_string(&code).unwrap();
            assert_eq!(sent, format!("\"{}\"", code.label()));
        }
    }
}
