use super::*;

#[test]
fn the_first_event_shows_the_dialect() {
    for (name, data, dialect) in [
        (
            "",
            r#"{"id":"c","object":"chat.completion.chunk","choices":[]}"#,
            Some(Dialect::OpenaiChat),
        ),
        ("", r#"{"choices":[{"delta":{"content":"a"}}]}"#, Some(Dialect::OpenaiChat)),
        ("", r#"{"error":{"message":"no"}}"#, Some(Dialect::OpenaiChat)),
        ("response.created", r#"{"type":"response.created"}"#, Some(Dialect::OpenaiResponses)),
        ("", r#"{"object":"response","type":null}"#, Some(Dialect::OpenaiResponses)),
        ("message_start", r#"{"type":"message_start"}"#, Some(Dialect::Anthropic)),
        (
            "",
            r#"{"id":"m","type":"message","role":"assistant","content":[]}"#,
            Some(Dialect::Anthropic),
        ),
        ("", r#"{"type":"message","text":"a"}"#, None),
        ("ping", r#"{"type":"ping"}"#, Some(Dialect::Anthropic)),
        ("", r#"{"candidates":[]}"#, Some(Dialect::Gemini)),
        ("", r#"[{"promptFeedback":{}}]"#, Some(Dialect::Gemini)),
        ("", r#"{"model":"m","response":"a","done":false}"#, Some(Dialect::Ollama)),
        ("", r#"{"type":"start","messageId":"a"}"#, Some(Dialect::AiSdk)),
        ("", r#"{"type":"data-weather","data":{}}"#, Some(Dialect::AiSdk)),
        ("", r#"{"type":"error","errorText":"no"}"#, Some(Dialect::AiSdk)),
        ("", r#"{"type":"RUN_STARTED"}"#, Some(Dialect::AgUi)),
        ("metadata", r#"{"run_id":"r","attempt":1}"#, Some(Dialect::Langgraph)),
        ("messages|ns", "[{},{}]", Some(Dialect::Langgraph)),
        // Answers that are not streamed.
        (
            "",
            r#"{"messages":[{"type":"human","content":"a"},{"type":"ai","content":"b"}]}"#,
            Some(Dialect::Langgraph),
        ),
        ("", r#"{"__error__":{"message":"no"}}"#, Some(Dialect::Langgraph)),
        ("", r#"{"__interrupt__":[]}"#, Some(Dialect::Langgraph)),
        ("", r#"{"output":"a","metadata":{"run_id":"r"}}"#, Some(Dialect::Langgraph)),
        ("", r#"{"role":"assistant","parts":[]}"#, Some(Dialect::AiSdk)),
        ("", r#"{"messages":[{"role":"assistant","content":"b"}]}"#, None),
        ("", r#"{"output":"a","metadata":{"n":1}}"#, None),
        ("", r#"{"output":"a","metadata":7}"#, None),
        // Lines of a data stream, and other forms of errors.
        ("0", r#""Hi""#, Some(Dialect::AiSdk)),
        ("", r#"{"object":"error","message":"no"}"#, Some(Dialect::OpenaiChat)),
        ("", r#"{"type":"error","message":"no"}"#, Some(Dialect::OpenaiChat)),
        ("", r#"{"error":null,"status":"ok"}"#, None),
        ("", r#"{"event":"chunk","chunk":"a","choices":[]}"#, None),
        ("token", r#"{"text":"a"}"#, None),
        ("", "plain", None),
        ("", "", None),
        ("", "[]", None),
    ] {
        assert_eq!(detect(name, data), dialect, "{name} {data}");
    }
}

#[test]
fn headers_show_the_dialect() {
    let mut headers = hyper::HeaderMap::new();
    assert_eq!(dialect_of_headers(&headers), None);
    headers.insert("x-vercel-ai-ui-message-stream", "v1".parse().unwrap());
    assert_eq!(dialect_of_headers(&headers), Some(Dialect::AiSdk));
}
