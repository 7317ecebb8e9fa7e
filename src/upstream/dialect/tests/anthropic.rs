use super::*;

/// Each event under the name that its type is.
fn named(events: &[&str]) -> String {
    let one = |data: &&str| {
        let kind = data.split('"').nth(3).expect("a type");
        format!("event: {kind}\ndata: {data}\n\n")
    };
    events.iter().map(one).collect()
}

#[track_caller]
fn check_anthropic(data: &[&str], events: &[&str], end: Option<Outcome>) {
    let expected = Read { events: events.iter().map(|it| it.to_string()).collect(), end };
    let read = |body: &str| read(Format::sse, Dialect::Anthropic, Publish::Events, body);
    assert_eq!(read(&stream(data)), expected);
    // An unknown event keeps its name.
    if !events.iter().any(|event| event.contains("native")) {
        assert_eq!(read(&named(data)), expected);
    }
}

const START: &str = r#"{"type":"message_start","message":{"id":"msg","type":"message","role":"assistant","content":[],"stop_reason":null,"usage":{"input_tokens":9,"cache_creation_input_tokens":3,"cache_read_input_tokens":4,"output_tokens":1}}}"#;
const PING: &str = r#"{"type":"ping"}"#;
const HI: &str =
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#;
const STOP: &str = r#"{"type":"message_stop"}"#;
const CHUNK: &str = r#"{"event":"chunk","chunk":"Hi"}"#;
const USAGE: &str = r#"{"event":"usage","input_tokens":16,"output_tokens":2,"total_tokens":18,"cached_input_tokens":4,"cache_write_tokens":3}"#;

fn delta(reason: &str) -> String {
    format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}","stop_sequence":null}},"usage":{{"output_tokens":2}}}}"#
    )
}

fn block(index: u64, block: &str) -> String {
    format!(r#"{{"type":"content_block_start","index":{index},"content_block":{block}}}"#)
}

fn block_stop(index: u64) -> String {
    format!(r#"{{"type":"content_block_stop","index":{index}}}"#)
}

fn complete(reason: &str, raw: &str) -> String {
    format!(r#"{{"event":"complete","finish_reason":"{reason}","raw_finish_reason":"{raw}"}}"#)
}

#[test]
fn a_text_after_thoughts() {
    let thinking = block(0, r#"{"type":"thinking","thinking":"","signature":""}"#);
    let thought = r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#;
    let signature = r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"x"}}"#;
    let text = block(1, r#"{"type":"text","text":""}"#);
    let data = [
        START,
        &thinking,
        PING,
        thought,
        signature,
        &block_stop(0),
        &text,
        HI,
        &block_stop(1),
        &delta("end_turn"),
        STOP,
        HI,
    ];
    let reasoning = r#"{"event":"reasoning","reasoning":"hm"}"#;
    check_anthropic(
        &data,
        &[reasoning, CHUNK, USAGE, &complete("stop", "end_turn")],
        Some(Outcome::Completed),
    );
    // Neither the end of a block nor the reason is a proof, nor the stop without a reason.
    check_anthropic(&data[..9], &[reasoning, CHUNK], None);
    check_anthropic(&data[..10], &[reasoning, CHUNK], None);
    check_anthropic(&[START, HI, STOP], &[CHUNK], None);
}

#[test]
fn reasons() {
    for (raw, reason) in [
        ("max_tokens", "length"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "pause"),
        ("model_context_window_exceeded", "length"),
        ("something_new", "other"),
    ] {
        check_anthropic(
            &[START, HI, &delta(raw), STOP],
            &[CHUNK, USAGE, &complete(reason, raw)],
            Some(Outcome::Completed),
        );
    }
    check_anthropic(
        &[HI, r#"{"type":"message_delta","delta":{"stop_reason":"refusal"}}"#, STOP],
        &[CHUNK, r#"{"event":"complete","finish_reason":"refusal"}"#],
        Some(Outcome::Completed),
    );
}

#[test]
fn tool_calls_and_results() {
    let input = |index: u64, json: &str| {
        format!(
            r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"input_json_delta","partial_json":"{json}"}}}}"#
        )
    };
    let data = [
        START.to_owned(),
        block(0, r#"{"type":"tool_use","id":"toolu_1","name":"f","input":{}}"#),
        input(0, ""),
        input(0, "{\\\"x\\\":\\\"\\ud83d"),
        input(0, "\\ude00\\\"}"),
        block_stop(0),
        block(1, r#"{"type":"server_tool_use","id":"srv_1","name":"web_search","input":{}}"#),
        block_stop(1),
        block(
            2,
            r#"{"type":"web_search_tool_result","tool_use_id":"srv_1","content":[{"url":"u"}]}"#,
        ),
        block_stop(2),
        block(
            3,
            r#"{"type":"web_fetch_tool_result","tool_use_id":"srv_2","content":{"type":"web_fetch_tool_result_error","error_code":"no"}}"#,
        ),
        block_stop(3),
        delta("tool_use"),
        STOP.to_owned(),
    ];
    let data: Vec<&str> = data.iter().map(|it| &**it).collect();
    check_anthropic(
        &data,
        &[
            r#"{"event":"tool_call","state":"start","id":"toolu_1","name":"f"}"#,
            r#"{"event":"tool_call","state":"arguments","id":"toolu_1","name":"f","delta":"{\"x\":\""}"#,
            r#"{"event":"tool_call","state":"arguments","id":"toolu_1","name":"f","delta":"\ud83d\ude00\"}"}"#,
            r#"{"event":"tool_call","state":"end","id":"toolu_1","name":"f","arguments":"{\"x\":\"\ud83d\ude00\"}"}"#,
            r#"{"event":"tool_call","state":"start","id":"srv_1","name":"web_search"}"#,
            r#"{"event":"tool_call","state":"end","id":"srv_1","name":"web_search","arguments":"{}"}"#,
            r#"{"event":"tool_result","id":"srv_1","result":[{"url":"u"}]}"#,
            r#"{"event":"tool_result","id":"srv_2","result":{"type":"web_fetch_tool_result_error","error_code":"no"},"is_error":true}"#,
            USAGE,
            &complete("tool_calls", "tool_use"),
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn errors_and_unknown_events() {
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}"#;
    check_anthropic(
        &[HI, error, &delta("end_turn"), STOP],
        &[
            CHUNK,
            r#"{"event":"error","error":"Overloaded","code":"task_failed","upstream_code":"overloaded_error"}"#,
        ],
        Some(Outcome::Failed),
    );
    let unknown = r#"{"type":"message_lights","on":true}"#;
    let citation = r#"{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":{"url":"u"}}}"#;
    check_anthropic(
        &[unknown, citation, HI],
        &[
            &format!(r#"{{"event":"native","data":{unknown}}}"#),
            &format!(r#"{{"event":"native","data":{citation}}}"#),
            CHUNK,
        ],
        None,
    );
}

#[test]
fn a_whole_answer() {
    let answer = r#"{"id":"msg","type":"message","role":"assistant","content":[
        {"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"Hi"},
        {"type":"tool_use","id":"t1","name":"f","input":{"x":1}}],
        "stop_reason":"tool_use","usage":{"input_tokens":9,"output_tokens":2}}"#;
    check_json(
        Dialect::Anthropic,
        answer,
        &[
            r#"{"event":"reasoning","reasoning":"hm"}"#,
            CHUNK,
            r#"{"event":"tool_call","state":"start","id":"t1","name":"f"}"#,
            r#"{"event":"tool_call","state":"arguments","id":"t1","name":"f","delta":"{\"x\":1}"}"#,
            r#"{"event":"tool_call","state":"end","id":"t1","name":"f","arguments":"{\"x\":1}"}"#,
            r#"{"event":"usage","input_tokens":9,"output_tokens":2,"total_tokens":11}"#,
            &complete("tool_calls", "tool_use"),
        ],
        Some(Outcome::Completed),
    );
}
