//! Where the head of a request ends, which is found before the HTTP library has parsed it.

/// Finds the empty line that ends a head. Lines may end with a bare line feed, as in the HTTP library.
#[derive(Debug, Default)]
pub(super) struct HeadEnd {
    has_line: bool,
    /// Whether the current line has bytes other than its end.
    is_in_line: bool,
    /// Whether the first line is a request line with a `#`. The library drops the fragment of a target, which must have
    /// none. After pipelined requests, the bytes may begin inside a head, whose headers may have a `#`.
    pub has_fragment: bool,
    /// The last eight bytes of the first line.
    first_line_end: u64,
}

impl HeadEnd {
    /// Returns where the head ends in `bytes`; `None` = not in them.
    pub fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut start = 0;
        while let Some(length) = bytes[start..].iter().position(|byte| *byte == b'\n') {
            self.add(&bytes[start..start + length]);
            start += length + 1;
            if self.is_in_line {
                if !self.has_line {
                    self.has_fragment &= self.first_line_end.to_be_bytes().starts_with(b"HTTP/1.");
                }
                (self.has_line, self.is_in_line) = (true, false);
            } else if self.has_line {
                self.has_line = false;
                return Some(start);
            }
        }
        self.add(&bytes[start..]);
        None
    }

    /// Adds bytes of one line.
    fn add(&mut self, bytes: &[u8]) {
        self.is_in_line |= bytes.iter().any(|byte| *byte != b'\r');
        if self.has_line {
            return;
        }
        for byte in bytes.iter().filter(|byte| **byte != b'\r') {
            self.has_fragment |= *byte == b'#';
            self.first_line_end = (self.first_line_end << 8) | u64::from(*byte);
        }
    }
}
