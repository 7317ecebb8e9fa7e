//! Kinds of text: names, prefixes, paths, templates, secrets and log filters.

use std::str::FromStr;

use hyper::header::{HeaderName, HeaderValue};
use tracing_subscriber::EnvFilter;

use super::{Kind, ValueError, kind, parsed, text};
use crate::config::Secret;
use crate::protocol::{PathPattern, Template};

/// A text that becomes part of a Redis key or is compared with a claim.
pub(in crate::config) const TEXT: Kind<String> =
    kind("text", "a text of at most 255 bytes without control characters", |value| {
        parsed(value, plain_text)
    });

pub(in crate::config) const OPTIONAL_TEXT: Kind<Option<String>> =
    kind(TEXT.name, TEXT.expected, |value| {
        parsed(value, |text| plain_text(text).map(|text| (!text.is_empty()).then_some(text)))
    });

/// The prefix of Redis keys and of channel names.
pub(in crate::config) const KEY_PREFIX: Kind<String> =
    kind("text", "a text of at most 128 bytes without spaces or control characters", |value| {
        parsed(value, |text| {
            plain_text(text).filter(|text| text.len() <= 128 && !text.contains(char::is_whitespace))
        })
    });

pub(in crate::config) const OPTIONAL_FILE: Kind<Option<String>> =
    kind("path", r#"the path of a file, or """#, |value| {
        parsed(value, |text| {
            let is_path = !text.contains(char::is_control);
            is_path.then(|| (!text.is_empty()).then(|| text.to_owned()))
        })
    });

pub(in crate::config) const NAME: Kind<String> =
    kind("text", "a text of 1 to 255 bytes without control characters", |value| {
        parsed(value, |text| plain_text(text).filter(|text| !text.is_empty()))
    });

/// The name of a cookie or header: both are tokens of RFC 9110 section 5.6.2.
pub(in crate::config) const TOKEN: Kind<String> =
    kind("name", r#"a name of letters, digits and - such as "X-CSRFToken""#, |value| {
        parsed(value, |text| HeaderName::from_str(text).is_ok().then(|| text.to_owned()))
    });

/// A header of a request, whose value may be a secret.
pub(in crate::config) const HEADER: Kind<(HeaderName, HeaderValue)> =
    kind("header", r#"a header such as "authorization: Bearer …""#, |value| {
        let (name, value) = text(value)?.split_once(':').ok_or(ValueError::WrongKind)?;
        let name =
            HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| ValueError::WrongKind)?;
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| ValueError::WrongKind)?;
        // Debug output of a sensitive header does not show it.
        value.set_sensitive(true);
        Ok((name, value))
    });

/// A path of this gateway without parameters; `""` stands for `None`.
pub(in crate::config) const OPTIONAL_PATH: Kind<Option<String>> =
    kind("path", r#"a path such as "/api/tokens/", or """#, |value| {
        let text = text(value)?;
        if text.is_empty() {
            return Ok(None);
        }
        let pattern = PathPattern::parse(text).map_err(ValueError::Quoting)?;
        match pattern.names().next() {
            None => Ok(Some(text.to_owned())),
            Some(_) => Err(ValueError::WrongKind),
        }
    });

pub(in crate::config) const PATH_PATTERN: Kind<PathPattern> =
    kind("path pattern", r#"a path such as "/ws/chat/{conversation_id}/""#, |value| {
        PathPattern::parse(text(value)?).map_err(ValueError::Quoting)
    });

pub(in crate::config) const TEMPLATE: Kind<Template> =
    kind("template", r#"a text such as "chat_{conversation_id}""#, |value| {
        let text = text(value).ok().filter(|text| !text.is_empty()).ok_or(ValueError::WrongKind)?;
        Template::parse(text).map_err(ValueError::Quoting)
    });

pub(in crate::config) const OPTIONAL_TEMPLATE: Kind<Option<Template>> =
    kind("template", r#"a text such as "chat-{conversation_id}-*", or """#, |value| {
        let text = text(value)?;
        let template = (!text.is_empty()).then(|| Template::parse(text)).transpose();
        template.map_err(ValueError::Quoting)
    });

pub(in crate::config) const SECRET: Kind<Secret> =
    kind("secret", "a text that is not empty", |value| match text(value)? {
        "" => Err(ValueError::WrongKind),
        text => Ok(Secret::new(text)),
    });

pub(in crate::config) const OPTIONAL_SECRET: Kind<Option<Secret>> =
    kind("secret", "a text", |value| match text(value)? {
        "" => Ok(None),
        text => Ok(Some(Secret::new(text))),
    });

pub(in crate::config) const LOG_LEVEL: Kind<String> =
    kind("log filter", r#"a filter such as "info" or "tidegate=debug,warn""#, |value| {
        parsed(value, |text| is_log_filter(text).then(|| text.to_owned()))
    });

fn plain_text(text: &str) -> Option<String> {
    (text.len() <= 255 && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// Whether every part is a level, or has a target or span. `EnvFilter` takes a misspelled level for a
/// target, which would turn logging off without a word.
fn is_log_filter(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |part: &str| {
        part.contains(['=', '[']) || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part))
    };
    text.split(',').all(|part| known(part.trim())) && EnvFilter::try_new(text).is_ok()
}
