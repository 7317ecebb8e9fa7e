use super::*;

fn read(json: &str) -> Result<Disconnect, InvalidDisconnect> {
    serde_json::from_str::<DisconnectFields>(json).unwrap().try_into()
}

#[test]
fn exactly_one_target_is_accepted() {
    let user = |json: &str| match read(json).unwrap().target {
        Target::User(id) => id,
        other => panic!("{other:?}"),
    };
    assert_eq!(user(r#"{"user_id":7}"#), UserId::Integer(7));
    assert_eq!(user(r#"{"user_id":"7"}"#), UserId::Text("7".into()));
    // Credentials with such an id are parsed in the same way.
    let large = "18446744073709551615";
    assert_eq!(user(&format!("{{\"user_id\":{large}}}")), UserId::Text(large.into()));
    let id = ConnectionId::random();
    let by_connection = read(&format!("{{\"connection_id\":\"{id}\"}}")).unwrap();
    assert_eq!(*by_connection.target(), Target::Connection(id));
    for (json, wrong) in [
        (r#"{}"#, InvalidDisconnect::Target(InvalidTarget::FieldCount)),
        (r#"{"user_id":null}"#, InvalidDisconnect::Target(InvalidTarget::FieldCount)),
        (r#"{"user_id":1,"channel":"a"}"#, InvalidDisconnect::Target(InvalidTarget::FieldCount)),
        (r#"{"user_id":""}"#, InvalidDisconnect::Target(InvalidTarget::UserId)),
        (r#"{"user_id":1.5}"#, InvalidDisconnect::Target(InvalidTarget::UserId)),
        (r#"{"user_id":[1]}"#, InvalidDisconnect::Target(InvalidTarget::UserId)),
        (r#"{"connection_id":"c3d4"}"#, InvalidDisconnect::Target(InvalidTarget::ConnectionId)),
        (
            r#"{"channel":"a b"}"#,
            InvalidDisconnect::Target(InvalidTarget::Channel(InvalidChannel::BadCharacter)),
        ),
    ] {
        assert_eq!(read(json), Err(wrong), "{json}");
    }
}

#[test]
fn only_codes_that_an_endpoint_may_send_are_accepted() {
    for (code, is_accepted) in [
        (0, false),
        (999, false),
        (1000, true),
        (1001, false),
        (1005, false),
        (1006, false),
        (1008, true),
        (1012, true),
        (1015, false),
        (2999, false),
        (3000, true),
        (4999, true),
        (5000, false),
    ] {
        let read = read(&format!("{{\"channel\":\"a\",\"code\":{code}}}"));
        assert_eq!(read.as_ref().map(Disconnect::code).ok(), is_accepted.then_some(code));
    }
    let given = read(r#"{"channel":"a"}"#).unwrap();
    assert_eq!((given.code(), given.reason()), (4001, "disconnected by the server"));
    let long = |n| read(&format!("{{\"channel\":\"a\",\"reason\":\"{}\"}}", "ä".repeat(n)));
    assert_eq!(long(61).unwrap().reason().len(), 122);
    assert_eq!(long(62), Err(InvalidDisconnect::Reason));
}
