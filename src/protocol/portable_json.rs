//! Which JSON of a client is passed on: only what the readers of common languages take without an error.
//!
//! A backend that fails at a message fails for its sender's fault, and looks broken: Python's reader ends with an
//! exception at deep nesting and at integers of thousands of digits, others round large integers or reject them.

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
    let (mut depth, mut start) = (0_usize, None);
    let (mut in_text, mut escaped) = (false, false);
    for (at, byte) in json.bytes().enumerate() {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E' if start.is_some() => continue,
            b'0'..=b'9' | b'-' => {
                start = Some(at);
                continue;
            }
            _ => {}
        }
        if start.take().is_some_and(|start| !is_in_range(json.get(start..at))) {
            return Err(NotPortable::NumberOutOfRange);
        }
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(NotPortable::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => in_text = true,
            _ => {}
        }
    }
    if start.is_some_and(|start| !is_in_range(json.get(start..))) {
        return Err(NotPortable::NumberOutOfRange);
    }
    Ok(())
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
