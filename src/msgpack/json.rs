//! Transcodes items to JSON text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::{Item, MAX_DEPTH, Malformed, Reader};

/// Appends the only value in `bytes` to `json`. After an error `json` contains a part of it.
#[cfg(any(test, feature = "internals"))]
pub fn to_json(bytes: &[u8], json: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut reader = Reader::new(bytes);
    write_value(&mut reader, json)?;
    reader.finish()
}

/// An array or map whose closing bracket has not been written yet.
struct Open {
    is_map: bool,
    /// Whether no item has been written yet.
    is_new: bool,
    /// The items or pairs that are still to be written.
    left: usize,
}

/// Appends the reader's next value to `json`. An explicit stack of open arrays and maps replaces recursion.
pub fn write_value(reader: &mut Reader, json: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut stack: Vec<Open> = Vec::new();
    loop {
        let (is_map, left) = match reader.item()? {
            Item::Array(count) => (false, Some(count)),
            Item::Map(count) => (true, Some(count)),
            scalar => {
                write_scalar(scalar, json);
                (false, None)
            }
        };
        if let Some(left) = left {
            if stack.len() == MAX_DEPTH {
                return Err(Malformed::TooDeep);
            }
            json.push(if is_map { b'{' } else { b'[' });
            stack.push(Open { is_map, is_new: true, left });
        }
        while let Some(open) = stack.pop_if(|open| open.left == 0) {
            json.push(if open.is_map { b'}' } else { b']' });
        }
        let Some(open) = stack.last_mut() else { return Ok(()) };
        open.left -= 1;
        if !std::mem::take(&mut open.is_new) {
            json.push(b',');
        }
        if open.is_map {
            let key = reader.item()?;
            write_key(key, json)?;
            json.push(b':');
        }
    }
}

/// Appends a map's key as a JSON string.
pub fn write_key(key: Item, json: &mut Vec<u8>) -> Result<(), Malformed> {
    match key {
        Item::Str(_) | Item::Bin(_) => write_scalar(key, json),
        Item::Array(_) | Item::Map(_) | Item::Ext(..) => return Err(Malformed::Key),
        scalar => {
            let mut text = Vec::new();
            write_scalar(scalar, &mut text);
            // NaN and infinities are strings already.
            let quote: &[u8] = if text.starts_with(b"\"") { b"" } else { b"\"" };
            json.extend_from_slice(quote);
            json.extend_from_slice(&text);
            json.extend_from_slice(quote);
        }
    }
    Ok(())
}

/// Appends a scalar. For the head of an array or map nothing is written.
fn write_scalar(item: Item, json: &mut Vec<u8>) {
    match item {
        Item::Nil => json.extend_from_slice(b"null"),
        Item::Bool(value) => write(&value, json),
        Item::Signed(value) => write(&value, json),
        Item::Unsigned(value) => write(&value, json),
        Item::Float32(value) if value.is_finite() => write(&value, json),
        Item::Float32(value) => write(not_finite(f64::from(value)), json),
        Item::Float64(value) if value.is_finite() => write(&value, json),
        Item::Float64(value) => write(not_finite(value), json),
        Item::Str(bytes) => match str::from_utf8(bytes) {
            Ok(text) => write(text, json),
            Err(_) => write_base64(bytes, json),
        },
        Item::Bin(bytes) => write_base64(bytes, json),
        Item::Ext(kind, bytes) => {
            json.extend_from_slice(b"{\"$ext\":");
            write(&kind, json);
            json.extend_from_slice(b",\"data\":");
            write_base64(bytes, json);
            json.push(b'}');
        }
        Item::Array(_) | Item::Map(_) => {}
    }
}

fn write(value: &(impl Serialize + ?Sized), json: &mut Vec<u8>) {
    // Writing a scalar to a `Vec` cannot fail.
    let _ = serde_json::to_writer(json, value);
}

fn not_finite(value: f64) -> &'static str {
    match value {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}

fn write_base64(bytes: &[u8], json: &mut Vec<u8>) {
    json.push(b'"');
    json.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    json.push(b'"');
}
