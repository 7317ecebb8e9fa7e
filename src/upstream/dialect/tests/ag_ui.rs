use super::*;

const STARTED: &str = r#"{"type":"RUN_STARTED","threadId":"t","runId":"r"}"#;
const FINISHED: &str = r#"{"type":"RUN_FINISHED","threadId":"t","runId":"r"}"#;
const HI: &str = r#"{"type":"TEXT_MESSAGE_CONTENT","messageId":"m","delta":"Hi"}"#;
const HI_EVENT: &str = r#"{"event":"chunk","chunk":"Hi"}"#;
const STOP: &str = r#"{"event":"complete","finish_reason":"stop"}"#;
const CALL_START: &str = r#"{"event":"tool_call","state":"start","id":"c1","name":"weather"}"#;
const CALL_ARGUMENTS: &str =
    r#"{"event":"tool_call","state":"arguments","id":"c1","name":"weather","delta":"{}"}"#;
const CALL_END: &str =
    r#"{"event":"tool_call","state":"end","id":"c1","name":"weather","arguments":"{}"}"#;

#[track_caller]
fn check_run(data: &[&str], events: &[&str], end: Option<Outcome>) {
    check(Dialect::AgUi, data, events, end);
}

fn native(data: &str) -> String {
    format!(r#"{{"event":"native","data":{data}}}"#)
}

#[test]
fn a_run_with_a_tool() {
    check_run(
        &[
            STARTED,
            r#"{"type":"REASONING_MESSAGE_START","messageId":"r1","role":"reasoning"}"#,
            r#"{"type":"REASONING_MESSAGE_CONTENT","messageId":"r1","delta":"hm"}"#,
            r#"{"type":"TOOL_CALL_START","toolCallId":"c1","toolCallName":"weather","parentMessageId":null}"#,
            r#"{"type":"TOOL_CALL_ARGS","toolCallId":"c1","delta":"{}"}"#,
            r#"{"type":"TOOL_CALL_END","toolCallId":"c1"}"#,
            r#"{"type":"TOOL_CALL_RESULT","messageId":"m2","toolCallId":"c1","content":"clear","role":"tool"}"#,
            r#"{"type":"TEXT_MESSAGE_START","messageId":"m","role":"assistant"}"#,
            HI,
            r#"{"type":"TEXT_MESSAGE_END","messageId":"m"}"#,
            r#"{"type":"RUN_FINISHED","threadId":"t","runId":"r","outcome":{"type":"success"},"usage":[{"model":"a","inputTokens":9,"outputTokens":2},{"model":"b","inputTokens":1,"outputTokens":1}]}"#,
        ],
        &[
            r#"{"event":"reasoning","reasoning":"hm"}"#,
            CALL_START,
            CALL_ARGUMENTS,
            CALL_END,
            r#"{"event":"tool_result","id":"c1","result":"clear"}"#,
            HI_EVENT,
            r#"{"event":"usage","input_tokens":10,"output_tokens":3,"total_tokens":13}"#,
            r#"{"event":"complete","finish_reason":"stop","raw_finish_reason":"success"}"#,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn chunks_end_without_a_word() {
    let call =
        r#"{"type":"TOOL_CALL_CHUNK","toolCallId":"c1","toolCallName":"weather","delta":"{"}"#;
    let first =
        r#"{"event":"tool_call","state":"arguments","id":"c1","name":"weather","delta":"{"}"#;
    let second =
        r#"{"event":"tool_call","state":"arguments","id":"c1","name":"weather","delta":"}"}"#;
    check_run(
        &[
            STARTED,
            call,
            r#"{"type":"TOOL_CALL_CHUNK","delta":"}"}"#,
            r#"{"type":"TEXT_MESSAGE_CHUNK","messageId":"m","delta":"Hi"}"#,
            FINISHED,
        ],
        &[CALL_START, first, second, CALL_END, HI_EVENT, STOP],
        Some(Outcome::Completed),
    );
    check_run(
        &[STARTED, call, r#"{"type":"TOOL_CALL_CHUNK","toolCallId":"c1","delta":"}"}"#, FINISHED],
        &[CALL_START, first, second, CALL_END, STOP],
        Some(Outcome::Completed),
    );
}

#[test]
fn a_body_without_an_outcome_proves_nothing() {
    check_run(&[STARTED, HI], &[HI_EVENT], None);
}

#[test]
fn outcomes() {
    check_run(
        &[STARTED, HI, r#"{"type":"RUN_ERROR","message":"overloaded","code":"busy"}"#],
        &[
            HI_EVENT,
            r#"{"event":"error","error":"overloaded","code":"task_failed","upstream_code":"busy"}"#,
        ],
        Some(Outcome::Failed),
    );
    check_run(
        &[FINISHED, r#"{"type":"RUN_ERROR","message":"overloaded"}"#],
        &[r#"{"event":"error","error":"overloaded","code":"task_failed"}"#],
        Some(Outcome::Failed),
    );
    let cancelled = r#"{"type":"RUN_FINISHED","runId":"r","outcome":{"type":"cancelled"}}"#;
    check_run(&[HI, cancelled], &[HI_EVENT, r#"{"event":"cancelled"}"#], Some(Outcome::Aborted));
    let interrupt = r#"{"type":"RUN_FINISHED","runId":"r","outcome":{"type":"interrupt","interrupts":[{"id":"i","reason":"tool_call"}]}}"#;
    check_run(
        &[interrupt],
        &[
            &native(interrupt),
            r#"{"event":"complete","finish_reason":"pause","raw_finish_reason":"interrupt"}"#,
        ],
        Some(Outcome::Completed),
    );
    let result = r#"{"type":"RUN_FINISHED","runId":"r","result":{"answer":42},"outcome":null}"#;
    check_run(&[result], &[&native(result), STOP], Some(Outcome::Completed));
}

#[test]
fn texts_of_others_are_not_the_reply() {
    let [begin, text, end, nested] = [
        r#"{"type":"TEXT_MESSAGE_START","messageId":"u","role":"user"}"#,
        r#"{"type":"TEXT_MESSAGE_CONTENT","messageId":"u","delta":"hello?"}"#,
        r#"{"type":"TEXT_MESSAGE_END","messageId":"u"}"#,
        r#"{"type":"TEXT_MESSAGE_CONTENT","messageId":"s","delta":"I search","subagentRunId":"r2"}"#,
    ];
    check_run(
        &[begin, text, end, nested, HI, FINISHED],
        &[&native(begin), &native(text), &native(end), &native(nested), HI_EVENT, STOP],
        Some(Outcome::Completed),
    );
}

#[test]
fn states_and_unknown_events_are_passed_on() {
    let [state, custom, unknown] = [
        r#"{"type":"STATE_DELTA","delta":[{"op":"add","path":"/a","value":1}]}"#,
        r#"{"type":"CUSTOM","name":"sky","value":"clear"}"#,
        r#"{"type":"BRAND_NEW","outcome":7}"#,
    ];
    check_run(
        &[state, custom, unknown, FINISHED],
        &[&native(state), &native(custom), &native(unknown), STOP],
        Some(Outcome::Completed),
    );
}

#[test]
fn a_stream_may_have_several_runs() {
    let (started, finished) = (r#"{"type":"RUN_STARTED"}"#, r#"{"type":"RUN_FINISHED"}"#);
    let complete = r#"{"event":"complete","finish_reason":"stop"}"#;
    check_run(&[started, finished, started, finished], &[complete], Some(Outcome::Completed));
    check_run(&[started, finished, started], &[], None);
}
