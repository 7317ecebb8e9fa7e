//! The form in which the text of a publication reaches clients.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{EventName, json_text, label_enum};

label_enum! {
    /// Why a publication is not the JSON that its publisher probably meant to write.
    pub enum NotJson {
        /// It has `NaN`, `Infinity` or `-Infinity`, as Python writes them. They are put into quotes.
        BareFloats => "bare_floats",
        /// It is something else, such as `str()` of a Python dict. It is published as text.
        Text => "text",
        /// It is not UTF-8. It is published in base64.
        Bytes => "bytes",
    }
}

/// A publication as a JSON object.
pub struct PublishedObject<'a> {
    pub json: Cow<'a, str>,
    /// Set if the publisher probably meant to write JSON.
    pub fault: Option<NotJson>,
}

/// Returns a publication as a JSON object, to which members can be added. Anything that is not an object becomes the
/// `data` of one: a JSON value as it is, and any other text as a string.
pub fn published_object(text: &str) -> PublishedObject<'_> {
    let (data, fault) = match json_text(text) {
        Some(Cow::Borrowed(json)) => (Cow::Borrowed(json), None),
        Some(quoted) => (quoted, Some(NotJson::BareFloats)),
        None => {
            let data = message(&serde_json::Value::from(text).to_string());
            let fault = looks_like_object(text).then_some(NotJson::Text);
            return PublishedObject { json: data.into(), fault };
        }
    };
    let json = if data.starts_with('{') { data } else { message(&data).into() };
    PublishedObject { json, fault }
}

/// Returns a publication to which nothing is added. It is unchanged unless it looks like a JSON object but is none, which
/// would break every client that parses it.
pub fn published_text(text: &str) -> PublishedObject<'_> {
    if looks_like_object(text) && !matches!(json_text(text), Some(Cow::Borrowed(_))) {
        return published_object(text);
    }
    PublishedObject { json: Cow::Borrowed(text), fault: None }
}

/// Returns a publication that is not text as an object, with its bytes in standard base64.
pub fn published_bytes(bytes: &[u8]) -> String {
    message(&format!("\"{}\"", STANDARD.encode(bytes)))
}

fn message(data: &str) -> String {
    format!("{{\"event\":\"{}\",\"data\":{data}}}", EventName::Message)
}

fn looks_like_object(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('{') && text.ends_with('}')
}

#[cfg(test)]
mod tests;
