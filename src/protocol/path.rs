//! Path patterns with named segments, and templates that are filled with their values.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// All characters that are percent-encoded: those that are not unreserved in RFC 3986.
const NOT_UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The longest value of a parameter. A path with a longer one does not match.
const MAX_VALUE_BYTES: usize = 255;

/// The decoded values of the named segments of a path, in the order of the path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Box<[(Box<str>, Box<str>)]>);

impl Params {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| **key == *name).map(|(_, value)| &**value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

/// Serialized as an object.
impl serde::Serialize for Params {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Named(Box<str>),
}

/// A path such as `/ws/chat/{conversation_id}/`, in which each segment is literal text or one `{name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: Box<str>,
    segments: Box<[Segment]>,
}

impl PathPattern {
    /// `Err` describes the mistake and the correct form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(format!("{text:?} does not start with a slash"));
        };
        let mut segments: Vec<Segment> = Vec::new();
        let path = path.strip_suffix('/').unwrap_or(path);
        for part in path.split('/').filter(|_| !path.is_empty()) {
            if part.is_empty() {
                return Err(format!("{text:?} has an empty segment"));
            }
            segments.push(match part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) if is_identifier(name) => {
                    if segments.iter().any(|s| matches!(s, Segment::Named(n) if **n == *name)) {
                        return Err(format!("{text:?} names {{{name}}} twice"));
                    }
                    Segment::Named(name.into())
                }
                None if !part.contains(['{', '}', '?', '#', '*']) => Segment::Literal(part.into()),
                _ => {
                    return Err(format!(
                        "segment {part:?} of {text:?} is neither literal text nor one {{name}} of letters, digits and _"
                    ));
                }
            });
        }
        Ok(Self { text: text.into(), segments: segments.into() })
    }

    /// Matches a request path without its query; a trailing slash makes no difference. Named segments are
    /// percent-decoded, and must be 1 to 255 bytes of UTF-8 without control characters that are no step of a path.
    pub fn matches(&self, path: &str) -> Option<Params> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut parts = path.split('/').filter(|_| !path.is_empty());
        let mut params = Vec::new();
        for segment in &self.segments {
            let part = percent_decode_str(parts.next()?).decode_utf8().ok()?;
            match segment {
                Segment::Literal(literal) if **literal == *part => {}
                Segment::Named(name)
                    if (1..=MAX_VALUE_BYTES).contains(&part.len())
                        && !part.chars().any(char::is_control)
                        && !is_path_step(&part) =>
                {
                    params.push((name.clone(), part.into()));
                }
                _ => return None,
            }
        }
        parts.next().is_none().then(|| Params(params.into()))
    }

    /// The names of the parameters, in the order of the path.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Named(name) => Some(&**name),
            Segment::Literal(_) => None,
        })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether `value` would lead out of its place in a URL: one of its parts between slashes is `.` or `..`, however often
/// it is percent-encoded, because each server on the way may decode it once. Some servers drop what follows a semicolon
/// in a part (RFC 3986 section 3.3), or spaces around it, before they look for steps.
pub fn is_path_step(value: &str) -> bool {
    let is_step = |part: &str| {
        let name = part.split(';').next().unwrap_or_default();
        matches!(name.trim(), "." | "..")
    };
    let is_step = |text: &str| text.split(['/', '\\']).any(is_step);
    let mut text = Cow::Borrowed(value);
    loop {
        if is_step(&text) {
            return true;
        }
        // Each round makes the text shorter.
        match percent_decode_str(&text).decode_utf8_lossy() {
            decoded if decoded == text => return false,
            decoded => text = Cow::Owned(decoded.into_owned()),
        }
    }
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The values that a template is filled with.
#[derive(Clone, Copy)]
pub struct TemplateContext<'a> {
    pub params: &'a Params,
    pub user_id: &'a dyn fmt::Display,
    /// Known once a message is relayed or a socket is open.
    pub channel: Option<&'a str>,
}

/// A value has no place in a URL; see [`Template::fill_url`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnfitForUrl;

impl fmt::Display for UnfitForUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of its URL is empty or a step of a path")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Placeholder(Box<str>),
}

/// Text with `{name}` placeholders: parameters of the path, `{user_id}` and `{channel}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    pieces: Box<[Piece]>,
}

impl Template {
    /// `Err` describes the mistake and the correct form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(open);
            let name = after
                .strip_prefix('{')
                .and_then(|after| after.split_once('}'))
                .filter(|(name, _)| is_identifier(name));
            let Some((name, tail)) = name else {
                return Err(format!("{text:?} has a brace that is not part of a {{name}}"));
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            pieces.push(Piece::Placeholder(name.into()));
            rest = tail;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Self { text: text.into(), pieces: pieces.into() })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of the placeholders.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Placeholder(name) => Some(&**name),
            Piece::Text(_) => None,
        })
    }

    /// Fills the template. A name that is not in the context becomes empty; the config refuses templates with names
    /// that will not be there.
    pub fn fill(&self, context: TemplateContext<'_>) -> String {
        self.fill_with(context, |out, value| out.push_str(value))
    }

    /// Fills every placeholder with `0`, for an example of what the template produces.
    pub fn example(&self) -> String {
        let zero = |_: &str| Ok::<_, std::convert::Infallible>(Cow::Borrowed("0"));
        self.fill_from(zero).unwrap_or_default()
    }

    /// Fills the template with percent-encoded values, so that no value changes the structure of a URL. `Err` if one
    /// would nevertheless: it is empty, or a step of a path such as `..`, alone or together with what is around it.
    pub fn fill_url(&self, context: TemplateContext<'_>) -> Result<String, UnfitForUrl> {
        let mut is_unfit = false;
        let url = self.fill_with(context, |out, value| {
            is_unfit |= value.is_empty() || is_path_step(value);
            out.extend(utf8_percent_encode(value, NOT_UNRESERVED));
        });
        let steps = |url: &str| {
            let path = url.split(['?', '#']).next().unwrap_or_default();
            path.split('/').filter(|part| matches!(*part, "." | "..")).count()
        };
        if is_unfit || steps(&url) > steps(&self.text) { Err(UnfitForUrl) } else { Ok(url) }
    }

    /// Whether the template begins with a placeholder, so that its values could make any name.
    pub fn begins_with_placeholder(&self) -> bool {
        matches!(self.pieces.first(), Some(Piece::Placeholder(_)))
    }

    /// The text before the first placeholder.
    pub fn literal_start(&self) -> &str {
        self.text.split('{').next().unwrap_or_default()
    }

    /// The template with `prefix`, which has no placeholders, in front.
    pub fn with_prefix(self, prefix: &str) -> Self {
        if prefix.is_empty() {
            return self;
        }
        let text = format!("{prefix}{}", self.text).into();
        let pieces = [Piece::Text(prefix.into())].into_iter().chain(self.pieces).collect();
        Self { text, pieces }
    }

    /// Fills the template with the result of `value` for each name, and stops at the first `Err`.
    pub fn fill_from<'a, E>(
        &self,
        mut value: impl FnMut(&str) -> Result<Cow<'a, str>, E>,
    ) -> Result<String, E> {
        let mut out = String::with_capacity(self.text.len() + 32);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Placeholder(name) => out.push_str(&value(name)?),
            }
        }
        Ok(out)
    }

    fn fill_with(
        &self,
        context: TemplateContext<'_>,
        mut push: impl FnMut(&mut String, &str),
    ) -> String {
        let mut out = String::with_capacity(self.text.len() + 32);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Placeholder(name) => match &**name {
                    "user_id" => push(&mut out, &context.user_id.to_string()),
                    "channel" => push(&mut out, context.channel.unwrap_or_default()),
                    name => push(&mut out, context.params.get(name).unwrap_or_default()),
                },
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
