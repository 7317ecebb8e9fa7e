//! Random ids of 128 bits, as connections hold them.

use std::fmt;

/// 128 bits as two words. A `u128` is aligned to 16 bytes, which would leave gaps in each of the structures that every
/// open connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bits128 {
    pub high: u64,
    pub low: u64,
}

impl Bits128 {
    /// From the generator of the thread, which nobody who sees its ids can predict: it is a cipher (ChaCha12) that the
    /// kernel seeds, and seeds again after each 64 KiB.
    pub fn random() -> Self {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        Self { high, low }
    }

    /// Calls `read` with the 32 hex digits. They are written without the machinery of a format, because each message has
    /// several ids.
    pub fn with_hex<T>(self, read: impl FnOnce(&str) -> T) -> T {
        let mut digits = [0; 32];
        digits[..16].copy_from_slice(&hex_of(self.high));
        digits[16..].copy_from_slice(&hex_of(self.low));
        // Hex digits are UTF-8.
        read(std::str::from_utf8(&digits).unwrap_or_default())
    }

    /// Parses 1 to 32 hex digits of either case; `None` if `text` is anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        // The parser also takes a sign.
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(text, 16).ok().filter(|_| is_hex).map(Self::from)
    }
}

impl From<u128> for Bits128 {
    fn from(bits: u128) -> Self {
        let [high, low] = [bits >> 64, bits & u128::from(u64::MAX)].map(|half| half as u64);
        Self { high, low }
    }
}

impl From<Bits128> for u128 {
    fn from(Bits128 { high, low }: Bits128) -> Self {
        Self::from(high) << 64 | Self::from(low)
    }
}

/// 32 hex digits.
impl fmt::Display for Bits128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_hex(|digits| f.write_str(digits))
    }
}

/// The 16 hex digits of a number.
pub(super) fn hex_of(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|at| DIGITS[(number >> (60 - 4 * at)) as usize & 0xf])
}
