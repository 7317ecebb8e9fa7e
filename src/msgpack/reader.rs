//! Reads one item after the other (<https://github.com/msgpack/msgpack/blob/master/spec.md>).

use super::Malformed;

/// An item: a scalar, or the head of an array or map whose items follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Item<'a> {
    Nil,
    Bool(bool),
    /// An integer of a signed format, or a small one.
    Signed(i64),
    Unsigned(u64),
    Float32(f32),
    Float64(f64),
    /// Text that should be UTF-8, which is not checked here.
    Str(&'a [u8]),
    Bin(&'a [u8]),
    Ext(i8, &'a [u8]),
    /// The head of an array with this many items. At least as many bytes follow.
    Array(usize),
    /// The head of a map with this many pairs. At least twice as many bytes follow.
    Map(usize),
}

/// Takes items from the front of `rest`. Borrows from the input and allocates nothing.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Reads the next item. After an error the reader must not be used any more.
    pub fn item(&mut self) -> Result<Item<'a>, Malformed> {
        let byte = self.byte()?;
        Ok(match byte {
            0x00..=0x7f => Item::Signed(i64::from(byte)),
            0x80..=0x8f => self.map(usize::from(byte & 0x0f))?,
            0x90..=0x9f => self.array(usize::from(byte & 0x0f))?,
            0xa0..=0xbf => Item::Str(self.take(usize::from(byte & 0x1f))?),
            0xc0 => Item::Nil,
            0xc1 => return Err(Malformed::Reserved),
            0xc2 => Item::Bool(false),
            0xc3 => Item::Bool(true),
            0xc4..=0xc6 => {
                let length = self.length(byte - 0xc4)?;
                Item::Bin(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(byte - 0xc7)?;
                self.ext(length)?
            }
            0xca => Item::Float32(f32::from_be_bytes(self.number()?)),
            0xcb => Item::Float64(f64::from_be_bytes(self.number()?)),
            0xcc => Item::Unsigned(u64::from(self.byte()?)),
            0xcd => Item::Unsigned(u64::from(u16::from_be_bytes(self.number()?))),
            0xce => Item::Unsigned(u64::from(u32::from_be_bytes(self.number()?))),
            0xcf => Item::Unsigned(u64::from_be_bytes(self.number()?)),
            0xd0 => Item::Signed(i64::from(i8::from_be_bytes(self.number()?))),
            0xd1 => Item::Signed(i64::from(i16::from_be_bytes(self.number()?))),
            0xd2 => Item::Signed(i64::from(i32::from_be_bytes(self.number()?))),
            0xd3 => Item::Signed(i64::from_be_bytes(self.number()?)),
            0xd4..=0xd8 => self.ext(1 << (byte - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.length(byte - 0xd9)?;
                Item::Str(self.take(length)?)
            }
            0xdc | 0xdd => {
                let count = self.length(byte - 0xdc + 1)?;
                self.array(count)?
            }
            0xde | 0xdf => {
                let count = self.length(byte - 0xde + 1)?;
                self.map(count)?
            }
            0xe0..=0xff => Item::Signed(i64::from(byte as i8)),
        })
    }

    /// Fails if input is left.
    pub fn finish(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }

    /// Every item has at least one byte, so a count beyond the bytes that are left is refused.
    fn array(&self, count: usize) -> Result<Item<'a>, Malformed> {
        if count > self.rest.len() { Err(Malformed::Truncated) } else { Ok(Item::Array(count)) }
    }

    fn map(&self, count: usize) -> Result<Item<'a>, Malformed> {
        if count > self.rest.len() / 2 { Err(Malformed::Truncated) } else { Ok(Item::Map(count)) }
    }

    fn ext(&mut self, length: usize) -> Result<Item<'a>, Malformed> {
        let kind = i8::from_be_bytes(self.number()?);
        Ok(Item::Ext(kind, self.take(length)?))
    }

    /// Reads a length of 1, 2 or 4 bytes, for a `size` of 0, 1 or 2.
    fn length(&mut self, size: u8) -> Result<usize, Malformed> {
        let length = match size {
            0 => u32::from(self.byte()?),
            1 => u32::from(u16::from_be_bytes(self.number()?)),
            _ => u32::from_be_bytes(self.number()?),
        };
        // This fails only with pointers of 16 bits, which cannot address such an input.
        usize::try_from(length).map_err(|_| Malformed::Truncated)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.rest.split_off_first().copied().ok_or(Malformed::Truncated)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (number, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*number)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        self.rest.split_off(..length).ok_or(Malformed::Truncated)
    }
}
