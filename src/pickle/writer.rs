//! Writes pickles of protocol 4, which Python reads since 3.4, without the optional memo and frames.

use serde_json::Value as Json;

use super::opcodes::*;

const PROTOCOL: u8 = 4;

/// Pickles a set of texts, as Django's cache stores it.
pub fn write_text_set<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut pickle = vec![PROTO, PROTOCOL, EMPTY_SET];
    let mut texts = texts.peekable();
    if texts.peek().is_some() {
        pickle.push(MARK);
        texts.for_each(|text| write_text(text, &mut pickle));
        pickle.push(ADDITEMS);
    }
    pickle.push(STOP);
    pickle
}

/// Pickles the value that Python's `json.loads` would give for `json`. Integers beyond signed 64 bits become
/// floats. Recurses as deep as `json`.
pub fn write_json(json: &Json) -> Vec<u8> {
    let mut pickle = vec![PROTO, PROTOCOL];
    write_value(json, &mut pickle);
    pickle.push(STOP);
    pickle
}

fn write_value(json: &Json, pickle: &mut Vec<u8>) {
    match json {
        Json::Null => pickle.push(NONE),
        Json::Bool(true) => pickle.push(NEWTRUE),
        Json::Bool(false) => pickle.push(NEWFALSE),
        Json::Number(number) => match number.as_i64() {
            Some(value) => write_integer(value, pickle),
            None => {
                pickle.push(BINFLOAT);
                pickle.extend_from_slice(&number.as_f64().unwrap_or(f64::NAN).to_be_bytes());
            }
        },
        Json::String(text) => write_text(text, pickle),
        Json::Array(items) => {
            pickle.extend_from_slice(&[EMPTY_LIST, MARK]);
            items.iter().for_each(|item| write_value(item, pickle));
            pickle.push(APPENDS);
        }
        Json::Object(members) => {
            pickle.extend_from_slice(&[EMPTY_DICT, MARK]);
            for (name, value) in members {
                write_text(name, pickle);
                write_value(value, pickle);
            }
            pickle.push(SETITEMS);
        }
    }
}

fn write_integer(value: i64, pickle: &mut Vec<u8>) {
    match (u8::try_from(value), i32::try_from(value)) {
        (Ok(value), _) => pickle.extend_from_slice(&[BININT1, value]),
        (_, Ok(value)) => {
            pickle.push(BININT);
            pickle.extend_from_slice(&value.to_le_bytes());
        }
        _ => {
            pickle.extend_from_slice(&[LONG1, 8]);
            pickle.extend_from_slice(&value.to_le_bytes());
        }
    }
}

fn write_text(text: &str, pickle: &mut Vec<u8>) {
    match (u8::try_from(text.len()), u32::try_from(text.len())) {
        (Ok(length), _) => pickle.extend_from_slice(&[SHORT_BINUNICODE, length]),
        (_, Ok(length)) => {
            pickle.push(BINUNICODE);
            pickle.extend_from_slice(&length.to_le_bytes());
        }
        _ => {
            pickle.push(BINUNICODE8);
            pickle.extend_from_slice(&(text.len() as u64).to_le_bytes());
        }
    }
    pickle.extend_from_slice(text.as_bytes());
}
