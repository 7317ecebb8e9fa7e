//! What templates are filled with, and that the result is JSON.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{Config, HttpUpstream, RequestBody, UpstreamKind};
use crate::protocol::UserId;
use crate::upstream::tests::message;

/// Reads the `body` of an HTTP upstream, or another key of it that is written the same way.
fn template(body: &str) -> ValueTemplate {
    let text = format!(
        "[[route]]\npath = \"/ws/{{id}}\"\nchannel = \"c\"\nupstream = \"ai\"\n\
         [upstream.ai]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\nbody = {body}"
    );
    let config = Config::from_toml(&text).unwrap_or_else(|mistakes| panic!("{body}: {mistakes}"));
    match &config.upstreams["ai"].kind {
        UpstreamKind::Http(HttpUpstream { request, .. }) => match &request.body {
            RequestBody::Template(template) => template.clone(),
            other => panic!("{body}: {other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn message_with(data: &str) -> Message {
    let mut message = message();
    message.data = RawValue::from_string(data.to_owned()).unwrap();
    message
}

fn fill(body: &str, message: &Message) -> Result<String, InvalidMessage> {
    fill_body(&template(body), message).map(|json| String::from_utf8(json).unwrap())
}

#[test]
fn each_kind_of_value_is_filled() {
    let message = message_with(
        r#"{"message":"hi","n":12345678901234567890,"f":1.50,"o":{"b":1,"a":2, "b":3},"t":"\u00e9","l":[1, 2],"z":null}"#,
    );
    for (body, json) in [
        (r#"{ a = "{message}" }"#, r#"{"a":"hi"}"#),
        (r#"{ a = "{id}/{user_id}/{username}" }"#, r#"{"a":"4/2/7/Ana Ü"}"#),
        (r#"{ a = "{message_id} {task_id} {channel}" }"#, r#"{"a":"m 1 our-task chat_42"}"#),
        (r#"{ a = { int = "{user_id}" } }"#, r#"{"a":7}"#),
        (
            r#"{ a = { value = "{message}" }, b = { null = true } }"#,
            r#"{"a":"{message}","b":null}"#,
        ),
        (
            r#"{ a = 1, b = 1.5, c = true, d = [], e = {} }"#,
            r#"{"a":1,"b":1.5,"c":true,"d":[],"e":{}}"#,
        ),
        // As it was sent, to the byte.
        (
            r#"{ a = { field = "n" }, b = { field = "f" } }"#,
            r#"{"a":12345678901234567890,"b":1.50}"#,
        ),
        (r#"{ a = { field = "o" } }"#, r#"{"a":{"b":1,"a":2, "b":3}}"#),
        (r#"{ a = { field = "t", type = "text" } }"#, r#"{"a":"\u00e9"}"#),
        // Left out, or with a default.
        (r#"{ a = { field = "z", default = "omit" }, b = 1 }"#, r#"{"b":1}"#),
        (r#"{ b = 1, c = { field = "none", default = "omit" } }"#, r#"{"b":1}"#),
        (r#"{ a = { field = "none" } }"#, r#"{"a":null}"#),
        (r#"{ a = { field = "none", default = { value = [1, "x"] } } }"#, r#"{"a":[1,"x"]}"#),
        (r#"[{ field = "none", default = "omit" }, "x"]"#, r#"["x"]"#),
        // Lists of the client among others.
        (r#"[{ spread = "l" }]"#, "[1, 2]"),
        (r#"["s", { spread = "l" }, { spread = "none" }, 3]"#, r#"["s",1, 2,3]"#),
        (r#"[{ spread = "none" }]"#, "[]"),
        (r#"{ field = "l" }"#, "[1, 2]"),
        (
            r#"{ "a\"b" = { c = [{ d = { field = "n" } }] } }"#,
            r#"{"a\"b":{"c":[{"d":12345678901234567890}]}}"#,
        ),
    ] {
        assert_eq!(fill(body, &message).as_deref(), Ok(json), "{body}");
    }
}

#[test]
fn a_page_sends_its_history_behind_the_system_message() {
    let message = message_with(
        r#"{"message":"hi","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
    );
    let body = r#"{ model = "m", stream = true, messages = [
        { role = "system", content = "Be brief." },
        { spread = "messages" },
        { role = "user", content = [{ type = "text", text = "{message}" }] } ] }"#
        .replace('\n', " ");
    let filled: Value = serde_json::from_str(&fill(&body, &message).unwrap()).unwrap();
    let expected = json!({
        "model": "m", "stream": true, "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ],
    });
    assert_eq!(filled, expected);
}

/// Regression test: a text of a client that closes the string it stands in.
#[test]
fn texts_stay_texts() {
    let mut message = message();
    message.text = "\", \"admin\": true, \"x\": \"\\\n\u{1}".to_owned();
    let filled: Value =
        serde_json::from_str(&fill(r#"{ a = "<{message}>" }"#, &message).unwrap()).unwrap();
    assert_eq!(filled, json!({"a": format!("<{}>", message.text)}));
}

#[test]
fn messages_that_do_not_fit_are_refused() {
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(128), "]".repeat(128));
    for (body, data, text) in [
        (r#"{ a = { field = "a", required = true } }"#, "{}", "a is required"),
        (r#"{ a = { field = "a", required = true } }"#, r#"{"a":null}"#, "a is required"),
        (r#"[{ spread = "a", required = true }]"#, "{}", "a is required"),
        (r#"[{ spread = "a" }]"#, r#"{"a":{"0":1}}"#, "a must be a list"),
        (r#"{ a = { field = "a", type = "text" } }"#, r#"{"a":1}"#, "a must be a text"),
        (r#"{ a = { field = "a", type = "int" } }"#, r#"{"a":1.0}"#, "a must be an integer"),
        (r#"{ a = { field = "a", type = "int" } }"#, r#"{"a":-0}"#, "a must be an integer"),
        (r#"{ a = { field = "a", type = "int" } }"#, r#"{"a":1e2}"#, "a must be an integer"),
        (r#"{ a = { field = "a", type = "number" } }"#, r#"{"a":"1"}"#, "a must be a number"),
        (r#"{ a = { field = "a", type = "bool" } }"#, r#"{"a":0}"#, "a must be true or false"),
        (r#"{ a = { field = "a", type = "object" } }"#, r#"{"a":[]}"#, "a must be an object"),
        (r#"{ a = { field = "a", type = "list" } }"#, r#"{"a":{}}"#, "a must be a list"),
        (
            r#"{ a = { field = "a" } }"#,
            r#"{"a":[1,18446744073709551616]}"#,
            "a holds a number that is out of range",
        ),
        (
            r#"{ a = { field = "a" } }"#,
            r#"{"a":1e999}"#,
            "a holds text, a number or nesting that cannot be passed on",
        ),
        (
            r#"{ a = { field = "a" } }"#,
            r#"{"a":"\ud800"}"#,
            "a holds text, a number or nesting that cannot be passed on",
        ),
        (
            r#"{ a = { field = "a" } }"#,
            &*deep,
            "a holds text, a number or nesting that cannot be passed on",
        ),
        (r#"{ x = [{ y = { int = "{message}" } }] }"#, "{}", "y is not an integer"),
        (r#"{ x = [{ int = "0{user_id}" }] }"#, "{}", "x is not an integer"),
        (r#"{ int = "{message}" }"#, "{}", "the body is not an integer"),
    ] {
        assert_eq!(fill(body, &message_with(data)), Err(text.to_owned()), "{body} {data}");
    }
    let anonymous = Message { user_id: None, ..message() };
    let error = fill(r#"{ a = ["{user_id}"] }"#, &anonymous);
    assert_eq!(error, Err("only signed-in users may send here".to_owned()));
    // What is not used is not looked at.
    let message = message_with(r#"{"a":1e999,"b":2}"#);
    assert_eq!(fill(r#"{ b = { field = "b" } }"#, &message).as_deref(), Ok(r#"{"b":2}"#));
}

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(" null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        "-?[1-9][0-9]{0,24}",
        "-?[0-9]\\.[0-9]{1,3}[eE][+-]?[0-9]{1,4}",
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        "\"(\\\\u(d[89a-f][0-9a-f]{2}|00[0-9a-f]{2})){1,3}\"",
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let name = any::<String>().prop_map(|text| Value::from(text).to_string());
        let entry = (name, inner.clone()).prop_map(|(name, value)| format!("{name} : {value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|list| format!("[ {} ]", list.join(" ,"))),
            prop::collection::vec(entry, 0..4).prop_map(|map| format!("{{{}}}", map.join(", "))),
        ]
    })
}

fn any_field() -> impl Strategy<Value = ClientField> {
    let kinds = [FieldType::Any, FieldType::Text, FieldType::Int, FieldType::List];
    let missing =
        prop::sample::select(vec![Missing::Refuse, Missing::Omit, Missing::Default(json!(["x"]))]);
    let name = prop::sample::select(vec!["a", "b", "absent"]);
    (name, prop::sample::select(kinds.to_vec()), missing)
        .prop_map(|(name, kind, missing)| ClientField { name: name.into(), kind, missing })
}

fn any_template() -> impl Strategy<Value = ValueTemplate> {
    let text = prop::sample::select(vec!["{message}", "\"{username}\\", "{id}{task_id}", "x"]);
    let leaf = prop_oneof![
        text.prop_map(|text| ValueTemplate::Text(Template::parse(text).unwrap())),
        Just(ValueTemplate::Integer(Template::parse("{user_id}").unwrap())),
        Just(ValueTemplate::Constant(json!({"a": [1, null, "\""]}))),
        any_field().prop_map(ValueTemplate::Field),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let members = prop::collection::btree_map(any::<String>(), inner.clone(), 0..4);
        let spread = any_field()
            .prop_map(|field| ListItem::Spread(ClientField { kind: FieldType::List, ..field }));
        let item = prop_oneof![inner.prop_map(ListItem::One), spread];
        prop_oneof![
            members.prop_map(|members| ValueTemplate::Object(members.into_iter().collect())),
            prop::collection::vec(item, 0..4).prop_map(ValueTemplate::List),
        ]
    })
}

proptest! {
    #[test]
    fn a_filled_body_is_always_json(
        (a, b) in (any_json(), any_json()),
        text in any::<String>(),
        username in proptest::option::of(any::<String>()),
        user_id in any::<u32>(),
        body in any_template(),
    ) {
        let Ok(data) = RawValue::from_string(format!(r#"{{"a":{a},"b" :{b}}}"#)) else {
            return Ok(());
        };
        let message = Message {
            data,
            text,
            username: username.map(Into::into),
            user_id: Some(UserId::Integer(user_id.into())),
            ..message()
        };
        let Ok(json) = fill_body(&body, &message) else { return Ok(()) };
        let json = String::from_utf8(json).expect("UTF-8");
        let parsed: Result<Value, _> = serde_json::from_str(&json);
        prop_assert!(parsed.is_ok(), "{body:?} {json}");
    }
}
