//! The meaning of an HTTP upstream's response.
//!
//! Invariant: a 2xx status means that the message was accepted, even if the body is invalid; otherwise the
//! client would send it twice.

use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::RelayError;
use super::reply::Format;
use crate::http_client;
use crate::protocol::MAX_TASK_ID_BYTES;

/// The maximum length of a body that is not streamed.
const MAX_BYTES: usize = 1024 * 1024;
const MAX_ERROR_CHARS: usize = 500;
const REJECTED: &str = "the service rejected the message";

pub(super) enum RelayResponse {
    Accepted {
        /// The upstream's own task id, if it sent one.
        task_id: Option<String>,
        /// A worker will publish the reply: the status was 202 (RFC 9110 section 15.3.3), or the body named
        /// a task.
        is_queued: bool,
    },
    /// The message was accepted, and the body is the reply.
    Streaming(Format, Incoming),
    /// The error for the client, and the reason for the log.
    Refused(RelayError, String),
}

/// Whether the request may be sent again: a proxy in front of the upstream answered, or the upstream
/// before it did anything.
pub(super) fn is_retryable(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Interprets a response. A body that is not streamed is read until `deadline`.
pub(super) async fn read(response: Response<Incoming>, deadline: Instant) -> RelayResponse {
    let status = response.status();
    if status.is_success() {
        return match stream_format(&response) {
            Some(format) => RelayResponse::Streaming(format, response.into_body()),
            None => {
                let task_id = read_object(response, deadline).await.as_ref().and_then(task_id);
                let is_queued = status == StatusCode::ACCEPTED || task_id.is_some();
                RelayResponse::Accepted { task_id, is_queued }
            }
        };
    }
    let error = if status == StatusCode::TOO_MANY_REQUESTS {
        RelayError::Busy
    } else if status.is_client_error() {
        let body = read_object(response, deadline).await;
        RelayError::Rejected(body.as_ref().and_then(error_text).unwrap_or(REJECTED.to_owned()))
    } else if is_retryable(status) {
        RelayError::Unavailable
    } else {
        RelayError::Failed
    };
    RelayResponse::Refused(error, format!("answered {status}"))
}

/// Returns the format of a streamed body; `None` = the body is not a stream. Some responses have no body
/// whatever their headers say.
fn stream_format(response: &Response<Incoming>) -> Option<Format> {
    let has_no_body =
        matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    if has_no_body || response.body().is_end_stream() {
        return None;
    }
    let kind = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind.to_ascii_lowercase().as_str() {
        "text/event-stream" => Some(Format::sse()),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            Some(Format::ndjson())
        }
        _ => None,
    }
}

/// Reads the body; `None` = it is not a JSON object, or it was not read completely by `deadline`.
async fn read_object(
    response: Response<Incoming>,
    deadline: Instant,
) -> Option<Map<String, Value>> {
    let body = http_client::read_body(response.into_body(), MAX_BYTES);
    let body = timeout_at(deadline, body).await.ok()?.ok()?;
    serde_json::from_slice(&body).ok()
}

fn task_id(object: &Map<String, Value>) -> Option<String> {
    match object.get("task_id")? {
        Value::String(id) if (1..=MAX_TASK_ID_BYTES).contains(&id.len()) => Some(id.clone()),
        Value::Number(id) if id.is_i64() || id.is_u64() => Some(id.to_string()),
        _ => None,
    }
}

fn error_text(object: &Map<String, Value>) -> Option<String> {
    let text = ["error", "detail"].iter().find_map(|name| object.get(*name)?.as_str())?;
    Some(text.chars().take(MAX_ERROR_CHARS).collect()).filter(|text: &String| !text.is_empty())
}
