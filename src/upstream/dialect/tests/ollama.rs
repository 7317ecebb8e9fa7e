use super::*;

const HI: &str = r#"{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"Hi","thinking":"hm"},"done":false}"#;
const END: &str = r#"{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":9,"eval_count":2,"total_duration":5000000}"#;
const EVENTS: [&str; 4] = [
    r#"{"event":"reasoning","reasoning":"hm"}"#,
    r#"{"event":"chunk","chunk":"Hi"}"#,
    r#"{"event":"usage","input_tokens":9,"output_tokens":2,"total_tokens":11}"#,
    r#"{"event":"complete","finish_reason":"stop"}"#,
];

#[track_caller]
fn check_ollama(lines: &[&str], events: &[&str], end: Option<Outcome>) {
    let expected = Read { events: events.iter().map(|it| it.to_string()).collect(), end };
    let read = |format, body: &str| read(format, Dialect::Ollama, Publish::Events, body);
    for format in [Format::ndjson, Format::json] {
        let body = lines.join("\n");
        assert_eq!(read(format, &body), expected);
        assert_eq!(read(format, &format!("\u{feff}{}\r\n", lines.join("\r\n"))), expected);
    }
    // Some proxies make an event stream of it.
    assert_eq!(read(Format::sse, &stream(lines)), expected);
}

#[test]
fn a_text() {
    check_ollama(&[HI, END, HI], &EVENTS, Some(Outcome::Completed));
    check_ollama(&[HI], &EVENTS[..2], None);
    // `/api/generate`, of a version without reasons.
    let [text, end] = [
        r#"{"model":"m","response":"Hi","thinking":"hm","done":false}"#,
        r#"{"model":"m","response":"","done":true}"#,
    ];
    check_ollama(&[text, end], &[EVENTS[0], EVENTS[1], EVENTS[3]], Some(Outcome::Completed));
}

#[test]
fn tool_calls_come_whole() {
    let call = r#"{"message":{"role":"assistant","content":"","tool_calls":[{"function":{"index":0,"name":"f","arguments":{"x":[1,"a"]}}}]},"done":false}"#;
    check_ollama(
        &[call, END],
        &[
            r#"{"event":"tool_call","state":"start","id":"call_1","name":"f"}"#,
            r#"{"event":"tool_call","state":"end","id":"call_1","name":"f","arguments":"{\"x\":[1,\"a\"]}"}"#,
            EVENTS[2],
            r#"{"event":"complete","finish_reason":"tool_calls","raw_finish_reason":"stop"}"#,
        ],
        Some(Outcome::Completed),
    );
}

#[test]
fn an_error_in_the_middle() {
    let error = r#"{"error":"model runner has unexpectedly stopped"}"#;
    check_ollama(
        &[HI, error],
        &[
            EVENTS[0],
            EVENTS[1],
            r#"{"event":"error","error":"model runner has unexpectedly stopped","code":"task_failed"}"#,
        ],
        Some(Outcome::Failed),
    );
}
