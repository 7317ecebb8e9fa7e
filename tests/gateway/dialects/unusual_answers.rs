//! Answers that are not the stream that was asked for: whole replies, errors with a status of success, refusals, and
//! bodies of other forms.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::apis::{self, Apis, Route, answer, ask};
use super::{Chat, SSE, chunk};
use crate::rig::{Client, Reply, Upstream};

const JSON: &str = "application/json";

fn lost() -> Value {
    json!({"event": "error", "code": "worker_lost", "error": "the reply broke off"})
}

/// The answer of a case, and what is published of it.
fn expected(route: &Route, case: &str) -> Option<(Reply, Vec<Value>)> {
    let api = &route.api;
    let complete = vec![chunk("Hi"), api.complete()];
    let reply = [api.begin, api.text, api.proof].concat();
    Some(match case {
        "whole" if !api.whole.is_empty() => (answer(JSON, api.whole), complete),
        // An upstream that streams although it was asked not to, and does not say so.
        "stream" if !api.is_of_events() => (answer(JSON, reply), complete),
        "text" if !api.is_of_events() => (answer("text/plain; charset=utf-8", reply), complete),
        "none" if !api.is_of_events() => {
            (Reply::Answer { status: 200, headers: Vec::new(), body: reply.into() }, complete)
        }
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(reply.as_bytes()).unwrap();
            let headers = vec![
                ("content-type", api.content_type.to_owned()),
                ("content-encoding", "gzip".to_owned()),
            ];
            let body = encoder.finish().unwrap().into();
            (Reply::Answer { status: 200, headers, body }, complete)
        }
        "error" if !api.is_of_events() => {
            let error = json!({"error": {"message": "Busy", "code": "overloaded"}});
            let failed = json!({
                "event": "error", "code": "task_failed", "error": "Busy", "upstream_code": "overloaded",
            });
            (Reply::json(200, &error), vec![failed])
        }
        "plain error" if !api.is_of_events() => {
            let failed = json!({"event": "error", "code": "task_failed", "error": "Busy"});
            (Reply::json(200, &json!({"error": "Busy"})), vec![failed])
        }
        "other JSON" if !api.is_of_events() && !route.is_auto => {
            let other = json!({"status": "ok", "error": null});
            let native = json!({"event": "native", "data": other});
            (Reply::json(200, &other), vec![native, lost()])
        }
        "truncated" if !api.whole.is_empty() => {
            let half = api.whole.split_at(api.whole.len() - 3).0;
            let begun =
                if api.dialect == "ag-ui" { vec![chunk("Hi"), lost()] } else { vec![lost()] };
            (answer(JSON, half), begun)
        }
        "page" if !api.is_of_events() => {
            (answer("text/html", "<!doctype html>\n<p>Sign in</p>\n"), vec![lost()])
        }
        "empty" => {
            let end = if api.is_of_events() { json!({"event": "complete"}) } else { lost() };
            (answer(api.content_type, ""), vec![end])
        }
        "empty JSON" if !api.is_of_events() => (answer(JSON, ""), vec![lost()]),
        _ => return None,
    })
}

const CASES: [&str; 13] = [
    "whole",
    "stream",
    "text",
    "none",
    "gzip",
    "error",
    "plain error",
    "other JSON",
    "truncated",
    "page",
    "empty",
    "empty JSON",
    "whole",
];

#[tokio::test]
async fn each_dialect_reads_answers_that_are_not_the_stream_that_was_asked_for() {
    let apis = Apis::start("", |route, case| expected(route, case).expect("a case").0).await;
    let mut asked = JoinSet::new();
    for route in apis::routes() {
        let mut client = apis.connect(&route).await;
        asked.spawn(async move {
            let mut differ = Vec::new();
            for case in CASES {
                let Some((_, events)) = expected(&route, case) else { continue };
                let seen = ask(&mut client, case).await;
                if seen != events {
                    differ.push(format!("{}, {case}: {seen:?}", route.name));
                }
            }
            differ
        });
    }
    let differ: Vec<String> = asked.join_all().await.into_iter().flatten().collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// Asks, and returns the error that the message gets.
async fn refused(client: &mut Client, case: &str) -> Value {
    client.send_json(&json!({"message": case, "id": case})).await;
    let error = client.next_event("error").await;
    let members = ["code", "error", "upstream_code"];
    let member = |name: &str| Some((name.to_owned(), error.get(name)?.clone()));
    Value::Object(members.into_iter().filter_map(member).collect())
}

#[tokio::test]
async fn each_api_refuses_in_its_own_form() {
    let apis = Apis::start("", |route, case| {
        let (json, _) = route.api.refusal;
        let (content_type, body) = match case {
            "stream" => (SSE, format!("event: error\ndata: {json}\n\n")),
            "truncated" => (JSON, json.trim_end_matches([']', '}']).to_owned()),
            "page" => ("text/html", "<p>No model.</p>".to_owned()),
            _ => (JSON, json.to_owned()),
        };
        let headers = vec![("content-type", content_type.to_owned())];
        Reply::Answer { status: 400, headers, body: body.into() }
    })
    .await;
    for route in apis::routes() {
        let mut client = apis.connect(&route).await;
        let place = if route.api.dialect == "ag-ui" { "body: " } else { "" };
        let mut expected =
            json!({"code": "upstream_rejected", "error": format!("{place}No model.")});
        if let Some(code) = route.api.refusal.1 {
            expected["upstream_code"] = json!(code);
        }
        for case in ["JSON", "stream"] {
            assert_eq!(refused(&mut client, case).await, expected, "{} {case}", route.name);
        }
        let expected =
            json!({"code": "upstream_rejected", "error": "the service rejected the message"});
        for case in ["truncated", "page"] {
            assert_eq!(refused(&mut client, case).await, expected, "{} {case}", route.name);
        }
    }
}

/// JSON of no API has the meaning that it has without a dialect: the message was taken, and a worker may reply.
#[tokio::test]
async fn auto_takes_json_of_no_api_for_no_reply() {
    let apis = Apis::start("", |_, case| match case {
        "worker" => Reply::json(200, &json!({"task_id": "t-1"})),
        "list" => answer(JSON, "[]"),
        "text" => answer(JSON, "\"ok\""),
        _ => Reply::json(200, &json!({"status": "ok"})),
    })
    .await;
    let route = apis::routes().into_iter().find(|route| route.is_auto).expect("a route");
    let mut client = apis.connect(&route).await;
    for case in ["object", "list", "text", "worker"] {
        client.send_json(&json!({"message": case})).await;
        let queued = client.next_event("task_queued").await;
        assert_eq!(queued["task_id"] == "t-1", case == "worker", "{queued}");
        client.send_json(&json!({"type": "ping"})).await;
        client.next_event("pong").await;
    }
    apis.gateway.publish(route.name, json!({"event": "complete", "task_id": "t-1"})).await;
    assert_eq!(client.next_json().await["event"], "complete");
    assert_eq!(apis.upstream.requests().len(), 4);
}

/// Heads and bodies as HTTP allows them, and bodies that are cut in each of its ways.
#[tokio::test]
async fn bodies_end_as_http_says() {
    const REPLY: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\n";
    const CUT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    let chunked =
        |body: &str| format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len());
    let complete = json!({"event": "complete", "finish_reason": "stop"});
    for (answer, end) in [
        // Informational heads before the answer, and trailers behind it.
        (
            format!(
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{HEAD}Trailer: X-Sum\r\n{}0\r\nX-Sum: 1\r\n\r\n",
                chunked(REPLY)
            ),
            &complete,
        ),
        (format!("{HEAD}{}", chunked(CUT) + "0\r\n\r\n"), &lost()),
        // The proof counts however the body ends.
        (format!("{HEAD}{}", chunked(REPLY)), &complete),
        (format!("{HEAD}Content-Length: 9999\r\n\r\n{REPLY}"), &complete),
        (format!("{HEAD}Connection: close\r\n\r\n{REPLY}"), &complete),
        (format!("{HEAD}Connection: close\r\n\r\n{CUT}"), &lost()),
        (format!("{HEAD}Connection: close\r\n\r\n{CUT}{}", REPLY.split_at(40).0), &lost()),
        (format!("{HEAD}Content-Length: 9999\r\n\r\n{CUT}"), &lost()),
        (format!("{HEAD}{}", chunked(CUT)), &lost()),
    ] {
        let upstream = Upstream::sending(answer.clone().leak().as_bytes()).await;
        let dialect = "dialect = \"openai-chat\"";
        let mut chat = Chat::start(upstream, dialect, Arc::default()).await;
        let task_id = chat.queue().await;
        assert_eq!(chat.events(&task_id).await, [chunk("Hi"), end.clone()], "{answer}");
    }
}
