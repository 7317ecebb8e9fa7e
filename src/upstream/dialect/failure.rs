//! What an API says of its failure.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::escaped::{Count, Escaped, Text};
use super::item::Failure;

/// The most of a failure's text that is published.
const MAX_TEXT_CHARS: usize = 500;
const MAX_CODE_CHARS: usize = 100;

const NO_TEXT: &str = "the service failed while it replied";

/// The members by which APIs say what went wrong.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Text<'a>,
    #[serde(borrow, default)]
    detail: Text<'a>,
    #[serde(borrow, default, rename = "errorText")]
    error_text: Text<'a>,
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Text<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(default)]
    status_code: Count,
}

impl Failure {
    /// Reads the data of a failure: a text, or JSON of any form.
    pub fn read(data: &str) -> Self {
        let data = data.trim();
        let read = match serde_json::from_str::<&RawValue>(data) {
            Ok(json) => Self::of_value(json, 0),
            Err(_) => Self { code: None, text: data.to_owned() },
        };
        read.bounded()
    }

    fn of_value(json: &RawValue, depth: usize) -> Self {
        if let Some(text) = Escaped::of_string(json) {
            return Self { code: None, text: text.decode().into_owned() };
        }
        let members: Option<Option<Members<'_>>> =
            json.get().starts_with('{').then(|| serde_json::from_str(json.get()).ok());
        let Some(members) = members.flatten() else {
            // A list of faults, or null.
            let text = if json.get() == "null" { "" } else { json.get() };
            return Self { code: None, text: text.to_owned() };
        };
        let inner = members.error.filter(|_| depth < 4).map(|json| Self::of_value(json, depth + 1));
        let texts = [members.message, members.error_text, members.detail];
        let own_text = texts.into_iter().find_map(Text::filled).map(|it| it.decode().into_owned());
        let (inner_code, inner_text) = match inner {
            Some(inner) => (inner.code, Some(inner.text).filter(|text| !text.is_empty())),
            None => (None, None),
        };
        match (own_text, inner_text) {
            // LangGraph's `error` is the class of the exception.
            (Some(text), Some(class)) => {
                Self { code: inner_code.or_else(|| members.own_code()).or(Some(class)), text }
            }
            (text, inner_text) => Self {
                code: inner_code.or_else(|| members.own_code()),
                text: text.or(inner_text).unwrap_or_default(),
            },
        }
    }

    fn bounded(self) -> Self {
        let cut = |text: &str, chars| text.trim().chars().take(chars).collect::<String>();
        let text = Some(cut(&self.text, MAX_TEXT_CHARS)).filter(|text| !text.is_empty());
        let code = self.code.map(|code| cut(&code, MAX_CODE_CHARS));
        Self {
            text: text.unwrap_or_else(|| NO_TEXT.to_owned()),
            code: code.filter(|code| !code.is_empty()),
        }
    }
}

impl Members<'_> {
    /// Words before numbers, because they say more.
    fn own_code(&self) -> Option<String> {
        let code = self.code.and_then(Escaped::of_string).filter(|code| !code.is_empty());
        let kind =
            self.kind.filled().filter(|kind| !matches!(kind.as_str(), "error" | "RUN_ERROR"));
        let word = code.or_else(|| self.status.filled()).or(kind);
        let number = || {
            let code = self.code.map(RawValue::get).filter(|json| *json != "null");
            code.map(str::to_owned).or_else(|| self.status_code.0.map(|code| code.to_string()))
        };
        word.map(|word| word.decode().into_owned()).or_else(number)
    }
}
