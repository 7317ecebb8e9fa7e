use super::*;

#[test]
fn one_target_and_a_bounded_time() {
    let read =
        |json: &str| DebugCommand::try_from(serde_json::from_str::<DebugFields>(json).unwrap());
    for good in [
        r#"{"user_id":7,"seconds":0}"#,
        r#"{"channel":"chat_42","seconds":3600}"#,
        r#"{"connection_id":"0123456789abcdef0123456789abcdef","seconds":1}"#,
    ] {
        let command = read(good).unwrap();
        assert_eq!(serde_json::to_string(&command).unwrap(), good);
    }
    let wrong = |json: &str| read(json).unwrap_err();
    assert_eq!(wrong(r#"{"user_id":7,"seconds":3601}"#), InvalidDebug::Seconds);
    for none in [r#"{"seconds":1}"#, r#"{"user_id":7,"channel":"a","seconds":1}"#] {
        assert!(matches!(wrong(none), InvalidDebug::Target(_)), "{none}");
    }
}
