use super::*;

fn answer(bytes: &str) -> RedisError {
    redis::parse_redis_value(bytes.as_bytes()).unwrap().extract_error().unwrap_err()
}

#[test]
fn an_answer_keeps_its_code_and_text() {
    for (bytes, expected) in [
        ("-WRONGPASS invalid\r\n", "WRONGPASS invalid"),
        ("-NOPERM User a has no permissions\r\n", "NOPERM User a has no permissions"),
        ("-LOADING Redis is loading\r\n", "LOADING Redis is loading"),
        ("-CLUSTERDOWN Hash slot not served\r\n", "CLUSTERDOWN Hash slot not served"),
        ("-OOM command not allowed\r\n", "OOM command not allowed"),
    ] {
        assert_eq!(describe(&answer(bytes)), expected);
    }
}

#[test]
fn a_reason_is_one_short_line() {
    assert_eq!(one_line(" a\r\nb\0c "), "a  b c");
    assert_eq!(one_line(&"ä".repeat(500)).len(), MAX_BYTES);
}
