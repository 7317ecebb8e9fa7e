//! UTF-8 checked as bytes arrive: an invalid sequence is found at its first invalid byte, however the text is
//! split (RFC 6455 section 8.1).

/// No UTF-8 text begins with the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidUtf8;

/// The first bytes of a code point that is not complete yet: at most three.
#[derive(Debug, Default)]
pub struct Utf8 {
    carry: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Checks the next bytes of the text.
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

    /// Whether the text may end here, not inside a code point.
    pub fn is_complete(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests;
