//! The JSON that every upstream gets for a message.

use serde::Serialize;
use serde_json::value::RawValue;

use super::Message;
use crate::protocol::{ConnectionId, Params, RequestId, UserId};

/// Room for the names and ids beside the message, so that the buffer seldom grows.
const OTHER_BYTES: usize = 512;

#[derive(Serialize)]
struct Payload<'a> {
    message: &'a str,
    /// The client's whole object, unchanged to the byte.
    data: &'a RawValue,
    channel: &'a str,
    params: &'a Params,
    user: Option<User<'a>>,
    connection_id: ConnectionId,
    /// The id of the handshake's request, as in the logs.
    request_id: &'a RequestId,
    message_id: &'a str,
    task_id: &'a str,
    /// The relay's own span, so that a queue's worker can continue the trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
}

#[derive(Serialize)]
struct User<'a> {
    id: &'a UserId,
    name: Option<&'a str>,
}

pub(super) fn json(message: &Message) -> Result<Vec<u8>, String> {
    let mut json = Vec::new();
    write_json(&mut json, message)?;
    Ok(json)
}

/// Appends to `json`. `Err` says what could not be serialized; no message is known to cause it.
pub(super) fn write_json(json: &mut Vec<u8>, message: &Message) -> Result<(), String> {
    let name = message.username.as_deref();
    let payload = Payload {
        message: &message.text,
        data: &message.data,
        channel: message.channel.as_str(),
        params: &message.params,
        user: message.user_id.as_ref().map(|id| User { id, name }),
        connection_id: message.connection_id,
        request_id: &message.request_id,
        message_id: &message.message_id,
        task_id: &message.task_id,
        traceparent: message.trace.of_own_span(),
    };
    json.reserve(payload.message.len() + payload.data.get().len() + OTHER_BYTES);
    serde_json::to_writer(json, &payload)
        .map_err(|error| format!("the message cannot be written as JSON: {error}"))
}
