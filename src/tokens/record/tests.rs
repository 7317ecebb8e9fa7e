use super::*;

fn outcome(read: Result<TokenRecord, Unusable>) -> Option<Consumption> {
    read.err().map(|unusable| unusable.outcome)
}

#[test]
fn records_that_a_backend_writes_are_read() {
    let django = br#"{"user_id": 1, "username": "ana", "connection_id": "chat-42-x",
            "created_at": 1763990000.25, "used": false}"#;
    let record = TokenRecord::read(django).unwrap();
    assert_eq!(record.user_id, UserId::Integer(1));
    assert_eq!(record.username.as_deref(), Some("ana"));
    assert_eq!(record.connection_id.as_deref(), Some("chat-42-x"));
    for (id, expected) in [
        (r#""a-b""#, UserId::Text("a-b".into())),
        ("-7", UserId::Integer(-7)),
        ("18446744073709551615", UserId::Text("18446744073709551615".into())),
    ] {
        let json = format!(r#"{{"user_id":{id},"created_at":"2026-11-25T00:00:00Z","extra":[]}}"#);
        assert_eq!(TokenRecord::read(json.as_bytes()).unwrap().user_id, expected);
    }
}

#[test]
fn what_is_no_record_is_refused() {
    use Consumption::{MalformedRecord, SessionOver, Used};
    let long = format!(r#"{{"user_id":1,"username":"{}"}}"#, "x".repeat(TokenRecord::MAX_BYTES));
    for (json, why) in [
        ("", MalformedRecord),
        ("null", MalformedRecord),
        ("42", MalformedRecord),
        ("[1]", MalformedRecord),
        ("{}", MalformedRecord),
        (r#"{"username":"ana"}"#, MalformedRecord),
        (r#"{"user_id":null}"#, MalformedRecord),
        (r#"{"user_id":""}"#, MalformedRecord),
        (r#"{"user_id":1.5}"#, MalformedRecord),
        (r#"{"user_id":true}"#, MalformedRecord),
        (r#"{"user_id":[1]}"#, MalformedRecord),
        (r#"{"user_id":1} x"#, MalformedRecord),
        (r#"{"user_id":1,"user_id":2}"#, MalformedRecord),
        (r#"{"user_id":1,"used":"yes"}"#, MalformedRecord),
        (r#"{"user_id":1,"channels":"chat_1"}"#, MalformedRecord),
        (r#"{"user_id":1,"channels":[1]}"#, MalformedRecord),
        (r#"{"user_id":1,"origin":7}"#, MalformedRecord),
        (r#"{"user_id":1,"session_expires_at":"soon"}"#, MalformedRecord),
        (r#"{"user_id":1,"session_expires_at":-1}"#, MalformedRecord),
        (r#"{"user_id":1,"session_expires_at":1}"#, SessionOver),
        (r#"{"user_id":1,"used":true}"#, Used),
        (&long, MalformedRecord),
    ] {
        assert_eq!(outcome(TokenRecord::read(json.as_bytes())), Some(why), "{json}");
    }
    assert!(TokenRecord::read(b"{\"user_id\":\"\xff\"}").is_err());
    assert!(TokenRecord::read(b"\x80\x05\x95pickle").is_err());
}

#[test]
fn records_of_djangos_cache_are_read() {
    let pickled = unhex(
        "8005956e000000000000007d94288c07757365725f6964944b018c08757365726e616d65948c05616c696365948c\
             0d636f6e6e656374696f6e5f6964948c19636861742d636f6e762d312d31373634353030303030303030948c0a63\
             7265617465645f6174944741da4b08881000008c04757365649489752e",
    );
    let json = br#"{"user_id": 1, "username": "alice",
            "connection_id": "chat-conv-1-1764500000000", "created_at": 1764500000.25, "used": false}"#;
    for written in [&pickled[..], json] {
        let record = TokenRecord::read_django(written).unwrap();
        assert_eq!(record.user_id, UserId::Integer(1));
        assert_eq!(record.username.as_deref(), Some("alice"));
        assert_eq!(record.connection_id.as_deref(), Some("chat-conv-1-1764500000000"));
        assert_eq!(record.created_at, 1_764_500_000.25);
        assert_eq!(record.channels, None);
    }
    // `used` is true in this one, and connection_id is None.
    let used = unhex(
        "80059558000000000000007d94288c07757365725f6964944a701101008c08757365726e616d65948c074ac3bc72\
             67656e948c0d636f6e6e656374696f6e5f6964944e8c0a637265617465645f6174944741da4b08881000008c0475\
             7365649488752e",
    );
    assert_eq!(outcome(TokenRecord::read_django(&used)), Some(Consumption::Used));
    let mut unused = used;
    unused.iter_mut().rev().nth(2).map(|byte| *byte = 0x89).unwrap();
    let record = TokenRecord::read_django(&unused).unwrap();
    assert_eq!((record.user_id, record.connection_id), (UserId::Integer(70_000), None));
    assert!(TokenRecord::read(&pickled).is_err(), "pickles are read only in the Django format");
}

#[test]
fn a_pickle_is_held_to_what_a_record_is() {
    let full = TokenRecord::read(
        br#"{"user_id":7,"username":"ana","connection_id":"c","channels":["a_*"],"origin":"https://a",
                "session_expires_at":99999999999,"claims":{"x":[1,null,true,0.5]}}"#,
    );
    let full = full.unwrap();
    let back = TokenRecord::read_django(&full.to_pickle().unwrap()).unwrap();
    assert_eq!(back.to_json(), full.to_json());
    for (json, why) in [
        (r#"{}"#, Consumption::MalformedRecord),
        (r#"[1]"#, Consumption::MalformedRecord),
        (r#"{"user_id":true}"#, Consumption::MalformedRecord),
        (r#"{"user_id":1.5}"#, Consumption::MalformedRecord),
        (r#"{"user_id":""}"#, Consumption::MalformedRecord),
        (r#"{"user_id":1,"used":1}"#, Consumption::MalformedRecord),
        (r#"{"user_id":1,"username":7}"#, Consumption::MalformedRecord),
        (r#"{"user_id":1,"connection_id":7}"#, Consumption::MalformedRecord),
        (r#"{"user_id":1,"channels":"a"}"#, Consumption::MalformedRecord),
        (r#"{"user_id":1,"session_expires_at":1}"#, Consumption::SessionOver),
    ] {
        let pickled = pickle::write_json(&serde_json::from_str(json).unwrap());
        assert_eq!(outcome(TokenRecord::read_django(&pickled)), Some(why), "{json}");
    }
    let long = Value::from("x".repeat(TokenRecord::MAX_BYTES));
    let long = pickle::write_json(&serde_json::json!({"user_id": 1, "username": long}));
    assert!(TokenRecord::read_django(&long).is_err());
    assert!(TokenRecord::read_django(b"\x80\x05cos\nsystem\n.").is_err());
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().map(|b| (b as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn an_identity_carries_the_limits() {
    let json = br#"{"user_id":"u","username":"","channels":["chat_1","team-*"],
            "session_expires_at":99999999999.9}"#;
    let identity = Identity::from(&TokenRecord::read(json).unwrap());
    assert_eq!(identity.key(), "u");
    assert_eq!(identity.username, None);
    assert_eq!(identity.expires_at, Some(99_999_999_999));
    assert!(identity.may_join("team-7") && !identity.may_join("chat_12"));
    let none = TokenRecord::read(br#"{"user_id":1,"channels":[]}"#).unwrap();
    assert!(!Identity::from(&none).may_join("chat_1"));
    let every = TokenRecord::read(br#"{"user_id":1}"#).unwrap();
    assert!(Identity::from(&every).may_join("chat_1"));
}

/// tests/pickles/make.py has written these with CPython 3.11, in every protocol.
#[test]
fn records_of_real_python_are_read_past_what_is_not_read() {
    let mut lines = 0;
    for line in include_str!("../../../tests/pickles/records.txt").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [kind, name, protocol, hex] = fields[..] else { panic!("{line}") };
        let read = TokenRecord::read_django(&unhex(hex));
        let shown = format!("{name} with protocol {protocol}: {read:?}");
        match kind {
            "open" if name == "ordered_record" => assert!(read.is_ok(), "{shown}"),
            "open" if name.starts_with("channels_") => {
                let mut channels = read.expect(&shown).channels;
                channels.iter_mut().for_each(|channels| channels.sort());
                let expected = vec!["chat_1".to_owned(), "chat_2".to_owned()];
                assert_eq!(channels, (name != "channels_none").then_some(expected), "{shown}");
            }
            "open" => {
                let record = read.expect(&shown);
                assert_eq!(record.user_id, UserId::Integer(1), "{shown}");
                assert_eq!(record.username.as_deref(), Some("Jürgen"), "{shown}");
                assert_eq!(record.channels.as_deref(), Some(&["chat_*".to_owned()][..]), "{shown}");
            }
            _ => {
                let unusable = read.expect_err(name);
                assert_eq!(unusable.outcome, Consumption::MalformedRecord, "{shown}");
                let reason = unusable.reason.expect("a reason");
                assert!(reason.contains(&format!("field {name}")), "{shown}");
            }
        }
        lines += 1;
    }
    assert!(lines > 600, "{lines}");
}

#[test]
fn a_refusal_says_what_is_wrong_without_a_value() {
    let reason = |record: &[u8]| TokenRecord::read_django(record).unwrap_err().reason.unwrap();
    for (record, expected) in [
        (
            &b"(dVuser_id\nI1\nsVused\ncdatetime\ndate\n(NtRs."[..],
            "the field used has a value of the type date",
        ),
        (b"(dVuser_id\ncuuid\nUUID\n)\x81s.", "the field user_id has a value of the type UUID"),
        (
            b"(dVuser_id\nI1\nsVnote\ncapp.models\nUser\n)\x81s.",
            "the field note has app.models.User, which is not plain data",
        ),
        (
            b"(dVuser_id\nI1\nsVnote\nP7\ns.",
            "the field note has the opcode PERSID, which is not read",
        ),
        (b"(dVuser_id\nI1\nsVusername\nI2\ns.", "the field username has the wrong type"),
        (b"(dVusername\nVsecret\ns.", "no field user_id"),
        (b"(l.", "a pickle that is not a dict"),
        (b"(dVuser_id\nI1\nsVa\n\x99.", "a pickle with the byte 0x99, which is no opcode"),
        (br#"{"user_id":1,"used":"secret"}"#, "the field used has the wrong type"),
        (
            br#"{"user_id":1,"username":"secret\ud83d"}"#,
            "the field username has a text that is not valid",
        ),
        (br#"{"user_id":1,"used":false,"used":true}"#, "the field used twice"),
        (b"{'user_id':1}", "a record that is not JSON"),
        (b"[]", "a record that is not a JSON object"),
    ] {
        assert_eq!(reason(record), expected);
    }
    for unread in [
        r#"{"user_id":1,"note":"\ud83d"}"#,
        r#"{"user_id":1,"\ud83d":1}"#,
        r#"{"user_id":1,"score":NaN,"created_at":NaN}"#,
        r#"{"user_id":1,"created_at":"\ud83d","claims":{"\ud83d":1}}"#,
        r#"{"user_id":1,"note":1,"note":2}"#,
    ] {
        assert!(TokenRecord::read_django(unread.as_bytes()).is_ok(), "{unread}");
    }
    assert!(TokenRecord::read(br#"{"user_id":1,"session_expires_at":NaN}"#).is_err());
}
