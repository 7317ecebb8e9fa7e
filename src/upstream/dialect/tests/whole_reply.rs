//! What is the same in every dialect.

use super::*;
use crate::telemetry::upstreams::UpstreamMetrics;

fn translation(dialect: Dialect, publish: Publish) -> Translation {
    let metrics = UpstreamMetrics::new("test").into();
    Translation::new(dialect, publish, &metrics, "t").expect("a dialect")
}

fn collected(max_bytes: usize) -> Collected {
    Collected { max_bytes, has_reasoning: true, share: None }
}

/// What follows the end is not read.
#[test]
fn native_objects_are_wrapped_once() {
    let [text, end] = [
        r#"{"choices":[{"index":0,"delta":{"content":"Hi"}}],"n":-Infinity}"#,
        r#"{ "choices":[{"index":0,"delta":{},"finish_reason":"length"}],"usage":{"prompt_tokens":1}}"#,
    ];
    let body = stream(&[text, end, "[DONE]", text]);
    let read = read(Format::sse, Dialect::OpenaiChat, Publish::Native, &body);
    let events = vec![
        format!(r#"{{"event":"native","data":{}}}"#, text.replace("-Infinity", "\"-Infinity\"")),
        format!(r#"{{"event":"native","data":{end}}}"#),
        r#"{"event":"complete","finish_reason":"length"}"#.to_owned(),
    ];
    assert_eq!(read, Read { events, end: Some(Outcome::Completed) });
}

#[test]
fn data_that_is_not_json_is_refused() {
    for dialect in [
        Dialect::OpenaiChat,
        Dialect::OpenaiResponses,
        Dialect::Anthropic,
        Dialect::Gemini,
        Dialect::Ollama,
    ] {
        for data in ["hello", "{\"choices\":[", "{'a':1}", "{\"a\":\"\u{1}\"}"] {
            let mut translation = translation(dialect, Publish::Events);
            assert_eq!(
                translation.take("", data),
                Err(Untranslatable::NotJson),
                "{dialect} {data:?}"
            );
        }
        let deep = format!("{{\"type\":\"odd\",\"a\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
        let mut translation = translation(dialect, Publish::Native);
        assert_eq!(translation.take("", &deep), Err(Untranslatable::NotJson), "{dialect}");
    }
}

#[test]
fn tool_calls_are_bounded() {
    let delta = |index: usize, arguments: &str| {
        format!(
            r#"{{"choices":[{{"delta":{{"tool_calls":[{{"index":{index},"function":{{"name":"f","arguments":"{arguments}"}}}}]}}}}]}}"#
        )
    };
    let mut many = translation(Dialect::OpenaiChat, Publish::Events);
    let refused = (0..1000).find_map(|index| many.take("", &delta(index, "")).err());
    assert_eq!(refused, Some(Untranslatable::TooLarge));
    let mut large = translation(Dialect::OpenaiChat, Publish::Events);
    let piece = delta(0, &"x".repeat(1024));
    let refused = (0..2000).find_map(|_| large.take("", &piece).err());
    assert_eq!(refused, Some(Untranslatable::TooLarge));
}

#[test]
fn the_summary_has_what_the_reply_said() {
    let mut translation = translation(Dialect::OpenaiChat, Publish::Native);
    translation.summary_mut().collect(collected(1024));
    for data in [
        r#"{"choices":[{"delta":{"content":"Gr\u00fc\ud83d"}}]}"#,
        r#"{"choices":[{"delta":{"content":"\ude00\n"}}]}"#,
        r#"{"choices":[{"delta":{"reasoning_content":"So\u002c"}}]}"#,
        r#"{"choices":[{"index":1,"delta":{"reasoning_content":"other"}}]}"#,
        r#"{"choices":[{"index":1,"delta":{"content":"other"}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}]}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"},{"index":1,"delta":{},"finish_reason":"stop"}],"usage":{"completion_tokens":7}}"#,
    ] {
        translation.take("", data).expect("JSON");
    }
    translation.close();
    let _ = translation.conclude();
    let summary = translation.summary_mut();
    assert_eq!(summary.text(), "Grü😀\n");
    assert_eq!(summary.reasoning(), "So,");
    assert!(!summary.is_cut);
    let call = SummaryToolCall {
        id: "a".to_owned(),
        name: "f".to_owned(),
        arguments: "{\"x\":1}".to_owned(),
    };
    assert_eq!(summary.tool_calls, [call]);
    assert_eq!(summary.usage.output, Some(7));
    assert_eq!(summary.usage.total(), None);
    assert_eq!(summary.finish_reason, Some(FinishReason::ToolCalls));
}

#[test]
fn a_summary_is_bounded() {
    let mut translation = translation(Dialect::OpenaiChat, Publish::Events);
    translation.summary_mut().collect(collected(10));
    let call = r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"0123456789"}}]}}]}"#;
    translation.take("", call).expect("JSON");
    translation.take("", r#"{"choices":[{"delta":{"content":"1234"}}]}"#).expect("JSON");
    translation.close();
    assert!(translation.summary_mut().is_cut);
    assert_eq!(translation.summary_mut().text(), "1234", "each kind has a bound of its own");
    let mut translation = self::translation(Dialect::OpenaiChat, Publish::Events);
    translation.summary_mut().collect(collected(10));
    for _ in 0..4 {
        translation.take("", r#"{"choices":[{"delta":{"content":"1234"}}]}"#).expect("JSON");
    }
    assert_eq!(translation.summary_mut().text(), "12341234");
    assert!(translation.summary_mut().is_cut);
}

#[test]
fn what_is_not_utf8_is_replaced() {
    let body = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\xff\xc3b\"},\"finish_reason\":\"stop\"}]}\n\n";
    for size in 1..body.len() {
        let read = read_in_pieces(Format::sse(), Dialect::OpenaiChat, Publish::Events, body, size);
        assert_eq!(read.events[0], "{\"event\":\"chunk\",\"chunk\":\"a\u{fffd}\u{fffd}b\"}");
        assert_eq!(read.end, Some(Outcome::Completed));
    }
}

/// All line ends, comments, and data over several lines.
#[test]
fn event_streams_as_servers_write_them() {
    let end = r#"{"event":"complete","finish_reason":"stop"}"#;
    for line_end in ["\n", "\r\n", "\r"] {
        let body = "\u{feff}: hi\nid: 1\nretry: 5\ndata: {\"choices\":[{\ndata:\"delta\":{\"content\":\"a\"},\ndata: \"finish_reason\":\"stop\"}]}\n\n: bye\n";
        let body = body.replace('\n', line_end);
        let read = read(Format::sse, Dialect::OpenaiChat, Publish::Events, &body);
        assert_eq!(read.events, [r#"{"event":"chunk","chunk":"a"}"#, end], "{line_end:?}");
    }
}

/// Arguments that are split inside a surrogate pair, in each dialect that has them in parts.
#[test]
fn halves_of_characters_in_arguments_are_joined() {
    const START: &str = r#"{"event":"tool_call","state":"start","id":"c1","name":"f"}"#;
    let (first, second) = (r#"{\"a\":\"\ud83d"#, r#"\ude00\"}"#);
    let events = |dialect: Dialect| -> String {
        let piece = |text: &str| match dialect {
            Dialect::OpenaiChat => format!(
                r#"data: {{"choices":[{{"delta":{{"tool_calls":[{{"index":0,"function":{{"arguments":"{text}"}}}}]}}}}]}}"#
            ),
            Dialect::OpenaiResponses => format!(
                r#"data: {{"type":"response.function_call_arguments.delta","output_index":0,"delta":"{text}"}}"#
            ),
            Dialect::Anthropic => format!(
                r#"data: {{"type":"content_block_delta","index":0,"delta":{{"type":"input_json_delta","partial_json":"{text}"}}}}"#
            ),
            Dialect::AiSdk => format!(
                r#"data: {{"type":"tool-input-delta","toolCallId":"c1","inputTextDelta":"{text}"}}"#
            ),
            Dialect::AgUi => {
                format!(r#"data: {{"type":"TOOL_CALL_ARGS","toolCallId":"c1","delta":"{text}"}}"#)
            }
            _ => {
                let chunk = r#"{"type":"AIMessageChunk","id":"m","content":"","tool_call_chunks""#;
                format!(
                    r#"event: messages
data: [{chunk}:[{{"index":0,"args":"{text}"}}]}},{{}}]"#
                )
            }
        };
        let start = match dialect {
            Dialect::OpenaiChat => {
                r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":""}}]}}]}"#
            }
            Dialect::OpenaiResponses => {
                r#"data: {"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"c1","name":"f","arguments":""}}"#
            }
            Dialect::Anthropic => {
                r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"c1","name":"f","input":{}}}"#
            }
            Dialect::AiSdk => {
                r#"data: {"type":"tool-input-start","toolCallId":"c1","toolName":"f"}"#
            }
            Dialect::AgUi => {
                r#"data: {"type":"TOOL_CALL_START","toolCallId":"c1","toolCallName":"f"}"#
            }
            _ => {
                "event: messages\ndata: [{\"type\":\"AIMessageChunk\",\"id\":\"m\",\"content\":\"\",\"tool_call_chunks\":[{\"index\":0,\"id\":\"c1\",\"name\":\"f\"}]},{}]"
            }
        };
        [start, &piece(first), &piece(second), ""].join("\n\n")
    };
    for dialect in [
        Dialect::OpenaiChat,
        Dialect::OpenaiResponses,
        Dialect::Anthropic,
        Dialect::AiSdk,
        Dialect::AgUi,
        Dialect::Langgraph,
    ] {
        let read = read(Format::sse, dialect, Publish::Events, &events(dialect));
        let call = r#"{"event":"tool_call","state":"arguments","id":"c1","name":"f","delta":"#;
        let expected = [
            START.to_owned(),
            format!(r#"{call}"{{\"a\":\""}}"#),
            format!("{call}\"{}\"}}", r#"\ud83d\ude00\"}"#),
        ];
        assert_eq!(read.events.get(..3), Some(&expected[..]), "{dialect}");
    }
}
