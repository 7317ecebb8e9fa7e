//! Long replies in the dialects of AI APIs, with the members that the APIs themselves write.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Result;

const NDJSON: &str = "application/x-ndjson";
const RUN: &str = "01a22b50-e65f-726f-8f2b-6dd351c94574";

pub struct Reply {
    pub content_type: &'static str,
    pub body: Bytes,
    /// How many events are published: the deltas, and the usage where the API writes it unasked.
    pub events: u64,
}

impl Reply {
    pub fn new(dialect: &str, deltas: u64) -> Result<Self> {
        let mut body = String::new();
        let content_type = if dialect == "ollama" { NDJSON } else { "text/event-stream" };
        let mut push = |name: &str, data: &str| {
            if content_type == NDJSON {
                body.push_str(&format!("{data}\n"));
                return;
            }
            if !name.is_empty() {
                body.push_str(&format!("event: {name}\n"));
            }
            body.push_str(&format!("data: {data}\n\n"));
        };
        for number in 0..deltas {
            let (name, data) = delta(dialect, number).ok_or(format!("no dialect {dialect}"))?;
            push(name, &data.to_string());
        }
        for (name, data) in end(dialect) {
            push(name, &data.to_string());
        }
        if matches!(dialect, "events" | "openai-chat" | "ai-sdk") {
            push("", "[DONE]");
        }
        let events = deltas + u64::from(matches!(dialect, "gemini" | "ollama"));
        Ok(Self { content_type, body: body.into(), events })
    }
}

/// The name and the data of an event with a piece of the text.
fn delta(dialect: &str, number: u64) -> Option<(&'static str, Value)> {
    let event = match dialect {
        "events" => ("", json!({"event": "chunk", "chunk": " story"})),
        "openai-chat" => ("", chat_chunk(json!({"content": " story"}), Value::Null)),
        "openai-responses" => (
            "response.output_text.delta",
            json!({
                "type": "response.output_text.delta", "sequence_number": number, "item_id": "msg_67c9a5b8f0a88190",
                "output_index": 0, "content_index": 0, "delta": " story", "logprobs": [],
                "obfuscation": "k3Jz9QmX"
            }),
        ),
        "anthropic" => (
            "content_block_delta",
            json!({
                "type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": " story"}
            }),
        ),
        "gemini" => ("", gemini_chunk(" story", Value::Null)),
        "ollama" => ("", ollama_line(" story", false)),
        "ai-sdk" => ("", json!({"type": "text-delta", "id": "txt-0", "delta": " story"})),
        "ag-ui" => {
            ("", json!({"type": "TEXT_MESSAGE_CONTENT", "messageId": RUN, "delta": " story"}))
        }
        "langgraph" => ("messages", graph_message(" story", Value::Null)),
        _ => return None,
    };
    Some(event)
}

/// What ends the reply.
fn end(dialect: &str) -> Vec<(&'static str, Value)> {
    match dialect {
        "openai-chat" => vec![("", chat_chunk(json!({}), json!("stop")))],
        "openai-responses" => vec![(
            "response.completed",
            json!({"type": "response.completed", "response": {"status": "completed", "output": []}}),
        )],
        "anthropic" => vec![
            (
                "message_delta",
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
            ),
            ("message_stop", json!({"type": "message_stop"})),
        ],
        "gemini" => vec![("", gemini_chunk("", json!("STOP")))],
        "ollama" => vec![("", ollama_line("", true))],
        "ai-sdk" => vec![("", json!({"type": "finish", "finishReason": "stop"}))],
        "ag-ui" => vec![("", json!({"type": "RUN_FINISHED", "threadId": RUN, "runId": RUN}))],
        "langgraph" => vec![("messages", graph_message("", json!("last"))), ("end", Value::Null)],
        _ => Vec::new(),
    }
}

fn chat_chunk(delta: Value, finish: Value) -> Value {
    json!({
        "id": "chatcmpl-C1a2b3c4d5e6f7g8h9i0", "object": "chat.completion.chunk",
        "created": 1_790_000_000, "model": "example-model-2026-01-01", "system_fingerprint": null,
        "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]
    })
}

fn gemini_chunk(text: &str, finish: Value) -> Value {
    let mut candidate =
        json!({"content": {"parts": [{"text": text}], "role": "model"}, "index": 0});
    if !finish.is_null() {
        candidate["finishReason"] = finish;
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": 9, "candidatesTokenCount": 200, "totalTokenCount": 209,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}]
        },
        "modelVersion": "example-model-2026-01-01", "responseId": "bW9kZWxfcmVzcG9uc2U"
    })
}

fn ollama_line(text: &str, done: bool) -> Value {
    let mut line = json!({
        "model": "example-model", "created_at": "2026-11-30T07:00:00.123456789Z",
        "message": {"role": "assistant", "content": text}, "done": done
    });
    if done {
        let counts = [("prompt_eval_count", json!(9)), ("eval_count", json!(2000))];
        for (name, value) in [("done_reason", json!("stop"))].into_iter().chain(counts) {
            line[name] = value;
        }
    }
    line
}

/// A message of a LangGraph server, with all that it says of the run each time.
fn graph_message(text: &str, position: Value) -> Value {
    json!([
        {
            "content": text, "additional_kwargs": {}, "response_metadata": {}, "type": "AIMessageChunk",
            "name": null, "id": format!("lc_run--{RUN}"), "tool_calls": [], "invalid_tool_calls": [],
            "usage_metadata": null, "tool_call_chunks": [], "chunk_position": position
        },
        {
            "created_by": "system", "assistant_id": RUN, "run_attempt": 1, "langgraph_version": "1.2.24",
            "langgraph_api_version": "0.16.7", "langgraph_plan": "enterprise", "langgraph_host": "self-hosted",
            "langgraph_api_url": "http://127.0.0.1:8123", "graph_id": "agent", "run_id": RUN, "thread_id": RUN,
            "ls_integration": "langchain_chat_model", "langgraph_step": 1, "langgraph_node": "agent",
            "langgraph_triggers": ["branch:to:agent"], "langgraph_path": ["__pregel_pull", "agent"],
            "langgraph_checkpoint_ns": format!("agent:{RUN}"), "checkpoint_ns": format!("agent:{RUN}"),
            "ls_provider": "example", "ls_model_type": "chat", "lc_versions": {"langchain-core": "1.8.3"}
        }
    ])
}
