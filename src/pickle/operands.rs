//! The operands that follow an opcode in the input.

use std::rc::Rc;

use super::opcodes::*;
use super::standard::Skipped;
use super::{Malformed, Value};

/// A text that has no form in UTF-8, because Python pickled a lone surrogate.
const NOT_UNICODE: Skipped = Skipped("str with a lone surrogate");

const BYTES: Skipped = Skipped("bytes");

const LARGE_INT: Skipped = Skipped("int of over 64 bits");

/// The part of the input that has not been read yet.
pub(super) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.0.split_off_first().copied().ok_or(Malformed::Truncated)
    }

    pub fn number<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (number, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(*number)
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        self.0.split_off(..length).ok_or(Malformed::Truncated)
    }

    /// A line without its end.
    pub fn line(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.0.iter().position(|byte| *byte == b'\n').ok_or(Malformed::Truncated)?;
        let line = self.take(end)?;
        self.byte()?;
        Ok(line)
    }

    /// A line of ASCII.
    pub fn text_line(&mut self) -> Result<&'a str, Malformed> {
        let line = self.line()?;
        str::from_utf8(line).ok().filter(|line| line.is_ascii()).ok_or(Malformed::Operand)
    }

    /// The number of a memo entry as a line.
    pub fn number_line(&mut self) -> Result<u32, Malformed> {
        self.text_line()?.parse().map_err(|_| Malformed::Operand)
    }

    /// The value that a scalar's opcode has as its operand; `None` if `opcode` is none of a scalar.
    pub fn scalar(&mut self, opcode: u8) -> Result<Option<Value<'a>>, Malformed> {
        Ok(Some(match opcode {
            NONE => Value::None,
            NEWTRUE => Value::Bool(true),
            NEWFALSE => Value::Bool(false),
            BININT1 => Value::Int(i64::from(self.byte()?)),
            BININT2 => Value::Int(i64::from(u16::from_le_bytes(self.number()?))),
            BININT => Value::Int(i64::from(i32::from_le_bytes(self.number()?))),
            LONG1 => {
                let length = usize::from(self.byte()?);
                integer(self.take(length)?)
            }
            LONG4 => {
                let length = self.length(4)?;
                integer(self.take(length)?)
            }
            INT => match self.text_line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                digits => decimal(digits)?,
            },
            LONG => {
                let line = self.text_line()?;
                decimal(line.strip_suffix('L').unwrap_or(line))?
            }
            FLOAT => Value::Float(self.text_line()?.parse().map_err(|_| Malformed::Operand)?),
            BINFLOAT => Value::Float(f64::from_be_bytes(self.number()?)),
            SHORT_BINUNICODE => self.text(1)?,
            BINUNICODE => self.text(4)?,
            BINUNICODE8 => self.text(8)?,
            UNICODE => unescaped(self.line()?),
            SHORT_BINSTRING => self.old_text(1)?,
            BINSTRING => self.old_text(4)?,
            STRING => quoted(self.line()?)?,
            SHORT_BINBYTES => self.bytes(1, BYTES)?,
            BINBYTES => self.bytes(4, BYTES)?,
            BINBYTES8 => self.bytes(8, BYTES)?,
            BYTEARRAY8 => self.bytes(8, Skipped("bytearray"))?,
            _ => return Ok(None),
        }))
    }

    /// A length of 1, 4 or 8 bytes.
    fn length(&mut self, size: usize) -> Result<usize, Malformed> {
        let mut length = [0; 8];
        length[..size].copy_from_slice(self.take(size)?);
        usize::try_from(u64::from_le_bytes(length)).map_err(|_| Malformed::Truncated)
    }

    fn text(&mut self, size: usize) -> Result<Value<'a>, Malformed> {
        let length = self.length(size)?;
        let text = str::from_utf8(self.take(length)?);
        Ok(text.map_or(Value::Skipped(NOT_UNICODE), Value::Text))
    }

    /// A `str` of Python 2, which is bytes. Python 3 reads it as ASCII.
    fn old_text(&mut self, size: usize) -> Result<Value<'a>, Malformed> {
        let length = self.length(size)?;
        Ok(ascii(self.take(length)?))
    }

    fn bytes(&mut self, size: usize, kind: Skipped) -> Result<Value<'a>, Malformed> {
        let length = self.length(size)?;
        self.take(length)?;
        Ok(Value::Skipped(kind))
    }
}

fn ascii(bytes: &[u8]) -> Value<'_> {
    match str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Value::Text(text),
        _ => Value::Skipped(BYTES),
    }
}

/// The text in the quotes of Python 2's `repr()`. One with escapes is read past.
fn quoted(line: &[u8]) -> Result<Value<'_>, Malformed> {
    let quote = |quote: &[u8]| line.strip_prefix(quote)?.strip_suffix(quote);
    let inner = quote(b"'").or_else(|| quote(b"\"")).ok_or(Malformed::Operand)?;
    Ok(if inner.contains(&b'\\') { Value::Skipped(BYTES) } else { ascii(inner) })
}

fn integer(digits: &[u8]) -> Value<'static> {
    let is_negative = digits.last().is_some_and(|last| last & 0x80 != 0);
    let mut value = [if is_negative { 0xff } else { 0 }; 8];
    match value.get_mut(..digits.len()) {
        Some(low) => {
            low.copy_from_slice(digits);
            Value::Int(i64::from_le_bytes(value))
        }
        None => Value::Skipped(LARGE_INT),
    }
}

fn decimal(text: &str) -> Result<Value<'static>, Malformed> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::Operand);
    }
    Ok(text.parse().map_or(Value::Skipped(LARGE_INT), Value::Int))
}

/// Decodes Python's `raw-unicode-escape`: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
fn unescaped(line: &[u8]) -> Value<'_> {
    if let Value::Text(text) = ascii(line)
        && !text.contains('\\')
    {
        return Value::Text(text);
    }
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = match (byte, after.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(byte));
                rest = after;
                continue;
            }
        };
        let code = after.get(1..=digits).and_then(|code| str::from_utf8(code).ok());
        let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
        match code.and_then(char::from_u32) {
            Some(character) => text.push(character),
            None => return Value::Skipped(NOT_UNICODE),
        }
        rest = after.get(1 + digits..).unwrap_or_default();
    }
    Value::Unescaped(Rc::from(text))
}
