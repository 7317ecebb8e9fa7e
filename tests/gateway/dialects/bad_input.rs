//! Streams that are not as they should be: the same cases in each dialect, by its name and found out.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::apis::{self, Api, Apis, Route, answer, ask};
use super::chunk;
use crate::rig::Reply;

/// What a case writes, and what is published of it.
struct Case {
    body: Vec<u8>,
    events: Vec<Value>,
}

fn case(body: String, events: Vec<Value>) -> Option<Case> {
    Some(Case { body: body.into_bytes(), events })
}

fn broken(text: &str) -> Value {
    json!({"event": "error", "code": "worker_lost", "error": text})
}

fn lost() -> Value {
    broken("the reply broke off")
}

/// Makes a case of an API; `None` = the API has no such case.
type MakeCase = fn(&Api) -> Option<Case>;

/// The cases by name.
const CASES: &[(&str, MakeCase)] = &[
    ("the reply", |api| {
        case([api.begin, api.text, api.proof].concat(), vec![chunk("Hi"), api.complete()])
    }),
    ("an error at once", |api| case(api.error.to_owned(), vec![api.failed()])),
    ("an error before the first text", |api| {
        case([api.begin, api.error].concat(), vec![api.failed()])
    }),
    ("an error in the middle, and a complete reply after it", |api| {
        let body = [api.begin, api.text, api.error, api.text, api.proof].concat();
        case(body, vec![chunk("Hi"), api.failed()])
    }),
    ("a stream that stops after a text", |api| {
        let end = if api.is_of_events() { json!({"event": "complete"}) } else { lost() };
        // The first of Gemini's parts has a reason already.
        let end = if api.dialect == "gemini" { api.complete() } else { end };
        case([api.begin, api.text].concat(), vec![chunk("Hi"), end])
    }),
    ("a stream that stops inside an event", |api| {
        let half = api.proof.split_at(api.proof.find('{').expect("JSON") + 6).0;
        let end = if api.dialect == "gemini" { api.complete() } else { lost() };
        case([api.begin, api.text, half].concat(), vec![chunk("Hi"), end])
    }),
    ("truncated JSON", |api| {
        let half = api.text.trim_end().strip_suffix('}').or(api.text.trim_end().strip_suffix(']'));
        let gap = if api.is_stream() { "\n\n" } else { "\n" };
        let malformed = broken("an event of the reply was not JSON");
        let end = if api.dialect == "gemini" { api.complete() } else { malformed };
        case([api.begin, api.text, half?, gap].concat(), vec![chunk("Hi"), end])
    }),
    ("bytes that are not UTF-8", |api| {
        let text = [api.begin, &api.text_of("H\u{1}i"), api.proof].concat();
        let body = text.bytes().map(|byte| if byte == 1 { 0xff } else { byte }).collect();
        Some(Case { body, events: vec![chunk("H\u{fffd}i"), api.complete()] })
    }),
    ("an event without end", |api| {
        let start = api.text.split_at(api.text.find("Hi").expect("a text")).0;
        let endless = "x".repeat(1_200_000);
        let end = match api.dialect {
            "gemini" => api.complete(),
            _ => broken("an event of the reply was too large"),
        };
        case([api.begin, api.text, start, &endless].concat(), vec![chunk("Hi"), end])
    }),
    ("two [DONE]", |api| {
        let done = "data: [DONE]\n\n";
        let body = [api.begin, api.text, api.proof, done, done].concat();
        api.is_stream().then(|| case(body, vec![chunk("Hi"), api.complete()]))?
    }),
    ("[DONE] in place of the proof", |api| {
        let body = [api.begin, api.text, "data: [DONE]\n\n", api.proof].concat();
        let end = if api.is_of_events() { json!({"event": "complete"}) } else { lost() };
        let end = if api.dialect == "gemini" { api.complete() } else { end };
        api.is_stream().then(|| case(body, vec![chunk("Hi"), end]))?
    }),
    ("nothing but [DONE]", |api| {
        let end = if api.is_of_events() { json!({"event": "complete"}) } else { lost() };
        api.is_stream().then(|| case("data: [DONE]\n\n".to_owned(), vec![end]))?
    }),
    ("text after the proof", |api| {
        let body = [api.begin, api.text, api.proof, &api.text_of("more")].concat();
        let more = api.may_go_on.then(|| chunk("more"));
        case(body, [chunk("Hi")].into_iter().chain(more).chain([api.complete()]).collect())
    }),
    ("no JSON after the proof", |api| {
        let body = [api.begin, api.text, api.proof, "data: {no\n\n{no\n\n"].concat();
        case(body, vec![chunk("Hi"), api.complete()])
    }),
    ("empty texts", |api| {
        let empty = &api.text_of("");
        let body = [api.begin, empty, api.text, empty, empty, api.proof].concat();
        (!api.is_of_events()).then(|| case(body, vec![chunk("Hi"), api.complete()]))?
    }),
    ("comments and blank lines", |api| {
        let alive = if api.is_stream() { ": alive\n\n:\n\n\n" } else { "\n\n" };
        let body = [alive, api.begin, alive, api.text, alive, api.proof].concat();
        case(body, vec![chunk("Hi"), api.complete()])
    }),
    ("keep-alives that are events", |api| {
        let alive =
            "event: ping\ndata: 12:00\n\nevent: heartbeat\ndata: {}\n\nevent: ping\n\ndata:\n\n";
        let body = [alive, api.begin, alive, api.text, alive, api.proof].concat();
        let is_dialect = api.is_stream() && !api.is_of_events();
        is_dialect.then(|| case(body, vec![chunk("Hi"), api.complete()]))?
    }),
    ("an event that is only a name", |api| {
        let body = [api.begin, "event: odd\n\n", api.text, api.proof].concat();
        let odd = match api.is_of_events() {
            true => json!({"event": "odd"}),
            false => json!({"event": "native", "name": "odd", "data": null}),
        };
        api.is_stream().then(|| case(body, vec![odd, chunk("Hi"), api.complete()]))?
    }),
    ("events that are no objects", |api| {
        // Those of LangGraph without a name are none.
        let values = [json!([1]), json!("odd"), json!(7), json!(null)];
        let odd = |data: &Value| match api.is_of_events() {
            true => json!({"event": "odd", "data": data}),
            false => json!({"event": "native", "name": "odd", "data": data}),
        };
        let events: Vec<_> = values.iter().map(odd).chain([chunk("Hi"), api.complete()]).collect();
        let written: String =
            values.iter().map(|it| format!("event: odd\ndata: {it}\n\n")).collect();
        let body = [api.begin, &written, api.text, api.proof].concat();
        api.is_stream().then(|| case(body, events))?
    }),
    ("a byte order mark and CRLF", |api| {
        let body = ["\u{feff}", api.begin, api.text, api.proof].concat().replace('\n', "\r\n");
        case(body, vec![chunk("Hi"), api.complete()])
    }),
    ("CR", |api| {
        let body = [api.begin, api.text, api.proof].concat().replace('\n', "\r");
        api.is_stream().then(|| case(body, vec![chunk("Hi"), api.complete()]))?
    }),
    ("no line feed at the end", |api| {
        let body = [api.begin, api.text, api.proof].concat();
        case(body.trim_end().to_owned(), vec![chunk("Hi"), api.complete()])
    }),
    ("halves of a character", |api| {
        let (first, second) = (&api.text_of("\\ud83d"), &api.text_of("\\ude00"));
        let single = &api.text_of("\\ud83d");
        let body = [api.begin, first, second, single, api.proof].concat();
        let events = vec![chunk("😀"), chunk("\u{fffd}"), api.complete()];
        (!api.is_of_events()).then(|| case(body, events))?
    }),
    ("a megabyte", |api| {
        let text = "x".repeat(1_000_000);
        let body = [api.begin, &api.text_of(&text), api.proof].concat();
        case(body, vec![chunk(&text), api.complete()])
    }),
    ("nothing", |api| {
        let end = if api.is_of_events() { json!({"event": "complete"}) } else { lost() };
        case(String::new(), vec![end])
    }),
];

fn find(name: &str) -> MakeCase {
    CASES.iter().find(|(case, _)| *case == name).expect("a case").1
}

#[tokio::test]
async fn each_dialect_reads_what_is_not_as_it_should_be() {
    let apis = Apis::start("", |route, name| {
        let case = find(name)(&route.api).expect("a case");
        answer(route.api.content_type, case.body)
    })
    .await;
    let mut asked = JoinSet::new();
    for route in apis::routes() {
        let mut client = apis.connect(&route).await;
        asked.spawn(async move {
            let mut differ = Vec::new();
            for (name, case) in CASES {
                let Some(case) = case(&route.api) else { continue };
                let seen = ask(&mut client, name).await;
                if seen != case.events {
                    differ.push(shown(&route, name, &seen));
                }
            }
            differ
        });
    }
    let differ: Vec<String> = asked.join_all().await.into_iter().flatten().collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

fn shown(route: &Route, name: &str, seen: &[Value]) -> String {
    let seen = serde_json::to_string(seen).expect("JSON");
    format!("{}, {name}: {}", route.name, seen.chars().take(400).collect::<String>())
}

/// Keep-alives are signs of life, so that a stream of nothing else lasts as long as a reply may.
#[tokio::test]
async fn keep_alives_alone_do_not_last_for_ever() {
    let limits = "max_reply = \"600ms\"\nstream_idle_timeout = \"1m\"";
    expect_end(limits, true, "the reply took too long").await;
    let limits = "max_reply = \"1m\"\nstream_idle_timeout = \"600ms\"";
    expect_end(limits, false, "the reply fell silent").await;
}

/// Asks upstreams that write one keep-alive, or one after the other.
async fn expect_end(limits: &str, is_endless: bool, text: &'static str) {
    let apis = Apis::start(limits, move |route, _| {
        let (writer, reply) = Reply::stream(route.api.content_type);
        let alive = if route.api.is_stream() { ": alive\n\n" } else { "\n" };
        tokio::spawn(async move {
            while writer.write(alive) {
                match is_endless {
                    true => tokio::time::sleep(Duration::from_millis(20)).await,
                    false => writer.closed().await,
                }
            }
        });
        reply
    })
    .await;
    let mut asked = JoinSet::new();
    for route in apis::routes() {
        let mut client = apis.connect(&route).await;
        asked.spawn(async move {
            assert_eq!(ask(&mut client, "hi").await, [broken(text)], "{}", route.name);
        });
    }
    asked.join_all().await;
}
