//! Replies in one dialect each, from their first event to their end.

use super::*;

#[tokio::test]
async fn a_reply_reaches_every_tab_and_ends_once() {
    let mut chat = Chat::streaming("dialect = \"openai-chat\"", SSE).await;
    let (task_id, writer) = chat.ask().await;
    assert!(writer.write(": keep-alive\r\n\r\n"));
    assert!(writer.write(delta("Grüße")));
    assert!(writer.write(delta("")));
    let tool = json!({"choices": [{"delta": {"tool_calls": [
        {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}
    ]}}]});
    assert!(writer.write(format!("data: {tool}\n\ndata: {{\"sources\":[1]}}\n\n")));
    assert!(writer.write(finish("tool_calls")));
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}});
    assert!(writer.write(format!("data: {usage}\n\ndata: [DONE]\n\ndata: [DONE]\n\n")));
    let call = |state: &str, more: Value| {
        let mut call = json!({"event": "tool_call", "state": state, "id": "call_1", "name": "f"});
        call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call
    };
    assert_eq!(
        chat.events(&task_id).await,
        [
            chunk("Grüße"),
            call("start", json!({})),
            call("arguments", json!({"delta": "{}"})),
            json!({"event": "native", "data": {"sources": [1]}}),
            call("end", json!({"arguments": "{}"})),
            json!({"event": "usage", "input_tokens": 9, "output_tokens": 2, "total_tokens": 11}),
            json!({"event": "complete", "finish_reason": "tool_calls"}),
        ]
    );
    // What comes after the end is not read.
    writer.closed().await;
    let labels = [("upstream", "worker"), ("dialect", "openai-chat")];
    chat.gateway.wait_for_metric("tidegate_upstream_unknown_events_total", &labels, 1.0).await;
    chat.gateway.wait_for_metric("tidegate_upstream_dialect_replies_total", &labels, 1.0).await;
    let complete = [("upstream", "worker"), ("outcome", "complete")];
    chat.gateway.wait_for_metric("tidegate_upstream_replies_total", &complete, 1.0).await;
}

#[tokio::test]
async fn an_event_can_have_a_megabyte() {
    let mut chat = Chat::streaming("dialect = \"openai-chat\"", SSE).await;
    let (task_id, writer) = chat.ask().await;
    let text = "x".repeat(1_000_000);
    assert!(writer.write(delta(&text) + &finish("stop")));
    drop(writer);
    let complete = json!({"event": "complete", "finish_reason": "stop"});
    assert_eq!(chat.events(&task_id).await, [chunk(&text), complete]);
    // An endless one ends the reply.
    let (task_id, writer) = chat.ask().await;
    while writer.write("data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".repeat(1024)) {
        tokio::task::yield_now().await;
    }
    let events = chat.events(&task_id).await;
    assert_eq!(events[0]["error"], "an event of the reply was too large");
}

/// Some servers write neither `[DONE]` nor their usage, and keep the connection.
#[tokio::test]
async fn a_proved_end_does_not_wait_for_the_end_of_the_body() {
    let mut chat = Chat::streaming("dialect = \"openai-chat\"", SSE).await;
    let (task_id, writer) = chat.ask().await;
    assert!(writer.write(delta("Hi") + &finish("stop")));
    let complete = json!({"event": "complete", "finish_reason": "stop"});
    assert_eq!(chat.events(&task_id).await, [chunk("Hi"), complete.clone()]);
    writer.closed().await;
    // After the proof a broken connection breaks nothing.
    let (task_id, writer) = chat.ask().await;
    assert!(writer.write(delta("Hi") + &finish("stop")));
    chat.expect_first_chunk().await;
    writer.abort();
    assert_eq!(chat.events(&task_id).await, [complete]);
}

#[tokio::test]
async fn a_stream_that_stops_is_lost_however_it_stops() {
    let mut chat = Chat::streaming("dialect = \"anthropic\"", SSE).await;
    let text = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}});
    let text = format!("event: content_block_delta\ndata: {text}\n\n");
    let lost = json!({"event": "error", "code": "worker_lost", "error": "the reply broke off"});
    for stop in [
        |writer: StreamWriter| drop(writer),
        |writer: StreamWriter| writer.abort(),
        |writer: StreamWriter| assert!(writer.write("data: [DONE]\n\n")),
        |writer: StreamWriter| {
            assert!(writer.write("event: content_block_delta\ndata: {\"type\":\"cont"));
        },
    ] {
        let (task_id, writer) = chat.ask().await;
        assert!(writer.write(text.clone()));
        chat.expect_first_chunk().await;
        stop(writer);
        assert_eq!(chat.events(&task_id).await, std::slice::from_ref(&lost));
    }
    let outcome = [("route", "/ws/chat/{conversation_id}/"), ("outcome", "worker_lost")];
    chat.gateway.wait_for_metric("tidegate_generations_total", &outcome, 4.0).await;
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_lost_without_its_proof() {
    const CUT: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let mut chat =
        Chat::start(Upstream::sending(CUT).await, "dialect = \"openai-chat\"", Arc::default())
            .await;
    let task_id = chat.queue().await;
    let events = chat.events(&task_id).await;
    assert_eq!(events[0], chunk("Hi"));
    assert_eq!(events[1]["code"], "worker_lost");
}

/// A LangGraph server ends a run by the end of the body, of which a body that ends with its connection has no proof.
#[tokio::test]
async fn a_run_of_langgraph_ends_with_its_whole_body() {
    const RUN: &str = "event: metadata\ndata: {\"run_id\":\"r\"}\n\nevent: messages\n\
        data: [{\"type\":\"ai\",\"id\":\"m\",\"content\":\"Hi\"},{}]\n\n";
    let mut chat = Chat::streaming("dialect = \"langgraph\"", SSE).await;
    let (task_id, writer) = chat.ask().await;
    assert!(writer.write(RUN));
    drop(writer);
    let complete = json!({"event": "complete", "finish_reason": "stop"});
    assert_eq!(chat.events(&task_id).await, [chunk("Hi"), complete]);
    let (task_id, writer) = chat.ask().await;
    assert!(writer.write(RUN));
    chat.expect_first_chunk().await;
    writer.abort();
    assert_eq!(chat.events(&task_id).await[0]["code"], "worker_lost");

    let cut = format!("HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{RUN}");
    let upstream = Upstream::sending(cut.leak().as_bytes()).await;
    let mut chat = Chat::start(upstream, "dialect = \"langgraph\"", Arc::default()).await;
    let task_id = chat.queue().await;
    let events = chat.events(&task_id).await;
    assert_eq!(events[0], chunk("Hi"));
    assert_eq!(events[1]["code"], "worker_lost");
}

/// AI SDK 4 and many backends in Python write lines of text, which only a header names.
#[tokio::test]
async fn a_data_stream_is_known_by_its_header() {
    for dialect in ["ai-sdk", "auto"] {
        let body = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nX-Vercel-AI-Data-Stream: v1\r\n\
            Content-Length: 62\r\n\r\n0:\"Hi\"\nd:{\"finishReason\":\"length\",\"usage\":{\"promptTokens\":9}}\n";
        let upstream = Upstream::sending(body.as_bytes()).await;
        let mut chat =
            Chat::start(upstream, &format!("dialect = \"{dialect}\""), Arc::default()).await;
        let task_id = chat.queue().await;
        let events = [
            chunk("Hi"),
            json!({"event": "usage", "input_tokens": 9}),
            json!({"event": "complete", "finish_reason": "length"}),
        ];
        assert_eq!(chat.events(&task_id).await, events, "{dialect}");
    }
}

#[tokio::test]
async fn an_error_in_the_middle_fails_the_reply() {
    let body = |error: &str| {
        let text = r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}]}}]}"#;
        format!("data: {text}\r\n\r\n{error}")
    };
    let bare = "{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"Busy\",\n    \"status\": \"UNAVAILABLE\"\n  }\n}\n";
    let mut chat = Chat::streaming("dialect = \"gemini\"", SSE).await;
    for (error, text, code) in [
        (bare, "Busy", json!("UNAVAILABLE")),
        ("data: {\"error\":{\"message\":\"Busy\"}}\n\n", "Busy", Value::Null),
        ("event: error\ndata: it broke\n\n", "it broke", Value::Null),
    ] {
        let (task_id, writer) = chat.ask().await;
        assert!(writer.write(body(error)));
        let events = chat.events(&task_id).await;
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!(events[0], chunk("Hi"));
        assert_eq!(
            (&events[1]["error"], &events[1]["code"], &events[1]["upstream_code"]),
            (&json!(text), &json!("task_failed"), &code)
        );
        writer.closed().await;
    }
    let failed = [("upstream", "worker"), ("outcome", "failed")];
    chat.gateway.wait_for_metric("tidegate_upstream_replies_total", &failed, 3.0).await;
    let failed = [("route", "/ws/chat/{conversation_id}/"), ("outcome", "task_failed")];
    chat.gateway.wait_for_metric("tidegate_generations_total", &failed, 3.0).await;
}

#[tokio::test]
async fn another_tab_cancels_a_reply_and_its_upstream_sees_it() {
    let mut chat = Chat::streaming("dialect = \"ollama\"", "application/x-ndjson").await;
    let (task_id, writer) = chat.ask().await;
    let line = json!({"model": "m", "message": {"content": "Hi"}, "done": false});
    assert!(writer.write(format!("{line}\n")));
    while chat.other.next_json().await["event"] != "chunk" {}
    chat.other.send_json(&json!({"type": "cancel", "task_id": task_id})).await;
    writer.closed().await;
    let events = read_events(&mut chat.sender, &task_id).await;
    assert_eq!(events, [chunk("Hi"), json!({"event": "cancelled"})]);
    // A new reply is not in the way of the old one.
    let (task_id, writer) = chat.ask().await;
    let end =
        json!({"model": "m", "message": {"content": ""}, "done": true, "done_reason": "length"});
    assert!(writer.write(format!("{line}\r\n{end}")));
    drop(writer);
    let complete = json!({"event": "complete", "finish_reason": "length"});
    assert_eq!(read_events(&mut chat.sender, &task_id).await, [chunk("Hi"), complete]);
}

#[tokio::test]
async fn native_objects_pass_as_they_are() {
    let dialect = "dialect = \"openai-responses\"\npublish = \"native\"";
    let mut chat = Chat::streaming(dialect, SSE).await;
    let (task_id, writer) = chat.ask().await;
    let text = json!({"type": "response.output_text.delta", "delta": "Hi"});
    let end = json!({"type": "response.completed", "response": {"status": "completed"}});
    for event in [&text, &end] {
        let name = event["type"].as_str().unwrap();
        assert!(writer.write(format!("event: {name}\ndata: {event}\n\n")));
    }
    let native = |data: &Value| json!({"event": "native", "name": data["type"], "data": data});
    let complete =
        json!({"event": "complete", "finish_reason": "stop", "raw_finish_reason": "completed"});
    assert_eq!(chat.events(&task_id).await, [native(&text), native(&end), complete]);
}

/// One answer is whole although a stream was asked for, one is an event stream that does not say so, and one is no API's.
#[tokio::test]
async fn auto_reads_what_comes() {
    let whole = json!({"object": "chat.completion", "choices": [
        {"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}
    ]});
    let answers = [
        ("application/json", whole.to_string()),
        ("text/plain", delta("Hi") + &finish("stop")),
        (SSE, "data: Hi\n\n".to_owned()),
        (SSE, "data: {\"error\":{\"message\":\"No\"}}\n\n".to_owned()),
    ];
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let upstream = Upstream::start(move |_| {
        let (content_type, body) = answers.lock().unwrap().next().expect("an answer");
        let headers = vec![("content-type", content_type.to_owned())];
        Reply::Answer { status: 200, headers, body: body.into() }
    });
    let mut chat = Chat::start(upstream.await, "dialect = \"auto\"", Arc::default()).await;
    let stop = json!({"event": "complete", "finish_reason": "stop"});
    let failed = json!({"event": "error", "error": "No", "code": "task_failed"});
    for end in [
        vec![chunk("Hi"), stop.clone()],
        vec![chunk("Hi"), stop],
        vec![chunk("Hi"), json!({"event": "complete"})],
        vec![failed],
    ] {
        let task_id = chat.queue().await;
        assert_eq!(chat.events(&task_id).await, end);
    }
    for (dialect, count) in [("openai-chat", 3.0), ("events", 1.0)] {
        let labels = [("upstream", "worker"), ("dialect", dialect)];
        chat.gateway
            .wait_for_metric("tidegate_upstream_dialect_replies_total", &labels, count)
            .await;
    }
    let found = chat.gateway.wait_for_event("upstream_dialect_found").await;
    assert_eq!(found["dialect"], "openai-chat");
    assert_eq!(chat.upstream.requests().len(), 4);
}

/// Events of the upstream's own: names are kept, failures end the reply, the last event may lack its blank line.
#[tokio::test]
async fn own_events_keep_their_names() {
    let mut chat = Chat::streaming("", SSE).await;
    for (body, expected) in [
        (
            "event: token\ndata: [1]\n\nevent: token\ndata: text\n\nevent: token\ndata: {\"event\":null,\"n\":1}\n\nevent: finished\n\ndata: last",
            vec![
                json!({"event": "token", "data": [1]}),
                json!({"event": "token", "data": "text"}),
                json!({"event": "token", "n": 1}),
                json!({"event": "finished"}),
                chunk("last"),
                json!({"event": "complete"}),
            ],
        ),
        (
            "data: Hi\n\nevent: error\ndata: it broke\n\ndata: more\n\n",
            vec![
                chunk("Hi"),
                json!({"event": "error", "error": "it broke", "code": "task_failed"}),
            ],
        ),
        (
            "event: error\ndata: {\"event\":null,\"message\":\"no\"}\n\n",
            vec![json!({"event": "error", "error": "no", "code": "task_failed", "message": "no"})],
        ),
    ] {
        let (task_id, writer) = chat.ask().await;
        assert!(writer.write(body));
        drop(writer);
        assert_eq!(chat.events(&task_id).await, expected);
    }
}
