//! The time in frames that the gateway itself writes, where a route wants one.

/// Returns `json` with `"timestamp"` as its last member; `json` is an object that has members already.
pub fn with_timestamp(json: &str, timestamp: &str) -> String {
    match json.strip_suffix('}') {
        Some(members) => format!(r#"{members},"timestamp":"{timestamp}"}}"#),
        None => json.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_the_last_member() {
        let stamped = with_timestamp(r#"{"event":"pong"}"#, "1970-01-01T00:00:01.000000Z");
        assert_eq!(stamped, r#"{"event":"pong","timestamp":"1970-01-01T00:00:01.000000Z"}"#);
    }
}
