use super::*;

#[test]
fn a_timestamp_is_the_last_member() {
    let stamped = with_timestamp(r#"{"event":"pong"}"#, "1970-01-01T00:00:01.000000Z");
    assert_eq!(stamped, r#"{"event":"pong","timestamp":"1970-01-01T00:00:01.000000Z"}"#);
}
