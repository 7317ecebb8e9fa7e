//! Publications as frames, with their positions.

use bytes::Bytes;

use crate::protocol::{
    ChannelName, NotJson, Position, PublishedObject, published_bytes, published_object,
    published_text, with_position,
};
use crate::socket::{Delivery, frame};
use crate::telemetry;

/// Encodes a publication that this node received from its publisher, and reports it if it is not the JSON that it looks
/// like.
pub fn encode_received(
    channel: &ChannelName,
    payload: &[u8],
    position: Option<Position>,
) -> Delivery {
    let (delivery, fault) = encode_with_fault(payload, position);
    if let Some(fault) = fault {
        telemetry::delivery::publication_not_json(channel, fault);
    }
    delivery
}

/// Encodes a publication as a frame. It is checked here, once for all its receivers on this node, because its position
/// may only be added to JSON. Whoever wrote it is not trusted to have checked it.
///
/// Without a position, bytes that are not UTF-8 are sent as they are, in a binary frame: a text frame would make every
/// client of the channel fail its connection (RFC 6455 section 8.1).
pub fn encode(payload: &[u8], position: Option<Position>) -> Delivery {
    encode_with_fault(payload, position).0
}

fn encode_with_fault(payload: &[u8], position: Option<Position>) -> (Delivery, Option<NotJson>) {
    let (frame, fault) = match (simdutf8::basic::from_utf8(payload), position) {
        (Ok(text), Some(position)) => {
            let PublishedObject { json, fault } = published_object(text);
            (encode_object(&json, position), fault)
        }
        (Ok(text), None) => {
            let PublishedObject { json, fault } = published_text(text);
            (frame::text(&json), fault)
        }
        (Err(_), Some(position)) => {
            (encode_object(&published_bytes(payload), position), Some(NotJson::Bytes))
        }
        (Err(_), None) => (frame::encode(frame::Opcode::Binary, payload), None),
    };
    (Delivery::new(frame, position), fault)
}

fn encode_object(json: &str, position: Position) -> Bytes {
    let (head, tail) = with_position(json, position);
    frame::encode_parts(frame::Opcode::Text, &[head.as_bytes(), tail.as_bytes()])
}
