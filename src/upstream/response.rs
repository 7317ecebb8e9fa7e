//! The meaning of an HTTP upstream's response.
//!
//! Invariant: a 2xx status means that the message was accepted, even if the body is invalid; otherwise the
//! client would send it twice.

use std::time::SystemTime;

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::dialect::{Failure, detect, dialect_of_headers};
use super::event::is_json;
use super::format::Format;
use super::{Limited, RelayError};
use crate::http_client::{BodyError, DecodedBody, ResponseBody};
use crate::protocol::{Dialect, MAX_TASK_ID_BYTES, strip_bom};
use crate::sse;
use crate::telemetry::upstreams::UpstreamMetrics;

/// The maximum length of a body that is not streamed.
const MAX_BYTES: usize = 1024 * 1024;
/// The longest time to wait that clients are told, in seconds.
const MAX_RETRY_AFTER: u64 = 24 * 60 * 60;
/// The header of AI SDK 4, whose `Content-Type` is `text/plain`.
const DATA_STREAM: &str = "x-vercel-ai-data-stream";
/// The most of a redirect's target that is logged.
const MAX_LOCATION_CHARS: usize = 200;
const JSON: &str = "application/json";
const REJECTED: &str = "the service rejected the message";

pub(super) enum RelayResponse {
    Accepted {
        /// The upstream's own task id, if it sent one.
        task_id: Option<String>,
        /// A worker will publish the reply: the status was 202 (RFC 9110 section 15.3.3), or the body named
        /// a task.
        is_queued: bool,
    },
    /// The message was accepted, and the body is the reply, in this dialect. Its beginning may have been read.
    Streaming(Format, Dialect, DecodedBody, Bytes),
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
    response: Response<ResponseBody>,
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
                if found == Dialect::Auto && media_type(response.headers()) == JSON {
                    return read_unknown_json(response, format, deadline, metrics).await;
                }
                RelayResponse::Streaming(format, found, DecodedBody::new(response), Bytes::new())
            }
            None => {
                let body = read_body(response, deadline, metrics).await;
                accepted(status, body.as_deref())
            }
        };
    }
    let reason = describe_status(&response);
    let retry_after = retry_after(response.headers());
    if status.is_redirection() {
        return RelayResponse::Refused(RelayError::Redirected, reason);
    }
    let failure = read_failure(response, deadline, metrics).await;
    let reason = match &failure {
        Some(failure) => format!("{reason}: {failure}"),
        None => reason,
    };
    let error = if status == StatusCode::TOO_MANY_REQUESTS {
        RelayError::Limited(Box::new(Limited { failure, retry_after }))
    } else if status.is_client_error() {
        match failure {
            Some(failure) => RelayError::Rejected(Box::new(failure.or_text(REJECTED))),
            None => RelayError::rejected(REJECTED),
        }
    } else if is_retryable(status) {
        retry_after.map_or(RelayError::Unavailable, RelayError::UnavailableFor)
    } else {
        RelayError::Failed
    };
    RelayResponse::Refused(error, reason)
}

/// The message was accepted, and the body is not the reply.
fn accepted(status: StatusCode, body: Option<&[u8]>) -> RelayResponse {
    let object: Option<Map<String, Value>> =
        body.and_then(|body| serde_json::from_slice(strip_bom(body)).ok());
    let task_id = object.as_ref().and_then(task_id);
    let is_queued = status == StatusCode::ACCEPTED || task_id.is_some();
    RelayResponse::Accepted { task_id, is_queued }
}

/// Reads JSON of which only its first value says whether it is the reply of an API. Any other JSON has the meaning that it
/// has without a dialect.
async fn read_unknown_json(
    response: Response<ResponseBody>,
    format: Format,
    deadline: Instant,
    metrics: &UpstreamMetrics,
) -> RelayResponse {
    let status = response.status();
    let mut body = DecodedBody::new(response);
    let (mut read, mut values) = (Vec::new(), Format::json());
    // Whether the first value is that of an API.
    let mut is_detected = None;
    while let Ok(Some(Ok(part))) = timeout_at(deadline, body.next()).await {
        read.extend_from_slice(&part);
        if is_detected.is_none() {
            let mut part = part;
            match values.next(&mut part) {
                // What is not JSON may be an event stream.
                Ok(Some(value)) => {
                    let is_other = detect("", &value.data).is_none() && is_json(&value.data);
                    is_detected = Some(!is_other);
                }
                Ok(None) => {}
                Err(_) => break,
            }
        }
        if is_detected == Some(true) || read.len() > MAX_BYTES {
            break;
        }
    }
    let is_whole = || serde_json::from_slice::<IgnoredAny>(strip_bom(&read)).is_ok();
    match is_detected.or_else(|| is_whole().then_some(false)) {
        Some(false) if read.len() <= MAX_BYTES => {
            if let Some(looks) = looks_like(&read) {
                metrics.content_type_mismatched(Some(&HeaderValue::from_static(JSON)), looks);
            }
            accepted(status, Some(&read))
        }
        // Without a whole value it is a reply that breaks off.
        _ => RelayResponse::Streaming(format, Dialect::Auto, body, read.into()),
    }
}

/// Returns after how many seconds a request may be sent again (RFC 9110 section 10.2.3), at least one.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match value.parse::<f64>() {
        // Some APIs write fractions.
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => seconds.ceil() as u64,
        Ok(_) => return None,
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            let wait = date.duration_since(SystemTime::now()).unwrap_or_default();
            wait.as_secs() + 1
        }
    };
    Some(seconds.clamp(1, MAX_RETRY_AFTER))
}

/// Returns the format of a streamed body; `None` = the body is not a stream. Some responses have no body
/// whatever their headers say. Where replies have the dialect of an API, any other body of a 200 is a reply as well.
fn stream_format(response: &Response<ResponseBody>, dialect: Dialect) -> Option<Format> {
    let is_ok = response.status() == StatusCode::OK;
    let has_no_body =
        matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    // An empty stream is one of a 200; other answers without a body just have none.
    if has_no_body || (response.body().is_end_stream() && !is_ok) {
        return None;
    }
    if dialect != Dialect::Events && response.headers().contains_key(DATA_STREAM) {
        return Some(Format::data_stream());
    }
    match media_type(response.headers()).as_str() {
        "text/event-stream" => Some(Format::sse()),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            Some(Format::ndjson())
        }
        _ if dialect == Dialect::Events || !is_ok => None,
        _ => Some(Format::undecided()),
    }
}

/// Reads why a request was refused; `None` = the body does not say so.
async fn read_failure(
    response: Response<ResponseBody>,
    deadline: Instant,
    metrics: &UpstreamMetrics,
) -> Option<Failure> {
    let kind = media_type(response.headers());
    let body = read_body(response, deadline, metrics).await?;
    let text = std::str::from_utf8(strip_bom(&body)).ok()?;
    // Pages of servers in between are HTML, and say nothing to a chat's user.
    match is_json(text) {
        true => Failure::of_json(text),
        false if kind == "text/plain" => Failure::of_text(text),
        // Some servers refuse in the format that they were asked for.
        false => {
            let mut stream = Format::sse();
            let event = stream.next(&mut Bytes::copy_from_slice(text.as_bytes())).ok()??;
            Failure::of_json(&event.data)
        }
    }
}

/// Reads the body; `None` = it is too large, or it was not read completely by `deadline`.
async fn read_body(
    response: Response<ResponseBody>,
    deadline: Instant,
    metrics: &UpstreamMetrics,
) -> Option<Vec<u8>> {
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    let is_accepted = response.status().is_success();
    let (mut body, mut read) = (DecodedBody::new(response), Vec::new());
    let mut is_checked = !is_accepted;
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
    Some(read)
}

/// Returns the media type of a body in lower case, without its parameters; empty if there is none.
fn media_type(headers: &HeaderMap) -> String {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
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

#[cfg(test)]
mod tests;
