//! Path patterns with named segments.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

/// The longest value of a parameter. A path with a longer one does not match.
const MAX_VALUE_BYTES: usize = 255;

/// The same for the rest of a path, as it was sent.
const MAX_REST_BYTES: usize = 4096;

/// The decoded values of the named segments of a path, in the order of the path. Cheap to clone.
///
/// They are one text, since each open connection holds them: each name and each value ends with `END`, and what follows
/// `REST` is the last value as it was sent, if it is the rest of the path. None of them has control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Arc<str>);

const END: char = '\0';
const REST: char = '\u{1}';

impl Params {
    fn new<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = String::new();
        values.into_iter().for_each(|(name, value)| append(&mut text, name, value));
        Self(text.into())
    }

    fn split(&self) -> (&str, Option<&str>) {
        match self.0.split_once(REST) {
            Some((values, rest)) => (values, Some(rest)),
            None => (&self.0, None),
        }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.split().0.split_terminator(END);
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }

    /// Returns the parameters for whose names `is_wanted` returns true, without the encoded form of the rest.
    pub fn only(&self, is_wanted: impl Fn(&str) -> bool) -> Self {
        Self::new(self.iter().filter(|(name, _)| is_wanted(name)))
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Returns the name of the rest of the path; `None` = the route's path ends with a segment.
    pub(super) fn rest_name(&self) -> Option<&str> {
        self.split().1.and(self.iter().last()).map(|(name, _)| name)
    }

    /// Returns the rest of the path with the percent-encoding of the request, if `name` is its name.
    pub(super) fn encoded_rest(&self, name: &str) -> Option<&str> {
        self.split().1.filter(|_| self.rest_name() == Some(name))
    }
}

fn append(text: &mut String, name: &str, value: &str) {
    for part in [name, value] {
        text.push_str(part);
        text.push(END);
    }
}

/// Serialized as an object.
impl serde::Serialize for Params {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// In the order of their names, and without the encoded form of the rest.
impl<'de> serde::Deserialize<'de> for Params {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = BTreeMap::<Box<str>, Box<str>>::deserialize(deserializer)?;
        let mut texts = values.iter().flat_map(|(name, value)| [name, value]);
        if texts.any(|text| text.contains([END, REST])) {
            return Err(serde::de::Error::custom("a parameter has a control character"));
        }
        Ok(Self::new(values.iter().map(|(name, value)| (&**name, &**value))))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Named(Box<str>),
}

/// A path such as `/ws/chat/{conversation_id}/`, in which each segment is literal text or one `{name}`. The last one may
/// be `{name*}`, which takes the rest of a path: any number of segments with their slashes, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: Box<str>,
    segments: Box<[Segment]>,
    /// The name of the rest that follows the segments.
    rest: Option<Box<str>>,
}

impl PathPattern {
    /// `Err` describes the mistake and the correct form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(format!("{text:?} does not start with a slash"));
        };
        let (path, rest) = split_rest(text, path)?;
        let mut segments: Vec<Segment> = Vec::new();
        let path = path.strip_suffix('/').unwrap_or(path);
        for part in path.split('/').filter(|_| !path.is_empty()) {
            if part.is_empty() {
                return Err(format!("{text:?} has an empty segment"));
            }
            segments.push(match part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) if is_identifier(name) => {
                    let is_same = |s: &Segment| matches!(s, Segment::Named(n) if **n == *name);
                    if segments.iter().any(is_same) || rest == Some(name) {
                        return Err(format!("{text:?} names {{{name}}} twice"));
                    }
                    Segment::Named(name.into())
                }
                Some(name) if name.strip_suffix('*').is_some_and(is_identifier) => {
                    return Err(format!(
                        "{part} of {text:?} takes everything up to the end of the path; write it last, without a slash \
                         behind it"
                    ));
                }
                None if !part.contains(['{', '}', '?', '#', '*']) => Segment::Literal(part.into()),
                _ if matches!(part, "*" | "**") => {
                    return Err(format!(
                        "{part} of {text:?} stands for nothing; write {{rest*}} for the rest of a path, or {{name}} for a \
                         segment"
                    ));
                }
                _ => {
                    return Err(format!(
                        "segment {part:?} of {text:?} is neither literal text nor one {{name}} of letters, digits and _"
                    ));
                }
            });
        }
        Ok(Self { text: text.into(), segments: segments.into(), rest: rest.map(Into::into) })
    }

    /// Matches a request path without its query; a trailing slash makes no difference, except to a rest, which has it.
    /// Named segments are percent-decoded, and must be 1 to 255 bytes of UTF-8 without control characters that are no
    /// step of a path. The same holds for a rest, which may also be empty or have 4096 bytes.
    pub fn matches(&self, path: &str) -> Option<Params> {
        let (parts, rest) = self.split(path)?;
        // Names are in the pattern and values in the path, so that the text hardly ever grows.
        let mut text = String::with_capacity(self.text.len() + path.len());
        for (segment, part) in self.segments.iter().zip(parts) {
            if let Segment::Named(name) = segment {
                append(&mut text, name, &decoded_value(part, MAX_VALUE_BYTES)?);
            }
        }
        if let Some(name) = &self.rest {
            append(&mut text, name, &decoded_value(rest, MAX_REST_BYTES)?);
            text.push(REST);
            text.push_str(rest);
        }
        Some(Params(text.into()))
    }

    /// Whether a path has the literal segments of the pattern in their places and as many segments. It matches if its
    /// values are fit as well.
    pub fn has_shape_of(&self, path: &str) -> bool {
        self.split(path).is_some()
    }

    /// Splits a path of this shape into the segments, and what follows them.
    fn split<'p>(&self, path: &'p str) -> Option<(Vec<&'p str>, &'p str)> {
        let path = path.strip_prefix('/')?;
        let path = match self.rest {
            Some(_) => path,
            None => path.strip_suffix('/').unwrap_or(path),
        };
        let mut remaining = Some(path).filter(|path| !path.is_empty() || self.rest.is_some());
        let mut parts = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            let text = remaining?;
            let (part, after) = match text.split_once('/') {
                Some((part, after)) => (part, Some(after)),
                None => (text, None),
            };
            let is_in_place = match segment {
                Segment::Named(_) => !part.is_empty(),
                Segment::Literal(literal) => {
                    percent_decode_str(part).decode_utf8().is_ok_and(|part| **literal == *part)
                }
            };
            if !is_in_place {
                return None;
            }
            parts.push(part);
            remaining = after;
        }
        (self.rest.is_some() || remaining.is_none()).then(|| (parts, remaining.unwrap_or_default()))
    }

    /// Whether the path ends with the rest of a request's path.
    pub fn has_rest(&self) -> bool {
        self.rest.is_some()
    }

    /// Whether every path that has the shape of `other` has that of this pattern as well.
    pub fn covers(&self, other: &Self) -> bool {
        let has_room = match (&self.rest, &other.rest) {
            (None, None) => self.segments.len() == other.segments.len(),
            (None, Some(_)) => false,
            (Some(_), _) => self.segments.len() <= other.segments.len(),
        };
        let covers = |(own, other): (&Segment, &Segment)| match own {
            Segment::Named(_) => true,
            Segment::Literal(_) => own == other,
        };
        has_room && self.segments.iter().zip(&other.segments).all(covers)
    }

    /// Orders patterns with a rest: the ones with more segments before it come first, then those with a literal segment
    /// where others have a name.
    pub fn compare_rest(&self, other: &Self) -> Ordering {
        let is_named = |segment: &Segment| matches!(segment, Segment::Named(_));
        let names = |pattern: &Self| pattern.segments.iter().map(is_named).collect::<Vec<_>>();
        let by_length = other.segments.len().cmp(&self.segments.len());
        by_length.then_with(|| names(self).cmp(&names(other)))
    }

    /// The names of the parameters, in the order of the path.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let named = self.segments.iter().filter_map(|segment| match segment {
            Segment::Named(name) => Some(&**name),
            Segment::Literal(_) => None,
        });
        named.chain(self.rest.as_deref())
    }

    /// The name of the rest of a path.
    pub fn rest_name(&self) -> Option<&str> {
        self.rest.as_deref()
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

/// Splits `{name*}` off the end of a pattern.
fn split_rest<'p>(text: &str, path: &'p str) -> Result<(&'p str, Option<&'p str>), String> {
    let (before, last) = path.rsplit_once('/').map_or(("", path), |(before, last)| (before, last));
    let name = last.strip_prefix('{').and_then(|last| last.strip_suffix("*}"));
    let Some(name) = name.filter(|name| is_identifier(name)) else { return Ok((path, None)) };
    if before.ends_with('/') || (before.is_empty() && path.starts_with('/')) {
        return Err(format!("{text:?} has an empty segment"));
    }
    Ok((before, Some(name)))
}

/// Decodes the value of a parameter; `None` = it is not fit to be one.
fn decoded_value(text: &str, max_bytes: usize) -> Option<Cow<'_, str>> {
    let value = percent_decode_str(text).decode_utf8().ok()?;
    let is_fit =
        value.len() <= max_bytes && !value.chars().any(char::is_control) && !is_path_step(&value);
    is_fit.then_some(value)
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

pub(super) fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests;
