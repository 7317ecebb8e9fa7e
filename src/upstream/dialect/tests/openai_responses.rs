use super::*;

const CREATED: &str = r#"{"type":"response.created","sequence_number":0,"response":{"id":"r","status":"in_progress","output":[]}}"#;
const COMPLETED: &str = r#"{"type":"response.completed","sequence_number":9,"response":{"id":"r","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]}],"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":1},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":11}}}"#;
const USAGE: &str = r#"{"event":"usage","input_tokens":9,"output_tokens":2,"total_tokens":11,"cached_input_tokens":4,"cache_write_tokens":1,"reasoning_tokens":1}"#;
const STOP: &str = r#"{"event":"complete","finish_reason":"stop","raw_finish_reason":"completed"}"#;
const HI: &str = r#"{"type":"response.output_text.delta","sequence_number":4,"item_id":"m","output_index":0,"content_index":0,"delta":"Hi","obfuscation":"x"}"#;
const CHUNK: &str = r#"{"event":"chunk","chunk":"Hi"}"#;

#[track_caller]
fn check_responses(data: &[&str], events: &[&str], end: Option<Outcome>) {
    check(Dialect::OpenaiResponses, data, events, end);
}

#[test]
fn a_text() {
    let added = r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"message","id":"m","content":[]}}"#;
    let reasoning = r#"{"type":"response.reasoning_summary_text.delta","item_id":"rs","output_index":0,"delta":"hm"}"#;
    let whole = r#"{"type":"response.output_text.done","item_id":"m","text":"Hi"}"#;
    let done = r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","id":"m","content":[{"type":"output_text","text":"Hi"}]}}"#;
    check_responses(
        &[CREATED, reasoning, added, HI, whole, done, COMPLETED, HI],
        &[r#"{"event":"reasoning","reasoning":"hm"}"#, CHUNK, USAGE, STOP],
        Some(Outcome::Completed),
    );
    check_responses(&[CREATED, HI, whole, done], &[CHUNK], None);
    check_responses(&[CREATED, HI, "[DONE]"], &[CHUNK], None);
}

#[test]
fn events_have_names_as_well() {
    let body = format!(
        "event: response.output_text.delta\r\ndata: {HI}\r\n\r\nevent: response.completed\r\ndata: {COMPLETED}\r\n\r\n"
    );
    let read = read(Format::sse, Dialect::OpenaiResponses, Publish::Native, &body);
    let native =
        |name: &str, data: &str| format!(r#"{{"event":"native","name":"{name}","data":{data}}}"#);
    let events = vec![
        native("response.output_text.delta", HI),
        native("response.completed", COMPLETED),
        STOP.to_owned(),
    ];
    assert_eq!(read, Read { events, end: Some(Outcome::Completed) });
}

#[test]
fn tool_calls() {
    let added = r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","id":"fc","call_id":"call_1","name":"f","arguments":""}}"#;
    let [first, second] = ["{\\\"x\\\":\\\"\\ud83d", "\\ude00\\\"}"].map(|delta| {
        format!(r#"{{"type":"response.function_call_arguments.delta","item_id":"fc","output_index":1,"delta":"{delta}"}}"#)
    });
    let done = r#"{"type":"response.function_call_arguments.done","item_id":"fc","output_index":1,"arguments":"{\"x\":\"😀\"}"}"#;
    let item = r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"function_call","id":"fc","call_id":"call_1","name":"f","arguments":"{\"x\":\"😀\"}"}}"#;
    let end = r#"{"type":"response.completed","response":{"status":"completed","output":[]}}"#;
    check_responses(
        &[added, &first, &second, done, item, end],
        &[
            r#"{"event":"tool_call","state":"start","id":"call_1","name":"f"}"#,
            r#"{"event":"tool_call","state":"arguments","id":"call_1","name":"f","delta":"{\"x\":\""}"#,
            r#"{"event":"tool_call","state":"arguments","id":"call_1","name":"f","delta":"\ud83d\ude00\"}"}"#,
            r#"{"event":"tool_call","state":"end","id":"call_1","name":"f","arguments":"{\"x\":\"😀\"}"}"#,
            r#"{"event":"complete","finish_reason":"tool_calls","raw_finish_reason":"completed"}"#,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn tools_of_openai_have_results() {
    let added = r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"ws","type":"web_search_call","status":"in_progress"}}"#;
    let searching =
        r#"{"type":"response.web_search_call.searching","output_index":0,"item_id":"ws"}"#;
    let item =
        r#"{"id":"ws","type":"web_search_call","status":"completed","action":{"query":"q"}}"#;
    let done = format!(r#"{{"type":"response.output_item.done","output_index":0,"item":{item}}}"#);
    check_responses(
        &[added, searching, &done, HI, COMPLETED],
        &[
            r#"{"event":"tool_call","state":"start","id":"ws","name":"web_search"}"#,
            &format!(r#"{{"event":"native","data":{searching}}}"#),
            r#"{"event":"tool_call","state":"end","id":"ws","name":"web_search","arguments":"{}"}"#,
            &format!(r#"{{"event":"tool_result","id":"ws","name":"web_search","result":{item}}}"#),
            CHUNK,
            USAGE,
            STOP,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn other_ends() {
    let incomplete = |reason: &str| {
        format!(
            r#"{{"type":"response.incomplete","response":{{"status":"incomplete","incomplete_details":{{"reason":"{reason}"}}}}}}"#
        )
    };
    check_responses(
        &[HI, &incomplete("max_output_tokens")],
        &[
            CHUNK,
            r#"{"event":"complete","finish_reason":"length","raw_finish_reason":"max_output_tokens"}"#,
        ],
        Some(Outcome::Completed),
    );
    check_responses(
        &[HI, &incomplete("content_filter")],
        &[
            CHUNK,
            r#"{"event":"complete","finish_reason":"refusal","raw_finish_reason":"content_filter"}"#,
        ],
        Some(Outcome::Completed),
    );
    let refusal =
        r#"{"type":"response.refusal.delta","item_id":"m","output_index":0,"delta":"No"}"#;
    let end = r#"{"type":"response.completed","response":{"status":"completed"}}"#;
    check_responses(
        &[refusal, end],
        &[
            r#"{"event":"chunk","chunk":"No","refusal":true}"#,
            r#"{"event":"complete","finish_reason":"refusal","raw_finish_reason":"completed"}"#,
        ],
        Some(Outcome::Completed),
    );
    let error =
        r#"{"event":"error","error":"boom","code":"task_failed","upstream_code":"server_error"}"#;
    for failure in [
        r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"boom"}}}"#,
        r#"{"type":"error","code":"server_error","message":"boom","param":null,"sequence_number":3}"#,
        r#"{"type":"error","error":{"type":"server_error","code":null,"message":"boom"}}"#,
        r#"{"error":{"type":"server_error","message":"boom"}}"#,
    ] {
        check_responses(&[HI, failure, COMPLETED], &[CHUNK, error], Some(Outcome::Failed));
    }
    let cancelled = r#"{"type":"response.cancelled","response":{"status":"cancelled"}}"#;
    check_responses(&[HI, cancelled], &[CHUNK, r#"{"event":"cancelled"}"#], Some(Outcome::Aborted));
}

#[test]
fn a_whole_answer() {
    let answer = r#"{"id":"r","object":"response","status":"completed","error":null,"output":[
        {"type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]},
        {"type":"message","content":[{"type":"output_text","text":"Hi","annotations":[]}]},
        {"type":"function_call","id":"fc","call_id":"c","name":"f","arguments":"{}"}],
        "usage":{"input_tokens":9,"output_tokens":2,"total_tokens":11}}"#;
    check_json(
        Dialect::OpenaiResponses,
        answer,
        &[
            r#"{"event":"reasoning","reasoning":"hm"}"#,
            CHUNK,
            r#"{"event":"tool_call","state":"start","id":"c","name":"f"}"#,
            r#"{"event":"tool_call","state":"end","id":"c","name":"f","arguments":"{}"}"#,
            r#"{"event":"usage","input_tokens":9,"output_tokens":2,"total_tokens":11}"#,
            r#"{"event":"complete","finish_reason":"tool_calls","raw_finish_reason":"completed"}"#,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn tools_that_the_client_runs_have_no_result() {
    let done = |item: &str| {
        format!(r#"{{"type":"response.output_item.done","output_index":0,"item":{item}}}"#)
    };
    let end = r#"{"type":"response.completed","response":{"status":"completed"}}"#;
    for (item, name, arguments) in [
        (
            r#"{"type":"computer_call","id":"i","call_id":"c1","action":{"type":"wait"}}"#,
            "computer",
            r#"{\"type\":\"wait\"}"#,
        ),
        (
            r#"{"type":"local_shell_call","call_id":"c1","action":{"command":["ls"]}}"#,
            "local_shell",
            r#"{\"command\":[\"ls\"]}"#,
        ),
        (
            r#"{"type":"shell_call","call_id":"c1","environment":{"type":"local"},"action":{}}"#,
            "shell",
            "{}",
        ),
        (
            r#"{"type":"apply_patch_call","call_id":"c1","operation":{"path":"a"}}"#,
            "apply_patch",
            r#"{\"path\":\"a\"}"#,
        ),
        (
            r#"{"type":"tool_search_call","call_id":"c1","execution":"client","arguments":{"q":1}}"#,
            "tool_search",
            r#"{\"q\":1}"#,
        ),
    ] {
        let call = |state: &str, more: &str| {
            format!(r#"{{"event":"tool_call","state":"{state}","id":"c1","name":"{name}"{more}}}"#)
        };
        check_responses(
            &[&done(item), end],
            &[
                &call("start", ""),
                &call("end", &format!(r#","arguments":"{arguments}""#)),
                r#"{"event":"complete","finish_reason":"tool_calls","raw_finish_reason":"completed"}"#,
            ],
            Some(Outcome::Completed),
        );
    }
    let output = r#"{"type":"shell_call_output","call_id":"c1","output":[]}"#;
    let request = done(r#"{"type":"mcp_approval_request","id":"a","name":"f"}"#);
    check_responses(
        &[&done(output), &request, &done(r#"{"type":"reasoning","id":"r"}"#), end],
        &[
            &format!(r#"{{"event":"tool_result","id":"c1","name":"shell","result":{output}}}"#),
            &format!(r#"{{"event":"native","data":{request}}}"#),
            r#"{"event":"complete","finish_reason":"stop","raw_finish_reason":"completed"}"#,
        ],
        Some(Outcome::Completed),
    );
}
