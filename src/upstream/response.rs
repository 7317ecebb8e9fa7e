//! The meaning of an HTTP upstream's response.
//!
//! Invariant: a 2xx status means that the message was accepted, even if the body is invalid; otherwise the
//! client would send it twice.

use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, LOCATION};
use hyper::{Response, StatusCode};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::RelayError;
use super::dialect::dialect_of_headers;
use super::format::Format;
use crate::http_client::{BodyError, DecodedBody};
use crate::protocol::{Dialect, MAX_TASK_ID_BYTES, strip_bom};
use crate::sse;
use crate::telemetry::upstreams::UpstreamMetrics;

/// The maximum length of a body that is not streamed.
const MAX_BYTES: usize = 1024 * 1024;
/// The header of AI SDK 4, whose `Content-Type` is `text/plain`.
const DATA_STREAM: &str = "x-vercel-ai-data-stream";
const MAX_ERROR_CHARS: usize = 500;
/// The most of a redirect's target that is logged.
const MAX_LOCATION_CHARS: usize = 200;
const REJECTED: &str = "the service rejected the message";

pub(super) enum RelayResponse {
    Accepted {
        /// The upstream's own task id, if it sent one.
        task_id: Option<String>,
        /// A worker will publish the reply: the status was 202 (RFC 9110 section 15.3.3), or the body named
        /// a task.
        is_queued: bool,
    },
    /// The message was accepted, and the body is the reply, in this dialect.
    Streaming(Format, Dialect, DecodedBody),
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

/// Returns the answer's status for the log. A redirect is not followed, and says where it leads.
pub(super) fn describe_status<B>(response: &Response<B>) -> String {
    let status = response.status();
    let location = response.headers().get(LOCATION).filter(|_| status.is_redirection());
    match location.map(|location| String::from_utf8_lossy(location.as_bytes())) {
        Some(location) => {
            // The query may have a secret.
            let location = location.split(['?', '#']).next().unwrap_or_default();
            let location: String = location.chars().take(MAX_LOCATION_CHARS).collect();
            format!(
                "answered {status}, a redirect to {location:?}, which is not followed: set url to where it leads"
            )
        }
        None => format!("answered {status}"),
    }
}

/// Interprets a response. A body that is not streamed is read until `deadline`.
pub(super) async fn read(
    response: Response<Incoming>,
    dialect: Dialect,
    deadline: Instant,
    metrics: &UpstreamMetrics,
) -> RelayResponse {
    let status = response.status();
    if status.is_success() {
        return match stream_format(&response, dialect) {
            Some(format) => {
                let found = dialect_of_headers(response.headers());
                let found = found.filter(|_| dialect == Dialect::Auto).unwrap_or(dialect);
                RelayResponse::Streaming(format, found, DecodedBody::new(response))
            }
            None => {
                let object = read_object(response, deadline, metrics).await;
                let task_id = object.as_ref().and_then(task_id);
                let is_queued = status == StatusCode::ACCEPTED || task_id.is_some();
                RelayResponse::Accepted { task_id, is_queued }
            }
        };
    }
    let reason = describe_status(&response);
    let error = if status == StatusCode::TOO_MANY_REQUESTS {
        RelayError::Busy
    } else if status.is_client_error() {
        let body = read_object(response, deadline, metrics).await;
        RelayError::Rejected(body.as_ref().and_then(error_text).unwrap_or(REJECTED.to_owned()))
    } else if is_retryable(status) {
        RelayError::Unavailable
    } else if status.is_redirection() {
        RelayError::Redirected
    } else {
        RelayError::Failed
    };
    RelayResponse::Refused(error, reason)
}

/// Returns the format of a streamed body; `None` = the body is not a stream. Some responses have no body
/// whatever their headers say. Where replies have the dialect of an API, any other body of a 200 is a reply as well.
fn stream_format(response: &Response<Incoming>, dialect: Dialect) -> Option<Format> {
    let has_no_body =
        matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    if has_no_body || response.body().is_end_stream() {
        return None;
    }
    if dialect != Dialect::Events && response.headers().contains_key(DATA_STREAM) {
        return Some(Format::data_stream());
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match kind.to_ascii_lowercase().as_str() {
        "text/event-stream" => Some(Format::sse()),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            Some(Format::ndjson())
        }
        _ if dialect == Dialect::Events || response.status() != StatusCode::OK => None,
        "application/json" => Some(Format::json()),
        // Backends that write a data stream of the AI SDK by themselves may lack its header.
        "text/plain" if dialect == Dialect::AiSdk => Some(Format::data_stream()),
        _ => Some(Format::Undecided),
    }
}

/// Reads the body; `None` = it is not a JSON object, or it was not read completely by `deadline`.
async fn read_object(
    response: Response<Incoming>,
    deadline: Instant,
    metrics: &UpstreamMetrics,
) -> Option<Map<String, Value>> {
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    let (mut body, mut read) = (DecodedBody::new(response), Vec::new());
    let mut is_checked = false;
    while let Some(part) = timeout_at(deadline, body.next()).await.ok()? {
        match part {
            Ok(part) if read.len() + part.len() <= MAX_BYTES => read.extend_from_slice(&part),
            Ok(_) => return None,
            Err(error) => {
                if !matches!(error, BodyError::Lost(_)) {
                    metrics.body_unreadable(&error.to_string());
                }
                return None;
            }
        }
        // A stream that nobody recognizes may go on for long, so that its beginning must be enough.
        if !is_checked && let Some(looks) = looks_like(&read) {
            is_checked = true;
            metrics.content_type_mismatched(content_type.as_ref(), looks);
        }
    }
    serde_json::from_slice(strip_bom(&read)).ok()
}

/// Returns the type of stream that a body begins like, though its `Content-Type` is another one.
fn looks_like(body: &[u8]) -> Option<&'static str> {
    let body = strip_bom(body).trim_ascii_start();
    let end = body.iter().position(|b| matches!(b, b'\n' | b'\r'))?;
    let (line, rest) = body.split_at(end);
    if sse::is_field(line) {
        return Some("text/event-stream");
    }
    // Two values on two lines; one value may be written over several.
    let is_value = serde_json::from_slice::<IgnoredAny>(line).is_ok();
    (is_value && !rest.trim_ascii().is_empty()).then_some("application/x-ndjson")
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

#[cfg(test)]
mod tests;
