//! docs/asyncapi.json agrees with the code: it has every close code, every error code, every event that the gateway
//! writes and every type of frame that it reads, and no others. `tests/api/protocol.py` checks that real frames
//! match it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tidegate::internals::{
    ClientAction, ClientFrame, CloseReason, ErrorCode, EventName, MAX_TASK_ID_BYTES,
};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn description() -> Value {
    serde_json::from_str(&read("docs/asyncapi.json")).expect("JSON")
}

/// The constant values of `property` in the schemas of all messages.
fn words(description: &Value, property: &str) -> BTreeSet<String> {
    let messages = description["components"]["messages"].as_object().expect("messages");
    let schema = |message: &Value| {
        let pointer = message["payload"]["$ref"].as_str()?.strip_prefix('#')?.to_owned();
        description.pointer(&pointer)?["properties"][property]["const"].as_str().map(str::to_owned)
    };
    messages.values().filter_map(schema).collect()
}

/// The text between each `before` and the next quote in the sources.
fn quoted(source: &str, before: &str) -> BTreeSet<String> {
    let parts = source.split(before).skip(1);
    parts.filter_map(|part| part.split(['"', '\\']).next()).map(str::to_owned).collect()
}

#[test]
fn every_close_is_described_and_no_other() {
    let description = description();
    let rows = description["channels"]["conversation"]["x-close-codes"].as_array().expect("rows");
    let described: Vec<_> = rows
        .iter()
        .map(|row| {
            let text = |field: &str| row[field].as_str();
            (row["code"].as_u64(), text("text"), text("reason"), text("client"))
        })
        .collect();
    let closes: Vec<_> = CloseReason::ALL
        .iter()
        .map(|close| {
            let action = close.action().label();
            (Some(close.code().into()), Some(close.text()), Some(close.label()), Some(action))
        })
        .collect();
    assert_eq!(described, closes);
    let actions = ClientAction::ALL.map(|action| (action.label(), action.description()));
    let actions: Value = actions.into_iter().collect();
    assert_eq!(description["channels"]["conversation"]["x-client-actions"], actions);
}

#[test]
fn every_error_code_is_described_and_no_other() {
    let codes = &description()["components"]["schemas"]["ErrorCode"]["enum"];
    let described: BTreeSet<_> =
        codes.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(described, ErrorCode::ALL.iter().map(|code| code.label()).collect());
}

#[test]
fn every_event_of_the_code_is_described_and_no_other() {
    let written = EventName::LABELS.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(words(&description(), "event"), written);
}

#[test]
fn every_type_of_frame_is_described_and_no_other() {
    let read_types = quoted(&read("src/protocol/client_frame.rs"), "Some(\"");
    assert_eq!(words(&description(), "type"), read_types);
}

#[test]
fn bounds_are_those_of_the_code() {
    let schemas = &description()["components"]["schemas"];
    assert_eq!(schemas["TaskId"]["maxLength"], MAX_TASK_ID_BYTES);
    assert_eq!(schemas["MessageId"]["maxLength"], ClientFrame::MAX_ID_BYTES);
}
