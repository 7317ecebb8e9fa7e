//! The state of a task, as Celery writes it to its result backend.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::telemetry::celery::{TaskEnd, UnreadableResult};

/// The most tasks whose promises one result is read for.
pub(super) const MAX_PROMISED: usize = 64;

/// What Celery writes in front of a compressed result.
const COMPRESSED: &[u8] = b"\0celery-compressed\0";

/// The parts of a task's state that the gateway uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    /// `None` = the task has not ended.
    pub end: Option<TaskEnd>,
    /// The type of the exception, for the log.
    pub exception: Option<String>,
    /// The ids of the tasks whose results the task returned instead of its own.
    pub promised: Vec<String>,
}

/// Parses a state.
pub(super) fn read(bytes: &[u8]) -> Result<State, UnreadableResult> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        status: &'a str,
        #[serde(borrow)]
        result: Option<&'a RawValue>,
    }
    let (status, result) = match serde_json::from_slice::<Fields<'_>>(bytes) {
        Ok(fields) => (fields.status, fields.result),
        // Python also writes invalid JSON, such as NaN. The status comes before the task's result.
        Err(_) => (leading_status(bytes).ok_or_else(|| unreadable(bytes))?, None),
    };
    let result: Option<Value> = result.and_then(|result| serde_json::from_str(result.get()).ok());
    let expired = |result: &Value| {
        let message = &result["exc_message"];
        message == "expired" || message[0] == "expired"
    };
    let end = match status {
        "SUCCESS" => Some(TaskEnd::Succeeded),
        "FAILURE" => Some(TaskEnd::Failed),
        "REVOKED" if result.as_ref().is_some_and(expired) => Some(TaskEnd::Expired),
        "REVOKED" => Some(TaskEnd::Revoked),
        _ => None,
    };
    let exception = result.as_ref().and_then(|result| result["exc_type"].as_str());
    let promised = match (end, &result) {
        (Some(TaskEnd::Succeeded), Some(result)) => promised(result),
        _ => Vec::new(),
    };
    Ok(State { end, exception: exception.map(str::to_owned), promised })
}

fn leading_status(json: &[u8]) -> Option<&str> {
    let rest = json.strip_prefix(b"{\"status\": \"")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}

/// The ids of the promised tasks in the JSON form of Celery's `AsyncResult`, `[[id, parent], null]`, or `GroupResult`,
/// `[[id, parent], [result, …]]`. Nothing for any other value, or for more than [`MAX_PROMISED`] tasks.
fn promised(result: &Value) -> Vec<String> {
    let (mut ids, mut waiting) = (Vec::new(), vec![result]);
    while let Some(result) = waiting.pop() {
        let Some([Value::Array(task), children]) = result.as_array().map(Vec::as_slice) else {
            return Vec::new();
        };
        match (&task[..], children) {
            ([Value::String(id), _], Value::Null) if is_task_id(id) => ids.push(id.clone()),
            ([Value::String(id), _], Value::Array(children)) if is_task_id(id) => {
                waiting.extend(children);
            }
            _ => return Vec::new(),
        }
        if ids.len() > MAX_PROMISED {
            return Vec::new();
        }
    }
    ids
}

/// Whether this is a UUID, which are the ids that Celery gives by itself. A task may return a text in a list as well.
fn is_task_id(id: &str) -> bool {
    let is_part = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    id.len() == 36 && id.bytes().enumerate().all(is_part)
}

/// Finds the setting that makes a result unreadable.
fn unreadable(bytes: &[u8]) -> UnreadableResult {
    match bytes {
        _ if bytes.starts_with(COMPRESSED) => UnreadableResult::Compression,
        // The heads of gzip, zlib, bzip2, xz and Zstandard.
        [0x1f, 0x8b, ..]
        | [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..]
        | [b'B', b'Z', b'h', ..]
        | [0xfd, b'7', b'z', b'X', ..]
        | [0x28, 0xb5, 0x2f, 0xfd, ..] => UnreadableResult::Compression,
        _ => UnreadableResult::Serializer,
    }
}
