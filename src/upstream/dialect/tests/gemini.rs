use super::*;

const HI: &str = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"hm","thought":true},{"text":"Hi"}]},"index":0}],"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9},"modelVersion":"m","responseId":"r"}"#;
const END: &str = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"!"}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":9,"toolUsePromptTokenCount":1,"cachedContentTokenCount":4,"candidatesTokenCount":2,"thoughtsTokenCount":5,"totalTokenCount":17}}"#;
const EVENTS: [&str; 5] = [
    r#"{"event":"reasoning","reasoning":"hm"}"#,
    r#"{"event":"chunk","chunk":"Hi"}"#,
    r#"{"event":"chunk","chunk":"!"}"#,
    r#"{"event":"usage","input_tokens":10,"output_tokens":7,"total_tokens":17,"cached_input_tokens":4,"reasoning_tokens":5}"#,
    r#"{"event":"complete","finish_reason":"stop","raw_finish_reason":"STOP"}"#,
];

#[track_caller]
fn check_gemini(data: &[&str], events: &[&str], end: Option<Outcome>) {
    check(Dialect::Gemini, data, events, end);
}

#[test]
fn a_text() {
    check_gemini(&[HI, END], &EVENTS, Some(Outcome::Completed));
    check_gemini(&[HI], &EVENTS[..2], None);
    // Without `alt=sse` it is an array over many lines.
    let array = format!("[{HI}\n,\r\n{END}]\n");
    check_json(Dialect::Gemini, &array, &EVENTS, Some(Outcome::Completed));
    check_json(Dialect::Gemini, &format!("[{HI}\n,\r\n"), &EVENTS[..2], None);
}

#[test]
fn tool_calls_come_whole() {
    let call = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"x":"ü\n"}},"thoughtSignature":"s"},{"functionCall":{"id":"g1","name":"g"}}]},"finishReason":"STOP"}]}"#;
    check_gemini(
        &[call],
        &[
            r#"{"event":"tool_call","state":"start","id":"call_1","name":"f"}"#,
            r#"{"event":"tool_call","state":"end","id":"call_1","name":"f","arguments":"{\"x\":\"ü\\n\"}"}"#,
            r#"{"event":"tool_call","state":"start","id":"g1","name":"g"}"#,
            r#"{"event":"tool_call","state":"end","id":"g1","name":"g","arguments":"{}"}"#,
            r#"{"event":"complete","finish_reason":"tool_calls","raw_finish_reason":"STOP"}"#,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn refusals() {
    let blocked = r#"{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9}}"#;
    let usage = r#"{"event":"usage","input_tokens":9,"total_tokens":9}"#;
    check_gemini(
        &[blocked],
        &[
            usage,
            r#"{"event":"complete","finish_reason":"refusal","raw_finish_reason":"PROHIBITED_CONTENT"}"#,
        ],
        Some(Outcome::Completed),
    );
    // In the middle of an answer.
    check_gemini(
        &[HI, blocked],
        &[
            EVENTS[0],
            EVENTS[1],
            usage,
            r#"{"event":"complete","finish_reason":"refusal","raw_finish_reason":"PROHIBITED_CONTENT"}"#,
        ],
        Some(Outcome::Completed),
    );
    let safety = r#"{"candidates":[{"finishReason":"SAFETY"}]}"#;
    check_gemini(
        &[HI, safety],
        &[
            EVENTS[0],
            EVENTS[1],
            usage,
            r#"{"event":"complete","finish_reason":"refusal","raw_finish_reason":"SAFETY"}"#,
        ],
        Some(Outcome::Completed),
    );
}

/// It is JSON on lines of its own, without `data:`.
#[test]
fn an_error_stands_bare_in_the_stream() {
    let failed =
        r#"{"event":"error","error":"Busy","code":"task_failed","upstream_code":"UNAVAILABLE"}"#;
    let usage = r#"{"event":"usage","input_tokens":9,"total_tokens":9}"#;
    for error in [
        "{\"error\":{\"code\":503,\"message\":\"Busy\",\"status\":\"UNAVAILABLE\"}}",
        "{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"Busy\",\n    \"status\": \"UNAVAILABLE\"\n  }\n}\n",
        "[{\r\n  \"error\": {\r\n    \"code\": 503,\r\n    \"message\": \"Busy\",\r\n    \"status\": \"UNAVAILABLE\"\r\n  }\r\n}\r\n]\r\n\r\n",
        "data: {\"error\":{\"code\":503,\"message\":\"Busy\",\"status\":\"UNAVAILABLE\"}}\n\n",
    ] {
        let body = format!("data: {HI}\r\n\r\n{error}");
        let read = read(Format::sse, Dialect::Gemini, Publish::Events, &body);
        let events = [EVENTS[0], EVENTS[1], usage, failed].map(str::to_owned).to_vec();
        assert_eq!(read, Read { events, end: Some(Outcome::Failed) }, "{error}");
    }
}

/// Arguments that come in parts, each for a path in them, are for pages that know Gemini.
#[test]
fn parts_of_arguments_pass_as_they_are() {
    let part = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"partialArgs":[{"jsonPath":"$.x","stringValue":"a"}],"willContinue":true}}]},"index":0}]}"#;
    let native = format!(r#"{{"event":"native","data":{part}}}"#);
    check_gemini(&[part], &[&native], None);
}

/// Some models give a reason with each part, of which the last one counts.
#[test]
fn text_after_a_reason_is_read() {
    let part = |text: &str, reason: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}]}},"finishReason":"{reason}"}}]}}"#
        )
    };
    check_gemini(
        &[&part("Hi", "STOP"), &part(" there", "STOP"), &part("!", "MAX_TOKENS")],
        &[
            r#"{"event":"chunk","chunk":"Hi"}"#,
            r#"{"event":"chunk","chunk":" there"}"#,
            r#"{"event":"chunk","chunk":"!"}"#,
            r#"{"event":"complete","finish_reason":"length","raw_finish_reason":"MAX_TOKENS"}"#,
        ],
        Some(Outcome::Completed),
    );
}
