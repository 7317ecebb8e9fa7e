//! Celery's message protocol 2 in the format of kombu's Redis transport.
//!
//! Invariant: a worker can decode the message, whatever the client and the configuration contain. It is
//! written from these types only, and data of the client is only inside the body, which is base64 of JSON.
//! A message that a worker cannot decode causes an outage: it can end the worker's process and is then
//! delivered to the next one.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::clock;
use crate::config::CeleryTask;

/// The type of the body. Workers use it unchanged.
const CONTENT_TYPE: &str = "application/json";
const CONTENT_ENCODING: &str = "utf-8";
const BODY_ENCODING: &str = "base64";
/// Persistent. It has no effect on Redis.
const DELIVERY_MODE: u8 = 2;

/// The fields of this type and those below are in the order in which Celery writes them.
#[derive(Serialize)]
pub(super) struct Envelope<'a, H> {
    body: String,
    #[serde(rename = "content-encoding")]
    content_encoding: &'static str,
    #[serde(rename = "content-type")]
    content_type: &'static str,
    headers: H,
    properties: Properties<'a>,
}

#[derive(Serialize)]
struct Properties<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
    delivery_mode: u8,
    /// Milliseconds. The transport reads only the header `expires`.
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
    delivery_info: DeliveryInfo<'a>,
    priority: u8,
    body_encoding: &'static str,
    /// Unique: workers store unacknowledged messages by it.
    delivery_tag: String,
}

#[derive(Serialize)]
struct DeliveryInfo<'a> {
    exchange: &'a str,
    routing_key: &'a str,
}

#[derive(Serialize)]
struct TaskHeaders<'a> {
    lang: &'static str,
    task: &'a str,
    id: &'a str,
    shadow: Option<&'a str>,
    eta: Option<&'a str>,
    expires: Option<String>,
    group: Option<&'a str>,
    group_index: Option<u32>,
    retries: u32,
    /// `null`, so that the worker's own limits apply.
    timelimit: [Option<u32>; 2],
    root_id: &'a str,
    parent_id: Option<&'a str>,
    /// Shown in logs and monitors, so that it contains no data of the client.
    argsrepr: &'static str,
    kwargsrepr: &'static str,
    origin: &'a str,
    ignore_result: bool,
    replaced_task_nesting: u32,
    stamped_headers: Option<&'a str>,
    stamps: Empty,
    /// The header that OpenTelemetry's instrumentation of Celery reads; only present if there is a span.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
}

#[derive(Serialize)]
struct Empty {}

/// The last part of the body. The gateway uses none of its features.
#[derive(Serialize)]
struct Embed {
    callbacks: Option<()>,
    errbacks: Option<()>,
    chain: Option<()>,
    chord: Option<()>,
}

#[derive(Serialize)]
struct ControlHeaders {
    clock: u64,
    /// Unix seconds.
    expires: f64,
}

#[derive(Serialize)]
struct Control<'a> {
    method: &'static str,
    arguments: Revoke<'a>,
    destination: Option<&'a str>,
    pattern: Option<&'a str>,
    matcher: Option<&'a str>,
}

#[derive(Serialize)]
struct Revoke<'a> {
    task_id: &'a str,
    terminate: bool,
    signal: &'a str,
}

/// The identity of this process as a producer.
struct Producer {
    /// The producer's name in Celery's format, without the name of the machine.
    origin: String,
    /// A queue that is never read: results are read by their key.
    reply_to: String,
}

static PRODUCER: LazyLock<Producer> = LazyLock::new(|| Producer {
    origin: format!("gen{}@tidegate", std::process::id()),
    reply_to: uuid::Uuid::new_v4().to_string(),
});

/// Writes a task as an element of a list. `Err` says what could not be serialized; no message is known to
/// cause it.
pub(super) fn task(
    task: &CeleryTask,
    task_id: &str,
    kwargs: &RawValue,
    traceparent: Option<String>,
    now: Duration,
) -> Result<Vec<u8>, String> {
    let embed = Embed { callbacks: None, errbacks: None, chain: None, chord: None };
    let args: [(); 0] = [];
    let headers = TaskHeaders {
        lang: "py",
        task: &task.name,
        id: task_id,
        shadow: None,
        eta: None,
        expires: task.expires.map(|expires| isoformat(now.saturating_add(expires))),
        group: None,
        group_index: None,
        retries: 0,
        timelimit: [None, None],
        root_id: task_id,
        parent_id: None,
        argsrepr: "()",
        kwargsrepr: "{...}",
        origin: &PRODUCER.origin,
        ignore_result: false,
        replaced_task_nesting: 0,
        stamped_headers: None,
        stamps: Empty {},
        traceparent,
    };
    let properties = Properties {
        correlation_id: Some(task_id),
        reply_to: Some(&PRODUCER.reply_to),
        delivery_mode: DELIVERY_MODE,
        expiration: task.expires.map(|expires| expires.as_millis().to_string()),
        delivery_info: DeliveryInfo { exchange: "", routing_key: &task.queue },
        priority: task.priority,
        body_encoding: BODY_ENCODING,
        delivery_tag: uuid::Uuid::new_v4().to_string(),
    };
    write(&(args, kwargs, embed), headers, properties)
}

/// Writes the broadcast that revokes a task. `count` is the number of broadcasts of this process.
pub(super) fn revoke(
    exchange: &str,
    task_id: &str,
    signal: Option<&str>,
    count: u64,
    now: Duration,
) -> Result<Vec<u8>, String> {
    let arguments =
        Revoke { task_id, terminate: signal.is_some(), signal: signal.unwrap_or("SIGTERM") };
    let control =
        Control { method: "revoke", arguments, destination: None, pattern: None, matcher: None };
    let headers = ControlHeaders { clock: count, expires: now.as_secs_f64() + 1.0 };
    let properties = Properties {
        correlation_id: None,
        reply_to: None,
        delivery_mode: DELIVERY_MODE,
        expiration: None,
        delivery_info: DeliveryInfo { exchange, routing_key: "" },
        priority: 0,
        body_encoding: BODY_ENCODING,
        delivery_tag: uuid::Uuid::new_v4().to_string(),
    };
    write(&control, headers, properties)
}

/// Writes an instant as Python's `datetime.isoformat` does, which names UTC as an offset.
fn isoformat(since_unix_epoch: Duration) -> String {
    clock::to_rfc3339(since_unix_epoch).replace('Z', "+00:00")
}

fn write(
    body: &impl Serialize,
    headers: impl Serialize,
    properties: Properties<'_>,
) -> Result<Vec<u8>, String> {
    let unwritten =
        |error: serde_json::Error| format!("the task cannot be written as JSON: {error}");
    let body = STANDARD.encode(serde_json::to_vec(body).map_err(unwritten)?);
    let envelope = Envelope {
        body,
        content_encoding: CONTENT_ENCODING,
        content_type: CONTENT_TYPE,
        headers,
        properties,
    };
    serde_json::to_vec(&envelope).map_err(unwritten)
}

#[cfg(test)]
mod tests;
