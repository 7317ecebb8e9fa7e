use super::*;

const HI_EVENT: &str = r#"{"event":"chunk","chunk":"Hi"}"#;
const STOP: &str = r#"{"event":"complete","finish_reason":"stop"}"#;
const CALL_START: &str = r#"{"event":"tool_call","state":"start","id":"c1","name":"weather"}"#;
const CALL_END: &str = r#"{"event":"tool_call","state":"end","id":"c1","name":"weather","arguments":"{\"city\":\"Rome\"}"}"#;
const RESULT: &str =
    r#"{"event":"tool_result","id":"c1","name":"weather","result":"clear in Rome"}"#;

/// An event stream with names.
fn named(events: &[(&str, &str)]) -> String {
    let event = |(name, data): &(&str, &str)| format!("event: {name}\r\ndata: {data}\r\n\r\n");
    ": heartbeat\r\n\r\n".to_owned() + &events.iter().map(event).collect::<String>()
}

#[track_caller]
fn check_run(body: &str, events: &[&str], end: Option<Outcome>) {
    let expected = Read { events: events.iter().map(|it| it.to_string()).collect(), end };
    assert_eq!(read(Format::sse, Dialect::Langgraph, Publish::Events, body), expected);
}

fn chunk(id: &str, fields: &str) -> String {
    format!(
        r#"[{{"type":"AIMessageChunk","id":"{id}",{fields}}},{{"langgraph_node":"agent","run_id":"r"}}]"#
    )
}

const METADATA: (&str, &str) = ("metadata", r#"{"run_id":"r","attempt":1}"#);

#[test]
fn texts_of_messages_and_of_subgraphs() {
    let hi = chunk("m1", r#""content":"Hi","tool_call_chunks":[],"tool_calls":[]"#);
    let blocks = chunk(
        "m2",
        r#""content":[{"type":"reasoning","reasoning":"hm"},{"type":"text","text":" there"},{"type":"image"}]"#,
    );
    let js = r#"[{"type":"ai","id":"m3","content":"!","response_metadata":{"finish_reason":"length"}},{}]"#;
    let asked = r#"[{"type":"human","id":"m0","content":"hello"},{}]"#;
    check_run(
        &named(&[
            METADATA,
            ("messages", asked),
            ("messages", &hi),
            ("messages|agent:1|tool:2", &blocks),
            ("messages", js),
        ]),
        &[
            HI_EVENT,
            r#"{"event":"reasoning","reasoning":"hm"}"#,
            r#"{"event":"chunk","chunk":" there"}"#,
            r#"{"event":"chunk","chunk":"!"}"#,
            r#"{"event":"complete","finish_reason":"length"}"#,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn usage_is_that_of_all_messages() {
    let with_usage = |id, input| {
        chunk(
            id,
            &format!(
                r#""content":"","usage_metadata":{{"input_tokens":{input},"output_tokens":2,"total_tokens":{}}}"#,
                input + 2
            ),
        )
    };
    check_run(
        &named(&[
            METADATA,
            ("messages", &with_usage("m1", 9)),
            ("messages", &with_usage("m2", 20)),
            ("end", "null"),
        ]),
        &[r#"{"event":"usage","input_tokens":29,"output_tokens":4,"total_tokens":33}"#, STOP],
        Some(Outcome::Completed),
    );
}

#[test]
fn a_tool_call_in_parts() {
    let piece = |fields| {
        chunk("m1", &format!(r#""content":"","tool_call_chunks":[{{"index":0,{fields}}}]"#))
    };
    let [start, first, second] = [
        piece(r#""id":"c1","name":"weather","args":"""#),
        piece(r#""id":null,"name":null,"args":"{\"city\":""#),
        piece(r#""id":null,"name":null,"args":"\"Rome\"}""#),
    ];
    let tool = r#"[{"type":"tool","id":"m2","content":"clear in Rome","name":"weather","tool_call_id":"c1","status":"success"},{}]"#;
    let hi = chunk("m3", r#""content":"Hi""#);
    check_run(
        &named(&[
            METADATA,
            ("messages", &start),
            ("messages", &first),
            ("messages", &second),
            ("messages", tool),
            ("messages", &hi),
        ]),
        &[
            CALL_START,
            r#"{"event":"tool_call","state":"arguments","id":"c1","name":"weather","delta":"{\"city\":"}"#,
            r#"{"event":"tool_call","state":"arguments","id":"c1","name":"weather","delta":"\"Rome\"}"}"#,
            CALL_END,
            RESULT,
            HI_EVENT,
            STOP,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn messages_that_are_whole_each_time() {
    let part = |content: &str, args: &str| {
        format!(
            r#"[{{"type":"ai","id":"m1","content":"{content}","tool_calls":[{{"name":"weather","args":{args},"id":"c1","type":"tool_call"}}]}}]"#
        )
    };
    let [first, second, last] =
        [part("H", "{}"), part("Hi", "{}"), part("Hi", r#"{"city":"Rome"}"#)];
    check_run(
        &named(&[
            METADATA,
            // What was there before the run.
            (
                "messages/complete",
                r#"[{"type":"human","id":"u0","content":"hello"},{"type":"ai","id":"m0","content":"an older answer"},{"type":"human","id":"u1","content":"weather?"}]"#,
            ),
            ("messages/metadata", r#"{"m1":{"metadata":{}}}"#),
            ("messages/partial", &first),
            ("messages/partial", &second),
            ("messages/partial", &last),
            ("messages/complete", &last),
            (
                "messages/complete",
                r#"[{"type":"tool","id":"m2","content":"clear in Rome","name":"weather","tool_call_id":"c1"}]"#,
            ),
        ]),
        &[
            r#"{"event":"chunk","chunk":"H"}"#,
            CALL_START,
            r#"{"event":"chunk","chunk":"i"}"#,
            CALL_END,
            RESULT,
            STOP,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn failures_and_interrupts() {
    let hi = chunk("m1", r#""content":"Hi""#);
    check_run(
        &named(&[
            METADATA,
            ("messages", &hi),
            ("error", r#"{"error":"ValueError","message":"overloaded"}"#),
        ]),
        &[
            HI_EVENT,
            r#"{"event":"error","error":"overloaded","code":"task_failed","upstream_code":"ValueError"}"#,
        ],
        Some(Outcome::Failed),
    );
    let update = r#"{"__interrupt__":[{"value":"May I?","id":"i"}]}"#;
    check_run(
        &named(&[METADATA, ("updates", update)]),
        &[
            r#"{"event":"native","name":"updates","data":{"__interrupt__":[{"value":"May I?","id":"i"}]}}"#,
            r#"{"event":"complete","finish_reason":"pause","raw_finish_reason":"interrupt"}"#,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn a_body_without_a_run_proves_nothing() {
    check_run(": heartbeat\n\n", &[], None);
    check_run("", &[], None);
}

#[test]
fn langserve() {
    let run = ("metadata", r#"{"run_id": "r"}"#);
    // The end has no data.
    check_run(
        &(named(&[run, ("data", "\"H\""), ("data", "\"i\"")]) + "event: end\r\n\r\n"),
        &[r#"{"event":"chunk","chunk":"H"}"#, r#"{"event":"chunk","chunk":"i"}"#, STOP],
        Some(Outcome::Completed),
    );
    let native = read(
        Format::sse,
        Dialect::Langgraph,
        Publish::Native,
        &(named(&[run, ("data", "\"H\"")]) + "event: end\r\n\r\n"),
    );
    let objects = [
        r#"{"event":"native","name":"metadata","data":{"run_id": "r"}}"#,
        r#"{"event":"native","name":"data","data":"H"}"#,
        r#"{"event":"native","name":"end","data":null}"#,
        STOP,
    ];
    let events = objects.map(str::to_owned).to_vec();
    assert_eq!(native, Read { events, end: Some(Outcome::Completed) });
    // Its end is always written.
    check_run(&named(&[run, ("data", "\"Hi\"")]), &[HI_EVENT], None);
    let message = r#"{"content": "Hi", "type": "AIMessageChunk", "id": "m1", "example": false}"#;
    check_run(
        &named(&[
            run,
            ("data", message),
            ("data", r#"{"answer": 42}"#),
            ("error", r#"{"status_code": 500, "message": "Internal Server Error"}"#),
        ]),
        &[
            HI_EVENT,
            r#"{"event":"native","name":"data","data":{"answer": 42}}"#,
            r#"{"event":"error","error":"Internal Server Error","code":"task_failed","upstream_code":"500"}"#,
        ],
        Some(Outcome::Failed),
    );
}

/// A server ends the body when a run is stopped from elsewhere, without a word.
#[test]
fn a_run_that_is_stopped_inside_a_message_is_not_whole() {
    let open = chunk("m1", r#""content":"Hi","chunk_position":null"#);
    let last = chunk("m1", r#""content":"","chunk_position":"last""#);
    let values = ("values", r#"{"a":1}"#);
    let native = r#"{"event":"native","name":"values","data":{"a":1}}"#;
    check_run(&named(&[METADATA, ("messages", &open)]), &[HI_EVENT], None);
    check_run(
        &named(&[METADATA, ("messages", &open), ("messages", &last)]),
        &[HI_EVENT, STOP],
        Some(Outcome::Completed),
    );
    // A node may stop to read its model, and the graph goes on.
    check_run(
        &named(&[METADATA, ("messages", &open), values]),
        &[HI_EVENT, native, STOP],
        Some(Outcome::Completed),
    );
    let partial = open.replace(",{\"langgraph_node\":\"agent\",\"run_id\":\"r\"}", "");
    let known = ("messages/metadata", r#"{"m1":{}}"#);
    check_run(&named(&[METADATA, known, ("messages/partial", &partial)]), &[HI_EVENT], None);
    check_run(
        &named(&[METADATA, known, ("messages/partial", &partial), ("messages/complete", &partial)]),
        &[HI_EVENT, STOP],
        Some(Outcome::Completed),
    );
}

#[test]
fn a_failure_of_a_subgraph_is_one() {
    check_run(
        &named(&[METADATA, ("error|agent:1", r#"{"error":"ValueError","message":"no"}"#)]),
        &[r#"{"event":"error","error":"no","code":"task_failed","upstream_code":"ValueError"}"#],
        Some(Outcome::Failed),
    );
}

#[test]
fn whole_answers() {
    let state = r#"{"messages":[{"type":"human","id":"h0","content":"a"},{"type":"ai","id":"a0","content":"old"},{"type":"human","id":"h1","content":"b"},{"type":"ai","id":"a1","content":"","tool_calls":[{"id":"c1","name":"weather","args":{"city":"Rome"}}]},{"type":"tool","id":"t","tool_call_id":"c1","name":"weather","content":"clear in Rome"},{"type":"ai","id":"a2","content":"Hi"}]}"#;
    let check =
        |body: &str, events: &[&str], end| check_json(Dialect::Langgraph, body, events, end);
    check(state, &[CALL_START, CALL_END, RESULT, HI_EVENT, STOP], Some(Outcome::Completed));
    check(
        r#"{"__error__":{"error":"RuntimeError","message":"no"}}"#,
        &[r#"{"event":"error","error":"no","code":"task_failed","upstream_code":"RuntimeError"}"#],
        Some(Outcome::Failed),
    );
    let waiting = r#"{"__interrupt__":[{"value":"ok?"}]}"#;
    check(
        waiting,
        &[
            &format!(r#"{{"event":"native","data":{waiting}}}"#),
            r#"{"event":"complete","finish_reason":"pause","raw_finish_reason":"interrupt"}"#,
        ],
        Some(Outcome::Completed),
    );
    check(
        r#"{"output":"Hi","metadata":{"run_id":"r"}}"#,
        &[HI_EVENT, STOP],
        Some(Outcome::Completed),
    );
    check(
        r#"{"output":{"type":"ai","id":"m","content":"Hi"},"metadata":{"run_id":"r"}}"#,
        &[HI_EVENT, STOP],
        Some(Outcome::Completed),
    );
    // Anything else is no answer.
    check(r#"{"a":1}"#, &[r#"{"event":"native","data":{"a":1}}"#], None);
}
