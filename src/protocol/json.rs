//! Checks that a text is JSON (RFC 8259), without building what it says.
//!
//! It reads what servers and workers publish, about once per publication and node. Invariants for any text: no
//! recursion, no panic, one pass, and no allocation unless a number has to be put into quotes.

use std::borrow::Cow;

/// The deepest nesting of objects and arrays, as in a channel layer. A deeper text is not accepted as JSON, because
/// the parsers of some clients would fail.
pub const MAX_DEPTH: usize = 512;

/// What Python's `json.dumps` writes for floats that JSON does not have.
const BARE_FLOATS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Returns the one JSON value in `text` without the space around it; `None` if it is not JSON. `NaN`, `Infinity` and
/// `-Infinity`, which Python writes where a value is expected, are put into quotes; only then the text is owned.
///
/// Escapes of single surrogates (`"\ud83d"`) are JSON by its grammar, and every `JSON.parse` reads them.
pub fn json_text(text: &str) -> Option<Cow<'_, str>> {
    let mut scanner = Scanner { text, at: 0, quoted: None };
    scanner.skip_space();
    let start = scanner.at;
    scanner.value()?;
    let end = scanner.at;
    scanner.skip_space();
    if scanner.at < text.len() {
        return None;
    }
    Some(match scanner.quoted {
        None => Cow::Borrowed(text.get(start..end)?),
        Some(Quoted { mut json, copied }) => {
            json.push_str(text.get(copied..end)?);
            Cow::Owned(json.split_off(start))
        }
    })
}

/// Returns a text without the byte order mark that it may begin with (RFC 8259 section 8.1).
pub fn strip_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Whether a string in `json`, which is JSON, escapes one half of a surrogate pair without the other. Such a string
/// has no form in UTF-8, so that most programs cannot read it.
pub fn has_lone_surrogate(json: &str) -> bool {
    let mut rest = json.as_bytes();
    loop {
        rest = rest.get(plain_length(rest)..).unwrap_or_default();
        let length = match rest {
            [] => return false,
            [b'\\', b'u', ..] => match (utf16_unit(rest), rest.get(6..).and_then(utf16_unit)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
                (Some(0xd800..=0xdfff), _) => return true,
                (Some(_), _) => 6,
                (None, _) => 2,
            },
            [b'\\', ..] => 2,
            _ => 1,
        };
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// Makes the escaped inside of a JSON string one that every program can read: the first half of a surrogate pair at its
/// end is split off, because the other half may come in the next piece, and any other single half becomes U+FFFD.
pub fn pair_surrogates(escaped: &str) -> (Cow<'_, str>, &str) {
    if !has_lone_surrogate(escaped) {
        return (Cow::Borrowed(escaped), "");
    }
    let (mut paired, mut rest) = (String::with_capacity(escaped.len()), escaped);
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        paired.push_str(plain);
        let second = escape.as_bytes().get(6..).and_then(utf16_unit);
        let length = match (utf16_unit(escape.as_bytes()), second) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdbff), _) if escape.len() == 6 => return (Cow::Owned(paired), escape),
            (Some(0xd800..=0xdfff), _) => {
                paired.push_str("\\ufffd");
                rest = escape.get(6..).unwrap_or_default();
                continue;
            }
            (Some(_), _) => 6,
            (None, _) => 2,
        };
        let (kept, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        paired.push_str(kept);
        rest = after;
    }
    paired.push_str(rest);
    (Cow::Owned(paired), "")
}

/// The code unit of the escape `\uXXXX` at the start of `bytes`.
fn utf16_unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The members of a JSON object with their raw texts: the name in its quotes, and the value. Ends early if `object` is
/// not a JSON object.
///
/// Unlike serde, it reads past names that have no form in UTF-8.
pub fn json_members(object: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut scanner = Scanner { text: object, at: 0, quoted: None };
    scanner.skip_space();
    let mut before = b'{';
    std::iter::from_fn(move || {
        scanner.take(before)?;
        before = b',';
        scanner.skip_space();
        let start = scanner.at;
        scanner.take(b'"')?;
        scanner.string()?;
        let name = object.get(start..scanner.at)?;
        scanner.colon()?;
        scanner.skip_space();
        let start = scanner.at;
        scanner.value()?;
        let value = object.get(start..scanner.at)?;
        scanner.skip_space();
        Some((name, value))
    })
}

struct Scanner<'a> {
    text: &'a str,
    /// The offset of the next byte.
    at: usize,
    /// Set by the first number that had to be put into quotes.
    quoted: Option<Quoted>,
}

/// A copy of the text with numbers in quotes.
struct Quoted {
    json: String,
    /// How much of the text the copy has.
    copied: usize,
}

/// The objects and arrays that are open. A bit for each: whether it is an object.
#[derive(Default)]
struct Open {
    depth: usize,
    objects: [u64; MAX_DEPTH / 64],
}

impl Open {
    /// `None` if this is too deep.
    fn push(&mut self, is_object: bool) -> Option<()> {
        let word = self.objects.get_mut(self.depth / 64)?;
        let bit = 1 << (self.depth % 64);
        *word = if is_object { *word | bit } else { *word & !bit };
        self.depth += 1;
        Some(())
    }

    fn pop(&mut self) {
        self.depth -= 1;
    }

    /// Whether the innermost one is an object; `None` if nothing is open.
    fn is_object(&self) -> Option<bool> {
        let innermost = self.depth.checked_sub(1)?;
        Some(self.objects[innermost / 64] >> (innermost % 64) & 1 == 1)
    }
}

impl Scanner<'_> {
    /// Reads one value and the space before it.
    fn value(&mut self) -> Option<()> {
        let mut open = Open::default();
        loop {
            self.skip_space();
            match self.next()? {
                b'"' => self.string()?,
                b'{' => {
                    open.push(true)?;
                    self.skip_space();
                    if self.take(b'}').is_none() {
                        self.name()?;
                        continue;
                    }
                    open.pop();
                }
                b'[' => {
                    open.push(false)?;
                    self.skip_space();
                    if self.take(b']').is_none() {
                        continue;
                    }
                    open.pop();
                }
                b'-' | b'0'..=b'9' | b'N' | b'I' => {
                    self.at -= 1;
                    match self.bare_float() {
                        Some(float) => self.quote(float),
                        None => self.number()?,
                    }
                }
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                _ => return None,
            }
            loop {
                let Some(is_object) = open.is_object() else { return Some(()) };
                self.skip_space();
                match (self.next()?, is_object) {
                    (b',', true) => {
                        self.skip_space();
                        self.name()?;
                        break;
                    }
                    (b',', false) => break,
                    (b'}', true) | (b']', false) => open.pop(),
                    _ => return None,
                }
            }
        }
    }

    /// Reads the name of a member, and its colon.
    fn name(&mut self) -> Option<()> {
        self.take(b'"')?;
        self.string()?;
        self.colon()
    }

    fn colon(&mut self) -> Option<()> {
        self.skip_space();
        self.take(b':')
    }

    /// Reads a string whose first quote has been read.
    fn string(&mut self) -> Option<()> {
        loop {
            self.at += plain_length(self.rest());
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let digits = self.rest().get(..4)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.at += 4;
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.rest().first() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.rest().first() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// Reads at least one digit.
    fn digits(&mut self) -> Option<()> {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        (count > 0).then_some(())
    }

    fn bare_float(&self) -> Option<&'static str> {
        BARE_FLOATS.into_iter().find(|float| self.rest().starts_with(float.as_bytes()))
    }

    /// Reads `float`, and puts it into quotes in the copy.
    fn quote(&mut self, float: &str) {
        let Quoted { json, copied } = self.quoted.get_or_insert_with(|| Quoted {
            json: String::with_capacity(self.text.len() + 16),
            copied: 0,
        });
        json.push_str(self.text.get(*copied..self.at).unwrap_or_default());
        json.extend(["\"", float, "\""]);
        self.at += float.len();
        *copied = self.at;
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        self.rest().starts_with(rest).then(|| self.at += rest.len())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.rest().first() {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = *self.rest().first()?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.rest().first() == Some(&byte)).then(|| self.at += 1)
    }

    fn rest(&self) -> &[u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }
}

/// The number of bytes before the first quote, backslash or control character. It looks at eight bytes at a time.
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let mut length = 0;
    for word in bytes.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*word);
        // A byte below `limit` leaves its highest bit set, unless the byte itself had it (Bit Twiddling Hacks, hasless).
        // The lowest bit found is exact; higher ones may come from a borrow.
        let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
        let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let found = (below(word, 0x20) | is(b'"') | is(b'\\')) & HIGHS;
        if found != 0 {
            return length + found.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let tail = bytes.get(length..).unwrap_or_default();
    let plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..=0x1f);
    length + tail.iter().take_while(plain).count()
}

#[cfg(test)]
mod tests;
