//! Connection tokens whose records were written by Django's cache, byte for byte.

use serde_json::{Value, json};

use crate::chat::chat;
use crate::engine::Engine;
use crate::outcome::Outcome::{self, Closed, Connected};
use crate::outcome::outcome;
use crate::rig::{Client, Gateway, Redis, Settings};

const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz_ABCDEFGHIJKLMNOP";
const PREFIX: &str = "allthrive:1:ws_conn_token:";

/// `{"user_id": 1, "username": "alice", "connection_id": "chat-conv-1-1764500000000",
/// "created_at": 1764500000.25, "used": False}`, pickled by Django's RedisCache; django-redis uses protocol 4.
const ALICE: &[u8] = b"\x80\x05\x95\x6e\0\0\0\0\0\0\0}\x94(\x8c\x07user_id\x94K\x01\x8c\x08username\x94\
    \x8c\x05alice\x94\x8c\x0dconnection_id\x94\x8c\x19chat-conv-1-1764500000000\x94\x8c\x0acreated_at\x94\
    GA\xdaK\x08\x88\x10\0\0\x8c\x04used\x94\x89u.";

/// The used record of user 70000, Jürgen, without a connection id.
const USED: &[u8] = b"\x80\x05\x95X\0\0\0\0\0\0\0}\x94(\x8c\x07user_id\x94Jp\x11\x01\0\x8c\x08username\x94\
    \x8c\x07J\xc3\xbcrgen\x94\x8c\x0dconnection_id\x94N\x8c\x0acreated_at\x94GA\xdaK\x08\x88\x10\0\0\
    \x8c\x04used\x94\x88u.";

/// A record written by django-redis with its JSON serializer.
const ALICE_JSON: &[u8] = br#"{"user_id": 1, "username": "alice", "connection_id": "chat-conv-1-1764500000000", "created_at": 1764500000.25, "used": false}"#;
const USED_JSON: &[u8] = br#"{"user_id": 70000, "username": "J\u00fcrgen", "connection_id": null, "created_at": 1764500000.25, "used": true}"#;

fn django(more: &str) -> Settings {
    chat("").section("tokens", &format!("format = \"django\"\nkey_prefix = \"{PREFIX}\"\n{more}"))
}

async fn write(redis: &Redis, record: &[u8]) {
    let mut set = redis::cmd("SET");
    set.arg(format!("{PREFIX}{TOKEN}")).arg(record).arg("EX").arg(60);
    set.query_async::<()>(&mut redis.connection().await).await.expect("a record is written");
}

fn path(conversation: &str) -> String {
    format!("/ws/chat/{conversation}/?connection_token={TOKEN}")
}

async fn enter(gateway: &Gateway, conversation: &str) -> Outcome {
    outcome(gateway, &path(conversation), &[]).await
}

/// A copy of `record` with the byte `from_end` before its last one changed.
fn with(record: &[u8], from_end: usize, byte: u8) -> Vec<u8> {
    let mut changed = record.to_vec();
    let at = changed.len() - 1 - from_end;
    changed[at] = byte;
    changed
}

#[tokio::test]
async fn records_of_djangos_cache_open_a_socket_once() {
    let engine = Engine::redis().await;
    let redis = engine.server().unwrap();
    let gateway = engine.start(django("")).await;
    let by_django_redis = [&[0x80, 4], &ALICE[2..]].concat();
    for record in [ALICE, &by_django_redis, ALICE_JSON] {
        write(redis, record).await;
        let (_client, connected) = Client::connected(&gateway, &path("conv-1")).await;
        assert_eq!(connected["user_id"], 1);
        assert!(!redis.run::<bool>(&["EXISTS", &format!("{PREFIX}{TOKEN}")]).await);
        assert_eq!(enter(&gateway, "conv-1").await, Closed(4001), "used up");
    }
    let unused = with(USED, 2, 0x89);
    for (record, expected) in [
        (USED, Closed(4001)),
        (USED_JSON, Closed(4001)),
        (&unused, Connected),
        (&with(ALICE, 2, b'N'), Closed(4001)),
        (&ALICE[..ALICE.len() - 1], Closed(4001)),
        (b"\x80\x05cposix\nsystem\n(S'true'\ntR.", Closed(4001)),
        (b"\x80\x05}.", Closed(4001)),
        (b"\x80\x05K\x01.", Closed(4001)),
        (b"\x80\x05(((((((((((((((.", Closed(4001)),
        (b"\x80", Closed(4001)),
        (b"1", Closed(4001)),
    ] {
        write(redis, record).await;
        let shown = String::from_utf8_lossy(record);
        assert_eq!(enter(&gateway, "conv-1").await, expected, "{shown}");
        assert!(!redis.run::<bool>(&["EXISTS", &format!("{PREFIX}{TOKEN}")]).await, "{shown}");
    }
}

#[tokio::test]
async fn a_pickle_is_no_record_where_none_is_expected() {
    let engine = Engine::redis().await;
    let settings = chat("").section("tokens", &format!("key_prefix = \"{PREFIX}\""));
    let gateway = engine.start(settings).await;
    write(engine.server().unwrap(), ALICE).await;
    assert_eq!(enter(&gateway, "conv-1").await, Closed(4001));
    write(engine.server().unwrap(), ALICE_JSON).await;
    assert_eq!(enter(&gateway, "conv-1").await, Connected);
}

#[tokio::test]
async fn djangos_records_bind_to_a_conversation() {
    let engine = Engine::redis().await;
    let gateway = engine.start(django("binding = \"chat-{conversation_id}-*\"")).await;
    let unbound = with(USED, 2, 0x89);
    for (record, conversation, expected) in [
        (ALICE, "conv-1", Connected),
        (ALICE_JSON, "conv-1", Connected),
        (ALICE, "conv-2", Closed(4003)),
        (ALICE_JSON, "conv-10", Closed(4003)),
        (&unbound, "conv-1", Closed(4003)),
    ] {
        write(engine.server().unwrap(), record).await;
        assert_eq!(enter(&gateway, conversation).await, expected, "{conversation}");
    }
}

#[tokio::test]
async fn what_the_gateway_issues_is_a_pickle_as_well() {
    let engine = Engine::redis().await;
    let redis = engine.server().unwrap();
    let gateway = engine.start(django("")).await;
    let wish = json!({"user_id": 5, "username": "Jürgen", "channels": ["chat_1*"]});
    let token = gateway.token(wish).await;
    let key = format!("{PREFIX}{token}");
    let record: Vec<u8> = redis.run(&["GET", &key]).await;
    assert_eq!(record.first(), Some(&0x80));
    let pickled = tidegate::internals::pickle::read(&record)
        .expect("data alone")
        .to_json()
        .expect("plain data");
    for (name, value) in [
        ("user_id", json!(5)),
        ("username", json!("Jürgen")),
        ("connection_id", Value::Null),
        ("used", json!(false)),
        ("channels", json!(["chat_1*"])),
    ] {
        assert_eq!(pickled.get(name).unwrap_or(&Value::Null), &value, "{pickled}");
    }
    let enter = async |conversation: &str| {
        let path = format!("/ws/chat/{conversation}/?connection_token={token}");
        outcome(&gateway, &path, &[]).await
    };
    assert_eq!(enter("12").await, Connected);
    assert!(!redis.run::<bool>(&["EXISTS", &key]).await);
    assert_eq!(enter("12").await, Closed(4001));
}

/// Records that CPython pickled in every protocol: tests/pickles/make.py.
#[tokio::test]
async fn a_record_is_read_past_fields_that_nothing_depends_on() {
    let engine = Engine::redis().await;
    let redis = engine.server().unwrap();
    let gateway = engine.start(django("")).await;
    let mut seen = 0;
    for line in include_str!("../pickles/records.txt").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [kind, name, protocol, hex] = fields[..] else { panic!("{line}") };
        let expected = match name {
            "everything" | "recursive" | "billion_laughs" => Connected,
            "forbidden_os_system" | "forbidden_model" | "session_expires_at" => Closed(4001),
            _ => continue,
        };
        write(redis, &unhex(hex)).await;
        assert_eq!(enter(&gateway, "conv-1").await, expected, "{kind} {name} {protocol}");
        seen += 1;
    }
    assert_eq!(seen, 6 * (3 + 2 + 6));
    let reasons: Vec<Value> =
        gateway.log_events("token_refused").iter().map(|line| line["reason"].clone()).collect();
    for reason in [
        "the field forbidden_os_system has posix.system, which is not plain data",
        "the field forbidden_model has app.models.Model, which is not plain data",
        "the field session_expires_at has a value of the type datetime",
    ] {
        assert!(reasons.contains(&json!(reason)), "{reasons:?}");
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().map(|b| (b as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
