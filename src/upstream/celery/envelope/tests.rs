//! The envelope compared with messages of Celery's own, and with what is known to stop a worker.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{ClientField, FieldType, Missing, ObjectTemplate, ValueTemplate};
use crate::protocol::Template;
use crate::upstream::template;
use crate::upstream::tests::message;

/// A message written by Celery 5.7 with kombu 5.7: `apply_async(kwargs=…, expires=600)`, with
/// `task_time_limit = 300`.
const CAPTURED: &str = include_str!("../captured_task.json");
/// The message of `app.control.revoke(id, terminate=True)`.
const CAPTURED_REVOKE: &str = include_str!("../captured_revoke.json");

const TASK_ID: &str = "07ec14df-5b0b-4703-9e5a-b4fe3759976b";

fn celery_task(expires: Option<Duration>, kwargs: ObjectTemplate) -> CeleryTask {
    CeleryTask {
        name: "core.agents.tasks.process_chat_message_task".to_owned(),
        queue: "celery".to_owned(),
        priority: 0,
        kwargs,
        expires,
        queued_event: "task_queued".to_owned(),
    }
}

fn body_of(envelope: &Value) -> Value {
    let body = STANDARD.decode(envelope["body"].as_str().expect("a text")).expect("base64");
    serde_json::from_slice(&body).expect("JSON")
}

/// Returns the names of all fields in their order.
fn names(json: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = json;
    while let Some((_, after)) = rest.split_once('"') {
        let (text, after) = after.split_once('"').expect("an end");
        if after.starts_with(':') {
            names.push(text.to_owned());
        }
        rest = after;
    }
    names
}

#[test]
fn a_task_is_what_celery_writes() {
    let captured: Value = serde_json::from_str(CAPTURED).unwrap();
    let body = body_of(&captured);
    let kwargs = RawValue::from_string(body[1].to_string()).unwrap();
    let task = celery_task(Some(Duration::from_secs(600)), ObjectTemplate::new());
    let sent = Duration::from_micros(1_795_477_308_403_057);
    let json = super::task(&task, TASK_ID, &kwargs, None, sent).unwrap();
    let written: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(body_of(&written), body);

    let mut expected = captured;
    let tag = written["properties"]["delivery_tag"].clone();
    assert_ne!(tag, expected["properties"]["delivery_tag"]);
    expected["body"] = written["body"].clone();
    expected["properties"]["delivery_tag"] = tag;
    // These differ for each producer.
    expected["properties"]["reply_to"] = PRODUCER.reply_to.as_str().into();
    expected["headers"]["origin"] = format!("gen{}@tidegate", std::process::id()).into();
    // The worker's own limit applies, and the client's text stays out of logs.
    expected["headers"]["timelimit"] = json!([null, null]);
    expected["headers"]["kwargsrepr"] = "{...}".into();
    assert_eq!(written, expected);
    let written = String::from_utf8(json).unwrap();
    assert_eq!(names(&written), names(&CAPTURED.replace("\": ", "\":")));
}

#[test]
fn a_task_without_expiry_has_no_expiry_fields() {
    let kwargs = RawValue::from_string("{}".to_owned()).unwrap();
    let task = celery_task(None, ObjectTemplate::new());
    let json = super::task(&task, TASK_ID, &kwargs, None, Duration::ZERO);
    let written: Value = serde_json::from_slice(&json.unwrap()).unwrap();
    assert_eq!(written["headers"]["expires"], Value::Null);
    assert_eq!(written["properties"].get("expiration"), None);
}

#[test]
fn a_revoke_is_what_celery_writes() {
    let captured: Value = serde_json::from_str(CAPTURED_REVOKE).unwrap();
    let body = body_of(&captured);
    let clock = captured["headers"]["clock"].as_u64().unwrap();
    let expires = captured["headers"]["expires"].as_f64().unwrap();
    let task_id = body["arguments"]["task_id"].as_str().unwrap();
    let now = Duration::from_secs_f64(expires - 1.0);
    let json = super::revoke("celery.pidbox", task_id, Some("SIGTERM"), clock, now).unwrap();
    let mut written: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(body_of(&written), body);
    let off = written["headers"]["expires"].as_f64().unwrap() - expires;
    assert!(off.abs() < 0.001, "{off}");
    for (field, value) in [("delivery_tag", "properties"), ("expires", "headers")] {
        assert!(!written[value][field].is_null());
        written[value][field] = captured[value][field].clone();
    }
    written["body"] = captured["body"].clone();
    assert_eq!(written, captured);

    let json = super::revoke("celery.pidbox", task_id, None, 2, now).unwrap();
    let arguments = body_of(&serde_json::from_slice(&json).unwrap())["arguments"].clone();
    assert_eq!(arguments["terminate"], false);
}

/// Checks what a worker needs to run a task. Each check is for a defect that stops workers or loses messages.
fn check(json: &[u8]) -> Value {
    // The worker ends at text that is not JSON, or has duplicate names.
    let text = std::str::from_utf8(json).expect("UTF-8");
    let envelope: Value = serde_json::from_str(text).expect("JSON");
    // Without these the worker ends and the message is put back, or dropped.
    assert_eq!(envelope["content-type"], "application/json");
    assert_eq!(envelope["content-encoding"], "utf-8");
    let (headers, properties) = (&envelope["headers"], &envelope["properties"]);
    // Without an id the message is redelivered forever; without a task it is dropped.
    let id = headers["id"].as_str().expect("an id");
    assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
    assert!(headers["task"].as_str().is_some_and(|task| !task.is_empty()));
    // Without these the worker reconnects to the broker, and the message is lost.
    let tag = properties["delivery_tag"].as_str().expect("a tag");
    assert!(uuid::Uuid::parse_str(tag).is_ok() && tag != id);
    assert_eq!(properties["delivery_info"]["exchange"], "");
    assert!(properties["delivery_info"]["routing_key"].as_str().is_some_and(|key| !key.is_empty()));
    assert_eq!(properties["body_encoding"], "base64");
    assert!(properties["priority"].as_u64().is_some_and(|priority| priority <= 9));
    // An invalid expiry drops the message.
    if let Some(expires) = headers["expires"].as_str() {
        let shape = expires.replace(|c: char| c.is_ascii_digit(), "0");
        assert_eq!(shape, "0000-00-00T00:00:00.000000+00:00");
    }
    // A body that is not a list of three ends the worker, and the message is redelivered.
    let body = body_of(&envelope);
    let [args, kwargs, embed] = body.as_array().expect("a list").as_slice() else {
        panic!("three: {body}")
    };
    assert_eq!(*args, json!([]));
    assert!(kwargs.is_object());
    assert_eq!(*embed, json!({"callbacks":null,"errbacks":null,"chain":null,"chord":null}));
    // Celery's reader decodes such an object to another type, or fails.
    assert!(!text.contains("__type__") && !is_decoded(kwargs), "{kwargs}");
    kwargs.clone()
}

/// Whether kombu's object hook would decode the value to another type.
fn is_decoded(value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            let marked = map.len() == 2
                && ["__type__", "__value__"].iter().all(|name| map.contains_key(*name));
            marked || map.values().any(is_decoded)
        }
        Value::Array(list) => list.iter().any(is_decoded),
        _ => false,
    }
}

/// Any JSON text, including text that no worker could decode.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        "-?[1-9][0-9]{0,30}",
        "-?[0-9]\\.[0-9]{1,3}[eE][+-]?[0-9]{1,4}",
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        "\"(\\\\u(d[89a-f][0-9a-f]{2}|00[0-9a-f]{2})){1,3}\"",
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let name = prop_oneof![
            Just("\"__type__\"".to_owned()),
            Just("\"__value__\"".to_owned()),
            any::<String>().prop_map(|text| Value::from(text).to_string()),
        ];
        let entry = (name, inner.clone()).prop_map(|(name, value)| format!("{name}:{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec(entry, 0..4).prop_map(|map| format!("{{{}}}", map.join(","))),
        ]
    })
}

fn any_kwarg() -> impl Strategy<Value = ValueTemplate> {
    let template = prop::sample::select(vec![
        "{message}",
        "{channel}-{id}",
        "{user_id}",
        "{username}{connection_id}",
        "{task_id}",
        "\"",
    ]);
    let kinds = [
        FieldType::Any,
        FieldType::Text,
        FieldType::Int,
        FieldType::Number,
        FieldType::Bool,
        FieldType::Object,
        FieldType::List,
    ];
    let missing =
        prop::sample::select(vec![Missing::Refuse, Missing::Omit, Missing::Default(json!(["x"]))]);
    let field = (
        prop::sample::select(vec!["a", "b", "absent"]),
        prop::sample::select(kinds.to_vec()),
        missing,
    );
    prop_oneof![
        template.prop_map(|text| ValueTemplate::Text(Template::parse(text).unwrap())),
        Just(ValueTemplate::Integer(Template::parse("{user_id}").unwrap())),
        Just(ValueTemplate::Constant(json!({"a": [1, null]}))),
        field.prop_map(|(name, kind, missing)| {
            ValueTemplate::Field(ClientField { name: name.into(), kind, missing })
        }),
    ]
}

proptest! {
    #[test]
    fn no_client_makes_a_message_that_stops_a_worker(
        (a, b) in (any_json(), any_json()),
        text in any::<String>(),
        username in proptest::option::of(any::<String>()),
        kwarg in any_kwarg(),
        (priority, expires) in (0..=9u8, proptest::option::of(0..31_536_000_000u64)),
    ) {
        let mut message = message();
        let data = format!(r#"{{"message":"hi","a":{a},"b":{b}}}"#);
        let Ok(data) = RawValue::from_string(data) else { return Ok(()) };
        message.data = data;
        message.task_id = TASK_ID.to_owned();
        message.text = text;
        message.username = username.map(Into::into);
        let mut task = celery_task(expires.map(Duration::from_millis), vec![("x".to_owned(), kwarg)]);
        task.priority = priority;
        let Ok(kwargs) = template::fill_object(&task.kwargs, &message) else { return Ok(()) };
        let json = super::task(&task, &message.task_id, &kwargs, None, clock::since_unix_epoch()).unwrap();
        let read = check(&json);
        prop_assert_eq!(read, serde_json::from_str::<Value>(kwargs.get()).unwrap());
    }
}
