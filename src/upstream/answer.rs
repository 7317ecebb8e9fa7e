//! What an HTTP upstream's answer comes to.
//!
//! Invariant: a 2xx head means that the message is taken, whatever is wrong with the body; saying
//! otherwise would make the client send it twice.

use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::RelayError;
use super::reply::Format;
use crate::http_client;
use crate::protocol::MAX_TASK_ID_BYTES;

/// A longer body is not read to its end.
const MAX_BYTES: usize = 1024 * 1024;
const MAX_ERROR_CHARS: usize = 500;
const REJECTED: &str = "the service rejected the message";

pub(super) enum Answer {
    /// With the upstream's own task id, if it gave one.
    Taken {
        task_id: Option<String>,
        follows: Follows,
    },
    /// Taken; the body is the reply.
    Streaming(Format, Incoming),
    NotTaken(RelayError, String),
}

/// Whether anything comes after an answer that is no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// The answer was all there is.
    Nothing,
    /// A worker goes on by itself: the answer was 202 (RFC 9110 section 15.3.3), or named a task.
    Work,
}

/// Whether the same request may be sent once more: what stands between us and the upstream gave this
/// answer, or the upstream before it did anything.
pub(super) fn is_worth_a_retry(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Reads the body until `deadline`, where it is not a stream.
pub(super) async fn read(response: Response<Incoming>, deadline: Instant) -> Answer {
    let status = response.status();
    if status.is_success() {
        return match format(&response) {
            Some(format) => Answer::Streaming(format, response.into_body()),
            None => {
                let task_id = object(response, deadline).await.as_ref().and_then(task_id);
                let works = status == StatusCode::ACCEPTED || task_id.is_some();
                let follows = if works { Follows::Work } else { Follows::Nothing };
                Answer::Taken { task_id, follows }
            }
        };
    }
    let error = if status == StatusCode::TOO_MANY_REQUESTS {
        RelayError::Busy
    } else if status.is_client_error() {
        let body = object(response, deadline).await;
        RelayError::Rejected(body.as_ref().and_then(error_text).unwrap_or(REJECTED.to_owned()))
    } else {
        RelayError::Unavailable
    };
    Answer::NotTaken(error, format!("answered {status}"))
}

/// How the body streams, if it does; some answers have no body whatever their headers say.
fn format(response: &Response<Incoming>) -> Option<Format> {
    let has_none = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    if has_none || response.body().is_end_stream() {
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

/// The body, if it is a JSON object that comes whole and in time.
async fn object(response: Response<Incoming>, deadline: Instant) -> Option<Map<String, Value>> {
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
