//! What an API says of its failure.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::escaped::{Count, Escaped, Text};
use super::faults;
use super::item::Failure;

/// The most of a failure's text that is published.
const MAX_TEXT_CHARS: usize = 500;
const MAX_CODE_CHARS: usize = 100;

/// How deep an error may lie in others.
const MAX_DEPTH: u8 = 4;

const NO_TEXT: &str = "the service failed while it replied";

/// The members by which APIs say what went wrong.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, alias = "__error__")]
    error: Option<&'a RawValue>,
    /// A text, or a list of them.
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    /// A text, or a list of faults.
    #[serde(borrow, default)]
    detail: Option<&'a RawValue>,
    #[serde(borrow, default)]
    errors: Option<&'a RawValue>,
    #[serde(borrow, default)]
    title: Text<'a>,
    #[serde(borrow, default)]
    error_description: Text<'a>,
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

/// Whether an object of no other meaning says that it is an error: by a member `error`, or as its type.
pub(super) fn is_failure(json: &str) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Text<'a>,
        #[serde(borrow, default)]
        object: Text<'a>,
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
        /// LangGraph's, of a run whose state is asked for.
        #[serde(borrow, default, rename = "__error__")]
        run_error: Option<&'a RawValue>,
    }
    let Ok(Some(it)) = super::parse::<Kind<'_>>(json) else { return false };
    let is_untyped = it.kind.word().is_empty() && it.object.word().is_empty();
    // Some write the member always.
    let says_so = |error: &RawValue| !matches!(error.get(), "false" | "0" | "\"\"" | "{}" | "[]");
    "error" == it.kind.word()
        || "error" == it.object.word()
        || (is_untyped && it.error.or(it.run_error).is_some_and(says_so))
}

impl Failure {
    /// Reads the data of a failed stream: a text, or JSON of any form.
    pub fn read(data: &str) -> Self {
        let is_json = crate::protocol::json_text(data).is_some();
        let read = if is_json { Self::of_json(data) } else { Self::of_text(data) };
        read.unwrap_or_default().or_text(NO_TEXT)
    }

    /// Reads the JSON of a failure; `None` if it is not JSON or says nothing. The text may be empty beside a code.
    pub fn of_json(json: &str) -> Option<Self> {
        let json = serde_json::from_str::<&RawValue>(json.trim()).ok()?;
        Self::of_value(json, 0).bounded()
    }

    /// The failure that only the reason says for which the reply has ended.
    pub fn of_finish(reason: &str) -> Self {
        Self { code: Some(reason.to_owned()), text: NO_TEXT.to_owned() }
    }

    /// Takes a text that says why; `None` if there is none.
    pub fn of_text(text: &str) -> Option<Self> {
        Self { code: None, text: text.to_owned() }.bounded()
    }

    /// Fills in a text if there is none.
    pub fn or_text(mut self, text: &str) -> Self {
        if self.text.is_empty() {
            self.text = text.to_owned();
        }
        self
    }

    fn of_value(json: &RawValue, depth: u8) -> Self {
        let members: Option<Members<'_>> =
            json.get().starts_with('{').then(|| serde_json::from_str(json.get()).ok()).flatten();
        let Some(members) = members else {
            // Gemini puts its error into a list.
            return match serde_json::from_str::<[&RawValue; 1]>(json.get()) {
                Ok([only]) if depth < MAX_DEPTH => Self::of_value(only, depth + 1),
                _ => Self { code: None, text: faults::text(json) },
            };
        };
        let inner =
            members.error.filter(|_| depth < MAX_DEPTH).map(|json| Self::of_value(json, depth + 1));
        let (inner_code, inner_text) = match inner {
            Some(inner) => (inner.code, Some(inner.text).filter(|text| !text.is_empty())),
            None => (None, None),
        };
        match (members.own_text(), inner_text) {
            // The `error` of LangGraph is the class of the exception, that of OAuth a code, that of others the status.
            (Some(text), Some(class)) => {
                Self { code: inner_code.or_else(|| members.own_code()).or(Some(class)), text }
            }
            (None, None) => {
                let code = inner_code.or_else(|| members.own_code());
                // Without any member that is known, each is the name of a field, with its faults.
                let text = if code.is_none() { faults::text(json) } else { String::new() };
                Self { code, text }
            }
            (text, inner_text) => Self {
                code: inner_code.or_else(|| members.own_code()),
                text: text.or(inner_text).unwrap_or_default(),
            },
        }
    }

    fn bounded(self) -> Option<Self> {
        let cut = |text: &str, chars| text.trim().chars().take(chars).collect::<String>();
        let text = cut(&self.text, MAX_TEXT_CHARS);
        let code = self.code.map(|code| cut(&code, MAX_CODE_CHARS));
        let code = code.filter(|code| !code.is_empty());
        (code.is_some() || !text.is_empty()).then_some(Self { code, text })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) if self.text.is_empty() => f.write_str(code),
            Some(code) => write!(f, "{} ({code})", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl Members<'_> {
    fn own_text(&self) -> Option<String> {
        let text = |json: Option<&RawValue>| Some(faults::text(json?)).filter(|it| !it.is_empty());
        let decoded = |text: Text<'_>| text.filled().map(|text| text.decode().into_owned());
        text(self.message)
            .or_else(|| decoded(self.error_text))
            .or_else(|| text(self.detail))
            .or_else(|| decoded(self.error_description))
            .or_else(|| text(self.errors))
            .or_else(|| decoded(self.title))
    }

    /// Words before numbers, because they say more.
    fn own_code(&self) -> Option<String> {
        let code = self.code.and_then(Escaped::of_string).filter(|code| !code.is_empty());
        let kind = self
            .kind
            .filled()
            .filter(|kind| !matches!(kind.as_str(), "error" | "RUN_ERROR" | "about:blank"));
        let word = code.or_else(|| self.status.filled()).or(kind);
        let number = || {
            let code = self.code.map(RawValue::get).filter(|json| *json != "null");
            code.map(str::to_owned).or_else(|| self.status_code.0.map(|code| code.to_string()))
        };
        word.map(|word| word.decode().into_owned()).or_else(number)
    }
}
