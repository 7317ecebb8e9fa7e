use super::*;

#[test]
fn credentials_without_an_end_have_no_seconds() {
    assert_eq!(refreshed(Some(900)), r#"{"event":"refreshed","expires_in":900}"#);
    assert_eq!(refreshed(None), r#"{"event":"refreshed","expires_in":null}"#);
    let event: serde_json::Value = serde_json::from_str(&token_expiring_soon(120)).unwrap();
    assert_eq!(event, serde_json::json!({"event": "token_expiring_soon", "expires_in": 120}));
}
