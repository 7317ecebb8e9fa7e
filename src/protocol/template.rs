//! Text with placeholders that are filled with the parameters of a path.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::path::{Params, is_identifier, is_path_step};

/// All characters that are percent-encoded: those that are not unreserved in RFC 3986.
const NOT_UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The values that a template is filled with.
#[derive(Clone, Copy)]
pub struct TemplateContext<'a> {
    pub params: &'a Params,
    pub user_id: &'a dyn fmt::Display,
    /// Known once a message is relayed or a socket is open.
    pub channel: Option<&'a str>,
}

/// A value that is filled into a URL.
pub enum UrlValue<'a> {
    /// It tells one thing from another, so that it is never empty.
    Name(Cow<'a, str>),
    /// It may be anything in a query.
    Text(Cow<'a, str>),
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

/// Text with `{name}` placeholders: parameters of the path, `{user_id}` and `{channel}`. The rest of a path may be written
/// with its star, `{name*}`.
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
                .map(|(name, tail)| (name.strip_suffix('*').unwrap_or(name), tail))
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
        let mut out = String::with_capacity(self.text.len() + 32);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Placeholder(name) => match &**name {
                    "user_id" => out.push_str(&context.user_id.to_string()),
                    "channel" => out.push_str(context.channel.unwrap_or_default()),
                    name => out.push_str(context.params.get(name).unwrap_or_default()),
                },
            }
        }
        out
    }

    /// Fills every placeholder with `0`, for an example of what the template produces.
    pub fn example(&self) -> String {
        let zero = |_: &str| Ok::<_, std::convert::Infallible>(Cow::Borrowed("0"));
        self.fill_from(zero).unwrap_or_default()
    }

    /// Whether the placeholder of this name is written with a star.
    pub fn has_star(&self, name: &str) -> bool {
        self.text.contains(&format!("{{{name}*}}"))
    }

    /// Fills the template with percent-encoded values, so that no value changes the structure of a URL. The rest of a
    /// path is filled into the path of the URL as it was sent, with its slashes. `Err` if a value would nevertheless
    /// change the structure: it is empty, or a step of a path such as `..`, alone or together with what is around it.
    pub fn fill_url(&self, context: TemplateContext<'_>) -> Result<String, UnfitForUrl> {
        self.fill_url_from(context.params, |name| {
            UrlValue::Name(match name {
                "user_id" => context.user_id.to_string().into(),
                "channel" => context.channel.unwrap_or_default().into(),
                name => context.params.get(name).unwrap_or_default().into(),
            })
        })
    }

    /// Does the same with the result of `value` for each name.
    pub fn fill_url_from<'a>(
        &self,
        params: &Params,
        mut value: impl FnMut(&str) -> UrlValue<'a>,
    ) -> Result<String, UnfitForUrl> {
        let mut is_unfit = false;
        let mut url = String::with_capacity(self.text.len() + 32);
        for piece in &self.pieces {
            let name = match piece {
                Piece::Text(text) => {
                    url.push_str(text);
                    continue;
                }
                Piece::Placeholder(name) => name,
            };
            let in_path = !url.contains(['?', '#']);
            match params.encoded_rest(name).filter(|_| in_path) {
                Some(rest) => url.push_str(rest),
                None => {
                    let (value, is_free) = match value(name) {
                        UrlValue::Name(value) => (value, false),
                        UrlValue::Text(value) => (value, !in_path),
                    };
                    let may_be_empty = params.rest_name() == Some(name);
                    let is_step = (value.is_empty() && !may_be_empty) || is_path_step(&value);
                    is_unfit |= is_step && !is_free;
                    url.extend(utf8_percent_encode(&value, NOT_UNRESERVED));
                }
            }
        }
        let steps = |url: &str| {
            let path = url.split(['?', '#']).next().unwrap_or_default();
            path.split('/').filter(|part| is_path_step(part)).count()
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
}

#[cfg(test)]
mod tests;
