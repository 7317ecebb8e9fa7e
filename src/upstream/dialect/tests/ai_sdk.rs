use super::*;

const HI: &str = r#"{"type":"text-delta","id":"t","delta":"Gr\u00fc\u00df"}"#;
const HI_EVENT: &str = r#"{"event":"chunk","chunk":"Gr\u00fc\u00df"}"#;
const STOP: &str = r#"{"event":"complete","finish_reason":"stop"}"#;

#[track_caller]
fn check_ui(data: &[&str], events: &[&str], end: Option<Outcome>) {
    check(Dialect::AiSdk, data, events, end);
}

#[test]
fn a_text_with_reasoning_and_usage() {
    check_ui(
        &[
            r#"{"type":"start","messageId":"a1"}"#,
            r#"{"type":"start-step"}"#,
            r#"{"type":"reasoning-start","id":"r"}"#,
            r#"{"type":"reasoning-delta","id":"r","delta":"hm"}"#,
            r#"{"type":"reasoning-end","id":"r"}"#,
            r#"{"type":"text-start","id":"t"}"#,
            HI,
            r#"{"type":"text-end","id":"t"}"#,
            r#"{"type":"finish-step"}"#,
            r#"{"type":"finish","finishReason":"stop","messageMetadata":{"usage":{"inputTokens":9,"inputTokenDetails":{"cacheReadTokens":4},"outputTokens":2,"outputTokenDetails":{},"totalTokens":11}}}"#,
            "[DONE]",
        ],
        &[
            r#"{"event":"reasoning","reasoning":"hm"}"#,
            HI_EVENT,
            r#"{"event":"usage","input_tokens":9,"output_tokens":2,"total_tokens":11,"cached_input_tokens":4}"#,
            STOP,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn tool_calls_and_their_results() {
    let start = r#"{"type":"tool-input-start","toolCallId":"c1","toolName":"weather"}"#;
    let input = r#"{"type":"tool-input-available","toolCallId":"c1","toolName":"weather","input":{"city":"Rome"}}"#;
    let finish = r#"{"type":"finish","finishReason":"tool-calls"}"#;
    let call_end = r#"{"event":"tool_call","state":"end","id":"c1","name":"weather","arguments":"{\"city\":\"Rome\"}"}"#;
    let call_start = r#"{"event":"tool_call","state":"start","id":"c1","name":"weather"}"#;
    let end =
        r#"{"event":"complete","finish_reason":"tool_calls","raw_finish_reason":"tool-calls"}"#;
    check_ui(
        &[
            start,
            r#"{"type":"tool-input-delta","toolCallId":"c1","inputTextDelta":"{\"city\":"}"#,
            r#"{"type":"tool-input-delta","toolCallId":"c1","inputTextDelta":"\"Rome\"}"}"#,
            input,
            r#"{"type":"tool-output-available","toolCallId":"c1","output":"soon","preliminary":true}"#,
            r#"{"type":"tool-output-available","toolCallId":"c1","output":{"sky":"clear"}}"#,
            finish,
        ],
        &[
            call_start,
            r#"{"event":"tool_call","state":"arguments","id":"c1","name":"weather","delta":"{\"city\":"}"#,
            r#"{"event":"tool_call","state":"arguments","id":"c1","name":"weather","delta":"\"Rome\"}"}"#,
            call_end,
            r#"{"event":"native","data":{"type":"tool-output-available","toolCallId":"c1","output":"soon","preliminary":true}}"#,
            r#"{"event":"tool_result","id":"c1","result":{"sky":"clear"}}"#,
            end,
        ],
        Some(Outcome::Completed),
    );
    check_ui(
        &[
            input,
            r#"{"type":"tool-output-error","toolCallId":"c1","errorText":"no \"sky\""}"#,
            r#"{"type":"tool-output-denied","toolCallId":"c2"}"#,
            finish,
        ],
        &[
            call_start,
            call_end,
            r#"{"event":"tool_result","id":"c1","result":"no \"sky\"","is_error":true}"#,
            r#"{"event":"tool_result","id":"c2","result":"denied","is_error":true}"#,
            end,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn done_is_no_proof_of_an_end() {
    check_ui(&[HI, "[DONE]"], &[HI_EVENT], None);
    check_ui(&[HI], &[HI_EVENT], None);
}

#[test]
fn failures_and_aborts() {
    let failed = r#"{"event":"error","error":"the model is overloaded","code":"task_failed"}"#;
    check_ui(
        &[
            HI,
            r#"{"type":"error","errorText":"the model is overloaded"}"#,
            r#"{"type":"finish-step"}"#,
            r#"{"type":"finish","finishReason":"error"}"#,
            "[DONE]",
        ],
        &[HI_EVENT, failed],
        Some(Outcome::Failed),
    );
    check_ui(
        &[HI, r#"{"type":"finish","finishReason":"interrupted"}"#, "[DONE]"],
        &[
            HI_EVENT,
            r#"{"event":"error","error":"the model's stream broke off","code":"task_failed","upstream_code":"interrupted"}"#,
        ],
        Some(Outcome::Failed),
    );
    check_ui(
        &[HI, r#"{"type":"abort","reason":"the user left"}"#, "[DONE]"],
        &[HI_EVENT, r#"{"event":"cancelled"}"#],
        Some(Outcome::Aborted),
    );
}

#[test]
fn what_only_the_application_knows_is_passed_on() {
    let [data, file, unknown] = [
        r#"{"type":"data-weather","id":"d","data":{"sky":"clear"}}"#,
        r#"{"type":"file","url":"https://example.com/","mediaType":"image/png"}"#,
        r#"{"type":"brand-new"}"#,
    ];
    let native = |data: &str| format!(r#"{{"event":"native","data":{data}}}"#);
    check_ui(
        &[data, file, unknown, "[]", r#"{"type":"finish"}"#],
        &[&native(data), &native(file), &native(unknown), &native("[]"), STOP],
        Some(Outcome::Completed),
    );
    let [start, middle, finish] = [
        r#"{"type":"start","messageMetadata":{"model":"m"}}"#,
        r#"{"type":"message-metadata","messageMetadata":{"n":1}}"#,
        r#"{"type":"finish","finishReason":"stop","messageMetadata":{"time":2}}"#,
    ];
    check_ui(
        &[start, middle, finish],
        &[&native(start), &native(middle), &native(finish), STOP],
        Some(Outcome::Completed),
    );
}

#[track_caller]
fn check_data(body: &str, events: &[&str], end: Option<Outcome>) {
    let expected = Read { events: events.iter().map(|it| it.to_string()).collect(), end };
    assert_eq!(read(Format::data_stream, Dialect::AiSdk, Publish::Events, body), expected);
}

#[test]
fn the_data_stream_of_version_4() {
    check_data(
        concat!(
            "f:{\"messageId\":\"m\"}\n",
            "g:\"hm\"\n",
            "0:\"Gr\\u00fc\\u00df\"\n",
            "2:[{\"sky\":\"clear\"}]\n",
            "b:{\"toolCallId\":\"c1\",\"toolName\":\"weather\"}\n",
            "c:{\"toolCallId\":\"c1\",\"argsTextDelta\":\"{}\"}\n",
            "9:{\"toolCallId\":\"c1\",\"toolName\":\"weather\",\"args\":{}}\n",
            "a:{\"toolCallId\":\"c1\",\"result\":\"clear\"}\n",
            "e:{\"finishReason\":\"stop\",\"usage\":{\"promptTokens\":9,\"completionTokens\":2},\"isContinued\":false}\n",
            "d:{\"finishReason\":\"stop\",\"usage\":{\"promptTokens\":9,\"completionTokens\":2}}\n",
        ),
        &[
            r#"{"event":"reasoning","reasoning":"hm"}"#,
            HI_EVENT,
            r#"{"event":"native","name":"2","data":[{"sky":"clear"}]}"#,
            r#"{"event":"tool_call","state":"start","id":"c1","name":"weather"}"#,
            r#"{"event":"tool_call","state":"arguments","id":"c1","name":"weather","delta":"{}"}"#,
            r#"{"event":"tool_call","state":"end","id":"c1","name":"weather","arguments":"{}"}"#,
            r#"{"event":"tool_result","id":"c1","result":"clear"}"#,
            r#"{"event":"usage","input_tokens":9,"output_tokens":2,"total_tokens":11}"#,
            STOP,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn the_ends_of_a_data_stream() {
    check_data(
        "0:\"Gr\\u00fc\\u00df\"\n3:\"overloaded\"\ne:{\"finishReason\":\"error\"}\nd:{\"finishReason\":\"error\"}\n",
        &[HI_EVENT, r#"{"event":"error","error":"overloaded","code":"task_failed"}"#],
        Some(Outcome::Failed),
    );
    // Only a step has ended.
    check_data("0:\"Gr\\u00fc\\u00df\"\ne:{\"finishReason\":\"stop\"}\n", &[HI_EVENT], None);
    // The counts of a stream whose model told none.
    check_data(
        "d:{\"finishReason\":\"stop\",\"usage\":{\"promptTokens\":null,\"completionTokens\":NaN}}",
        &[STOP],
        Some(Outcome::Completed),
    );
}

/// A route joins streams, each of which ends with `finish`.
#[test]
fn a_step_after_a_finish_must_end_as_well() {
    let delta = r#"{"type":"text-delta","id":"0","delta":"Hi"}"#;
    let finish = r#"{"type":"finish","finishReason":"stop"}"#;
    let step = r#"{"type":"start-step"}"#;
    let hi = r#"{"event":"chunk","chunk":"Hi"}"#;
    let complete = r#"{"event":"complete","finish_reason":"stop"}"#;
    check_ui(&[finish, step, delta], &[hi], None);
    check_ui(&[finish, r#"{"type":"start"}"#, step, delta], &[hi], None);
    let step_end = r#"{"type":"finish-step"}"#;
    check_ui(&[finish, step, delta, step_end], &[hi, complete], Some(Outcome::Completed));
    check_ui(&[finish, step, delta, finish], &[hi, complete], Some(Outcome::Completed));
}

#[test]
fn a_message_that_is_not_streamed() {
    let body = r#"{"id":"m","role":"assistant","parts":[{"type":"step-start"},{"type":"reasoning","text":"hm"},{"type":"text","text":"Hi"},{"type":"tool-f","toolCallId":"c"}]}"#;
    check_json(
        Dialect::AiSdk,
        body,
        &[
            r#"{"event":"reasoning","reasoning":"hm"}"#,
            r#"{"event":"chunk","chunk":"Hi"}"#,
            &format!(r#"{{"event":"native","data":{body}}}"#),
            r#"{"event":"complete","finish_reason":"stop"}"#,
        ],
        Some(Outcome::Completed),
    );
}
