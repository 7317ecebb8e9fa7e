//! UTF-8 checked as bytes arrive: a bad sequence is found at its first bad byte, wherever the text was
//! cut (RFC 6455 section 8.1).

/// The bytes so far cannot begin a UTF-8 text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidUtf8;

/// What is left of a text that ended inside a code point: at most three bytes.
#[derive(Debug, Default)]
pub struct Utf8 {
    carry: [u8; 4],
    len: u8,
}

impl Utf8 {
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), InvalidUtf8> {
        while self.len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            self.carry[usize::from(self.len)] = byte;
            self.len += 1;
            match std::str::from_utf8(&self.carry[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(InvalidUtf8),
            }
        }
        match simdutf8::compat::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                let tail = &bytes[error.valid_up_to()..];
                self.carry[..tail.len()].copy_from_slice(tail);
                self.len = tail.len() as u8;
                Ok(())
            }
            Err(_) => Err(InvalidUtf8),
        }
    }

    /// Whether the text may end here.
    pub fn is_complete(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes are taken before the text is refused, fed in pieces of `size`.
    fn refused_at(text: &[u8], size: usize) -> Option<usize> {
        let mut utf8 = Utf8::default();
        let mut taken = 0;
        for piece in text.chunks(size) {
            taken += piece.len();
            if utf8.feed(piece).is_err() {
                return Some(taken);
            }
        }
        (!utf8.is_complete()).then_some(text.len() + 1)
    }

    #[test]
    fn a_bad_byte_is_found_when_it_comes() {
        for (text, at) in [
            (&b"hello"[..], None),
            ("κόσμε 🚀".as_bytes(), None),
            (b"\xf4\x90\x80\x80", Some(2)),
            (b"\xed\xa0\x80", Some(2)),
            (b"\xc0\xaf", Some(1)),
            (b"\xf5", Some(1)),
            (b"ok\xff", Some(3)),
            (b"\xe2\x82", Some(3)),
        ] {
            assert_eq!(refused_at(text, 1), at, "{text:x?}");
            for size in 2..6 {
                assert_eq!(refused_at(text, size).is_some(), at.is_some(), "{text:x?} by {size}");
            }
        }
    }
}
