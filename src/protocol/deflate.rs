//! The negotiation of permessage-deflate (RFC 7692 section 7.1) from the extensions that a client offers.

use std::borrow::Cow;
use std::fmt::Write as _;

use hyper::HeaderMap;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_EXTENSIONS};

/// The name of the extension.
pub const PERMESSAGE_DEFLATE: &str = "permessage-deflate";

/// The largest window of DEFLATE, in bits (RFC 7692 section 7.1.2).
const MAX_WINDOW_BITS: u8 = 15;

/// What the gateway and a client have agreed on. Neither side keeps its window from one message to the next, so that a
/// connection needs no state between messages, and what is compressed can be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeflateTerms {
    /// 8 to 15; `None` = the client has set no bound, and none is named in the response.
    server_max_window_bits: Option<u8>,
    /// 8 to 15; `None` = the client does not understand the parameter, which must not be in the response then.
    client_max_window_bits: Option<u8>,
}

impl DeflateTerms {
    /// Takes the first offer of a client that can be accepted. `None` if there is none.
    ///
    /// Each element of the list is read by the grammar of RFC 6455 section 9.1. One that does not follow it, or has a
    /// parameter that is unknown, repeated or has a value that RFC 7692 does not allow, is declined by itself.
    pub fn accept_first(headers: &HeaderMap) -> Option<Self> {
        let fields = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
        fields.filter_map(|field| field.to_str().ok()).flat_map(elements).find_map(Self::accept)
    }

    fn accept(element: &str) -> Option<Self> {
        let mut rest = Cursor(element);
        rest.skip_space();
        if rest.token()? != PERMESSAGE_DEFLATE {
            return None;
        }
        let mut terms = Self { server_max_window_bits: None, client_max_window_bits: None };
        let mut names: Vec<&str> = Vec::new();
        while let Some((name, value)) = rest.parameter()? {
            if names.contains(&name) {
                return None;
            }
            names.push(name);
            match (name, value.as_deref()) {
                // Both are the gateway's own terms anyway.
                ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
                ("server_max_window_bits", Some(bits)) => {
                    terms.server_max_window_bits = Some(window_bits(bits)?);
                }
                ("client_max_window_bits", bits) => {
                    terms.client_max_window_bits =
                        Some(bits.map_or(Some(MAX_WINDOW_BITS), window_bits)?);
                }
                _ => return None,
            }
        }
        Some(terms)
    }

    /// The window that what is sent to the client has to fit into, in bits: 8 to 15.
    pub fn server_window_bits(self) -> u8 {
        self.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS)
    }

    /// The value of `Sec-WebSocket-Extensions` in the response.
    pub fn response(self) -> Option<HeaderValue> {
        let mut text =
            format!("{PERMESSAGE_DEFLATE}; server_no_context_takeover; client_no_context_takeover");
        let bits = [
            ("server_max_window_bits", self.server_max_window_bits),
            ("client_max_window_bits", self.client_max_window_bits),
        ];
        for (name, bits) in bits {
            if let Some(bits) = bits {
                // Writing to a string does not fail.
                let _ = write!(text, "; {name}={bits}");
            }
        }
        HeaderValue::from_str(&text).ok()
    }
}

/// A decimal number of 8 to 15 without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    let bits: u8 = match value.as_bytes() {
        [digit @ b'8'..=b'9'] => digit - b'0',
        [b'1', digit @ b'0'..=b'5'] => 10 + digit - b'0',
        _ => return None,
    };
    Some(bits)
}

/// The elements of a list, which are separated by commas outside of quotes.
fn elements(field: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    field.split(move |char| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match char {
            '\\' if is_quoted && !was_escaped => is_escaped = true,
            '"' if !was_escaped => is_quoted = !is_quoted,
            ',' => return !is_quoted,
            _ => {}
        }
        false
    })
}

/// The name of a parameter, and its value if it has one.
type Parameter<'a> = (&'a str, Option<Cow<'a, str>>);

/// What is left of an element. White space may be between any two parts.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    /// Takes this character and the white space around it, if it is next.
    fn take(&mut self, char: char) -> bool {
        self.skip_space();
        let rest = self.0.strip_prefix(char);
        self.0 = rest.unwrap_or(self.0);
        self.skip_space();
        rest.is_some()
    }

    /// Takes a token (RFC 9110 section 5.6.2).
    fn token(&mut self) -> Option<&'a str> {
        let end = self.0.bytes().position(|byte| !is_token(byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (end > 0).then_some(token)
    }

    /// Takes a quoted string. What it stands for must be a token (RFC 6455 section 9.1).
    fn quoted(&mut self) -> Option<String> {
        let mut chars = self.0.char_indices();
        let mut value = String::new();
        // The opening quote.
        chars.next();
        loop {
            match chars.next()? {
                (at, '"') => {
                    self.0 = &self.0[at + 1..];
                    break;
                }
                (_, '\\') => value.push(chars.next()?.1),
                (_, char) => value.push(char),
            }
        }
        (!value.is_empty() && value.bytes().all(is_token)).then_some(value)
    }

    /// Takes the next parameter: `Some(None)` at the end, `None` if something else comes.
    fn parameter(&mut self) -> Option<Option<Parameter<'a>>> {
        if !self.take(';') {
            return self.0.is_empty().then_some(None);
        }
        let name = self.token()?;
        let value = match self.take('=') {
            false => None,
            true if self.0.starts_with('"') => Some(self.quoted()?.into()),
            true => Some(self.token()?.into()),
        };
        Some(Some((name, value)))
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
