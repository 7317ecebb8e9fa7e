//! Which JSON of a client is passed on: only what the readers of common languages take without an error.
//!
//! A backend that fails at a message fails for its sender's fault, and looks broken: Python's reader ends with an
//! exception at deep nesting and at integers of thousands of digits, others round large integers or reject them.

use super::json::plain_length;

/// The deepest nesting of objects and arrays, the outermost included, as in serde_json. Python's reader takes about
/// 1,000, depending on how deep its own stack is.
const MAX_DEPTH: usize = 127;

/// What other programs could not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotPortable {
    TooDeep,
    /// An integer that does not fit 64 bits, or a number beyond what a double can be.
    NumberOutOfRange,
}

/// Checks `json`, which is valid JSON, for what other programs could not read. One pass, without recursion.
pub fn check_portable(json: &str) -> Result<(), NotPortable> {
    let bytes = json.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(NotPortable::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            // Most of a large object is in its texts.
            b'"' => at = end_of_text(bytes, at),
            b'0'..=b'9' | b'-' => {
                at = end_of_number(bytes, at);
                if !is_in_range(json.get(start..at)) {
                    return Err(NotPortable::NumberOutOfRange);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The offset behind the closing quote of a text whose opening one is before `at`.
fn end_of_text(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at += plain_length(bytes.get(at..).unwrap_or_default());
        match bytes.get(at) {
            Some(b'\\') => at += 2,
            Some(b'"') | None => return at + 1,
            Some(_) => at += 1,
        }
    }
}

fn end_of_number(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    at + rest.iter().take_while(is_part).count()
}

fn is_in_range(number: Option<&str>) -> bool {
    let Some(number) = number else { return false };
    if number.contains(['.', 'e', 'E']) {
        number.parse::<f64>().is_ok_and(f64::is_finite)
    } else {
        number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok()
    }
}

#[cfg(test)]
mod tests;
