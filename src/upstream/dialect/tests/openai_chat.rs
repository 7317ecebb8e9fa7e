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
