//! The time in frames that the gateway itself writes, where a route wants one.

/// Returns `json` with `"timestamp"` as its last member; `json` is an object that has members already.
pub fn with_timestamp(json: &str, timestamp: &str) -> String {
    match json.strip_suffix('}') {
        Some(members) => format!(r#"{members},"timestamp":"{timestamp}"}}"#),
        None => json.to_owned(),
    }
}

#[cfg(test)]
mod tests;
