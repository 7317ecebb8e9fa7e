use super::*;

fn chunk(delta: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion.chunk","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}],"usage":null}}"#
    )
}

const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":1}}}"#;
const USAGE_EVENT: &str = r#"{"event":"usage","input_tokens":9,"output_tokens":2,"total_tokens":11,"cached_input_tokens":4,"reasoning_tokens":1}"#;
const STOP: &str = r#"{"event":"complete","finish_reason":"stop"}"#;

#[track_caller]
fn check_chat(data: &[&str], events: &[&str], end: Option<Outcome>) {
    check(Dialect::OpenaiChat, data, events, end);
}

#[test]
fn a_text_with_its_usage() {
    let [role, empty, hi, end] = [
        chunk(r#"{"role":"assistant","content":""}"#, "null"),
        chunk(r#"{"content":""}"#, "null"),
        chunk(r#"{"content":"Grüße \"\ud83d\ude00\"\n"}"#, "\"\""),
        chunk("{}", "\"stop\""),
    ];
    check_chat(
        &[&role, &empty, &hi, &end, USAGE, "[DONE]", "[DONE]", &hi],
        &[r#"{"event":"chunk","chunk":"Grüße \"\ud83d\ude00\"\n"}"#, USAGE_EVENT, STOP],
        Some(Outcome::Completed),
    );
    check_chat(
        &[&hi, &end],
        &[r#"{"event":"chunk","chunk":"Grüße \"\ud83d\ude00\"\n"}"#, STOP],
        Some(Outcome::Completed),
    );
}

#[test]
fn done_is_no_proof_of_an_end() {
    let hi = chunk(r#"{"content":"Hi"}"#, "null");
    let text = [r#"{"event":"chunk","chunk":"Hi"}"#];
    check_chat(&[&hi, "[DONE]"], &text, None);
    check_chat(&[&hi], &text, None);
    check_chat(&["[DONE]"], &[], None);
}

#[test]
fn halves_of_characters_are_joined() {
    let [first, second, end] = [
        chunk(r#"{"content":"a\ud83d"}"#, "null"),
        chunk(r#"{"content":"\ude00b"}"#, "null"),
        chunk("{}", "\"stop\""),
    ];
    check_chat(
        &[&first, &second, &end],
        &[r#"{"event":"chunk","chunk":"a"}"#, r#"{"event":"chunk","chunk":"\ud83d\ude00b"}"#, STOP],
        Some(Outcome::Completed),
    );
    check_chat(
        &[&first, &end],
        &[r#"{"event":"chunk","chunk":"a"}"#, r#"{"event":"chunk","chunk":"\ufffd"}"#, STOP],
        Some(Outcome::Completed),
    );
}

#[test]
fn tool_calls_end_at_the_finish() {
    let chunks = [
        chunk(
            r#"{"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"f","arguments":""}}]}"#,
            "null",
        ),
        chunk(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\":\"\ud83d"}}]}"#, "null"),
        chunk(r#"{"tool_calls":[{"index":0,"function":{"arguments":"\ude00\"}"}}]}"#, "null"),
        chunk(
            r#"{"tool_calls":[{"index":1,"id":"call_b","type":"function","function":{"name":"g"}}]}"#,
            "null",
        ),
        chunk("{}", "\"tool_calls\""),
    ];
    let chunks: Vec<&str> = chunks.iter().map(|it| &**it).collect();
    check_chat(
        &chunks,
        &[
            r#"{"event":"tool_call","state":"start","id":"call_a","name":"f"}"#,
            r#"{"event":"tool_call","state":"arguments","id":"call_a","name":"f","delta":"{\"x\":\""}"#,
            r#"{"event":"tool_call","state":"arguments","id":"call_a","name":"f","delta":"\ud83d\ude00\"}"}"#,
            r#"{"event":"tool_call","state":"start","id":"call_b","name":"g"}"#,
            r#"{"event":"tool_call","state":"end","id":"call_a","name":"f","arguments":"{\"x\":\"\ud83d\ude00\"}"}"#,
            r#"{"event":"tool_call","state":"end","id":"call_b","name":"g","arguments":"{}"}"#,
            r#"{"event":"complete","finish_reason":"tool_calls"}"#,
        ],
        Some(Outcome::Completed),
    );
}

/// Some servers number every call 0, and repeat the id in each piece.
#[test]
fn a_new_id_is_a_new_call() {
    let piece = |id: &str, arguments: &str| {
        chunk(
            &format!(
                r#"{{"tool_calls":[{{"index":0,"id":"{id}","function":{{"name":"f","arguments":"{arguments}"}}}}]}}"#
            ),
            "null",
        )
    };
    let [a, more, b, end] =
        [piece("a", "{"), piece("a", "}"), piece("b", "{}"), chunk("{}", "\"stop\"")];
    let call = |rest: &str| format!(r#"{{"event":"tool_call",{rest}}}"#);
    let events = [
        call(r#""state":"start","id":"a","name":"f""#),
        call(r#""state":"arguments","id":"a","name":"f","delta":"{""#),
        call(r#""state":"arguments","id":"a","name":"f","delta":"}""#),
        call(r#""state":"end","id":"a","name":"f","arguments":"{}""#),
        call(r#""state":"start","id":"b","name":"f""#),
        call(r#""state":"arguments","id":"b","name":"f","delta":"{}""#),
        call(r#""state":"end","id":"b","name":"f","arguments":"{}""#),
        r#"{"event":"complete","finish_reason":"tool_calls","raw_finish_reason":"stop"}"#
            .to_owned(),
    ];
    let events: Vec<&str> = events.iter().map(|it| &**it).collect();
    check_chat(&[&a, &more, &b, &end], &events, Some(Outcome::Completed));
}

#[test]
fn a_refusal_completes() {
    let [refusal, end, filtered] = [
        chunk(r#"{"content":null,"refusal":"I can't"}"#, "null"),
        chunk("{}", "\"stop\""),
        chunk("{}", "\"content_filter\""),
    ];
    check_chat(
        &[&refusal, &end, "[DONE]"],
        &[
            r#"{"event":"chunk","chunk":"I can't","refusal":true}"#,
            r#"{"event":"complete","finish_reason":"refusal","raw_finish_reason":"stop"}"#,
        ],
        Some(Outcome::Completed),
    );
    check_chat(
        &[&filtered],
        &[r#"{"event":"complete","finish_reason":"refusal","raw_finish_reason":"content_filter"}"#],
        Some(Outcome::Completed),
    );
}

#[test]
fn errors_fail_and_nothing_follows() {
    let hi = chunk(r#"{"content":"Hi"}"#, "null");
    let end = chunk("{}", "\"stop\"");
    let failed = |error: &str| [r#"{"event":"chunk","chunk":"Hi"}"#.to_owned(), error.to_owned()];
    for (data, error) in [
        (
            r#"{"error":{"message":"Slow \"down\"","type":"requests","code":"rate_limit_exceeded","param":null}}"#,
            r#"{"event":"error","error":"Slow \"down\"","code":"task_failed","upstream_code":"rate_limit_exceeded"}"#,
        ),
        (
            r#"{"error":{"message":"boom","type":"InternalServerError","param":null,"code":500}}"#,
            r#"{"event":"error","error":"boom","code":"task_failed","upstream_code":"InternalServerError"}"#,
        ),
        (
            r#"{"error":{"message":"boom","code":502}}"#,
            r#"{"event":"error","error":"boom","code":"task_failed","upstream_code":"502"}"#,
        ),
        (r#"{"error":"boom"}"#, r#"{"event":"error","error":"boom","code":"task_failed"}"#),
        (
            r#"{"error":{}}"#,
            r#"{"event":"error","error":"the service failed while it replied","code":"task_failed"}"#,
        ),
    ] {
        let events = failed(error);
        let events: Vec<&str> = events.iter().map(|it| &**it).collect();
        check_chat(&[&hi, data, "[DONE]", &hi, &end], &events, Some(Outcome::Failed));
    }
    // After the finish it is an error all the same.
    let events = failed(r#"{"event":"error","error":"late","code":"task_failed"}"#);
    let events: Vec<&str> = events.iter().map(|it| &**it).collect();
    check_chat(&[&hi, &end, r#"{"error":"late"}"#], &events, Some(Outcome::Failed));
}

#[test]
fn a_named_error_may_have_any_data() {
    for (data, error) in [
        ("it broke", r#""it broke","code":"task_failed""#),
        ("\"it broke\"", r#""it broke","code":"task_failed""#),
        ("null", r#""the service failed while it replied","code":"task_failed""#),
        (
            r#"{"message":"no","code":"quota"}"#,
            r#""no","code":"task_failed","upstream_code":"quota""#,
        ),
    ] {
        let body = format!("event: error\ndata: {data}\n\ndata: [DONE]\n\n");
        let expected = Read {
            events: vec![format!(r#"{{"event":"error","error":{error}}}"#)],
            end: Some(Outcome::Failed),
        };
        assert_eq!(read(Format::sse, Dialect::OpenaiChat, Publish::Events, &body), expected);
    }
}

#[test]
fn several_choices_end_together() {
    let choice = |index: u64, delta: &str, finish: &str| {
        format!(r#"{{"choices":[{{"index":{index},"delta":{delta},"finish_reason":{finish}}}]}}"#)
    };
    let [a, end_a, b, end_b, late] = [
        choice(0, r#"{"content":"A"}"#, "null"),
        choice(0, "{}", "\"stop\""),
        choice(1, r#"{"content":"B"}"#, "null"),
        choice(1, "{}", "\"length\""),
        choice(0, r#"{"content":"late"}"#, "null"),
    ];
    let both = [r#"{"event":"chunk","chunk":"A"}"#, r#"{"event":"chunk","chunk":"B","choice":1}"#];
    // One after the other, or together.
    for data in [[&a, &end_a, &b, &end_b], [&a, &b, &end_b, &end_a]] {
        let data: Vec<&str> = data.into_iter().map(|it| &**it).collect();
        check_chat(&data, &[both[0], both[1], STOP], Some(Outcome::Completed));
        check_chat(&data[..3], &both[..], None);
    }
    check_chat(&[&a, &end_a, &late], &[both[0], STOP], Some(Outcome::Completed));
}

#[test]
fn what_compatible_servers_write_differently() {
    let text = r#"{"event":"chunk","chunk":"Hi"}"#;
    let thought = r#"{"event":"reasoning","reasoning":"hm"}"#;
    let azure = r#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#;
    let filter =
        r#"{"choices":[{"index":0,"content_filter_results":{"hate":{"filtered":false}}}]}"#;
    let [deepseek, router] = [
        chunk(r#"{"reasoning_content":"hm"}"#, "null"),
        chunk(r#"{"reasoning":"hm","reasoning_content":"hm","reasoning_details":[{}]}"#, "null"),
    ];
    let mistral = chunk(
        r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"Hi"}]}"#,
        "null",
    );
    let hi = chunk(r#"{"content":"Hi"}"#, "null");
    let end = chunk("{}", "\"stop\"");
    check_chat(
        &[azure, &deepseek, &hi, filter, &end],
        &[thought, text, STOP],
        Some(Outcome::Completed),
    );
    check_chat(&[&router, &hi, &end], &[thought, text, STOP], Some(Outcome::Completed));
    check_chat(&[&mistral, &end], &[thought, text, STOP], Some(Outcome::Completed));
    // Usage in every chunk, where the last one counts; and numbers that JSON does not have.
    let counted = |tokens: u64| {
        format!(
            r#"{{"choices":[{{"index":0,"delta":{{"content":"x"}},"logprobs":[-Infinity,NaN],"finish_reason":null}}],"usage":{{"prompt_tokens":3,"completion_tokens":{tokens}.0}}}}"#
        )
    };
    check_chat(
        &[&counted(1), &counted(2), &end],
        &[
            r#"{"event":"chunk","chunk":"x"}"#,
            r#"{"event":"chunk","chunk":"x"}"#,
            r#"{"event":"usage","input_tokens":3,"output_tokens":2,"total_tokens":5}"#,
            STOP,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn unknown_objects_pass_as_they_are() {
    let end = chunk("{}", "\"stop\"");
    for unknown in [r#"{"kind":"sources","list":[1,2]}"#, "[1]", "7", "\"a\"", r#"{"choices":7}"#] {
        let native = format!(r#"{{"event":"native","data":{unknown}}}"#);
        check_chat(&[unknown, &end], &[&native, STOP], Some(Outcome::Completed));
    }
}

#[test]
fn a_whole_answer_is_one_chunk() {
    let answer = r#"{
        "id": "c", "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi [there] {you}",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}}]},
            "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    }"#;
    check_json(
        Dialect::OpenaiChat,
        answer,
        &[
            r#"{"event":"chunk","chunk":"Hi [there] {you}"}"#,
            r#"{"event":"tool_call","state":"start","id":"a","name":"f"}"#,
            r#"{"event":"tool_call","state":"arguments","id":"a","name":"f","delta":"{\"x\":1}"}"#,
            r#"{"event":"tool_call","state":"end","id":"a","name":"f","arguments":"{\"x\":1}"}"#,
            r#"{"event":"usage","input_tokens":9,"output_tokens":2,"total_tokens":11}"#,
            r#"{"event":"complete","finish_reason":"tool_calls"}"#,
        ],
        Some(Outcome::Completed),
    );
}

/// OpenRouter, and Mistral.
#[test]
fn a_choice_may_end_with_an_error() {
    check_chat(
        &[&chunk(r#"{"content":"Hi"}"#, r#""error""#)],
        &[
            r#"{"event":"chunk","chunk":"Hi"}"#,
            r#"{"event":"error","error":"the service failed while it replied","code":"task_failed","upstream_code":"error"}"#,
        ],
        Some(Outcome::Failed),
    );
    check_chat(
        &[
            r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error","error":{"code":502,"message":"Busy"}}]}"#,
        ],
        &[r#"{"event":"error","error":"Busy","code":"task_failed","upstream_code":"502"}"#],
        Some(Outcome::Failed),
    );
}

/// Servers in between, and those with other forms of their own, report errors in these ways.
#[test]
fn objects_that_say_that_they_are_errors_fail() {
    for (error, code) in [
        (
            r#"{"object":"error","message":"Busy","type":"ServerError","param":null,"code":503}"#,
            "ServerError",
        ),
        (r#"{"type":"error","message":"Busy","code":"503"}"#, "503"),
    ] {
        check_chat(
            &[error],
            &[&format!(
                r#"{{"event":"error","error":"Busy","code":"task_failed","upstream_code":"{code}"}}"#
            )],
            Some(Outcome::Failed),
        );
    }
    for other in
        [r#"{"error":null,"status":"ok"}"#, r#"{"error":false}"#, r#"{"type":"x","error":1}"#]
    {
        let native = format!(r#"{{"event":"native","data":{other}}}"#);
        check(Dialect::AgUi, &[other], &[&native], None);
    }
}
