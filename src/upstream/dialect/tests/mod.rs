//! Whole streams of each dialect, split everywhere, against what is published of them.

use bytes::Bytes;

use super::item::FinishReason;
use super::summary::SummaryToolCall;
use super::*;
use crate::config::Publish;
use crate::telemetry::upstreams::UpstreamMetrics;
use crate::upstream::event;
use crate::upstream::format::{Format, Rest};

mod ag_ui;
mod ai_sdk;
mod anthropic;
mod detection;
mod gemini;
mod langgraph;
mod ollama;
mod openai_chat;
mod openai_responses;
mod whole_reply;

/// What a stream comes to: the publications, and how it ended.
#[derive(Debug, PartialEq)]
struct Read {
    events: Vec<String>,
    end: Option<Outcome>,
}

const TAIL: &str = r#","task_id":"t"}"#;

/// Reads a body that arrives in pieces of this many bytes, as [`crate::upstream::Reply`] does.
fn read_in_pieces(
    mut format: Format,
    dialect: Dialect,
    publish: Publish,
    body: &[u8],
    size: usize,
) -> Read {
    let metrics = UpstreamMetrics::new("test").into();
    let mut translation = Translation::new(dialect, publish, &metrics, "t").expect("a dialect");
    let mut frames = Vec::new();
    for piece in body.chunks(size) {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(frame) = format.next(&mut input).expect("small") {
            frames.push(frame);
        }
    }
    if let Rest::Frame(frame) = format.finish(true) {
        frames.push(frame);
    }
    let mut events = Vec::new();
    for frame in frames {
        if event::is_done(&frame.data) || translation.is_over() {
            break;
        }
        translation.take(&frame.name, &frame.data).expect("JSON");
        while let Some(json) = translation.next() {
            events.push(json);
        }
    }
    translation.end_body();
    let mut end = None;
    if translation.has_ended() {
        translation.close();
        events.extend(std::iter::from_fn(|| translation.next()));
        let conclusion = translation.conclude();
        events.push(conclusion.json);
        end = Some(conclusion.outcome);
    }
    let events = events.iter().map(|json| {
        serde_json::from_slice::<serde::de::IgnoredAny>(json).expect("JSON");
        let json = std::str::from_utf8(json).expect("UTF-8");
        json.strip_suffix(TAIL).expect("its task").to_owned() + "}"
    });
    Read { events: events.collect(), end }
}

/// Reads a body whole and split everywhere, which must come to the same.
fn read(format: fn() -> Format, dialect: Dialect, publish: Publish, body: &str) -> Read {
    let whole = read_in_pieces(format(), dialect, publish, body.as_bytes(), body.len().max(1));
    for size in 1..body.len().min(40) {
        let split = read_in_pieces(format(), dialect, publish, body.as_bytes(), size);
        assert_eq!(split, whole, "in pieces of {size} bytes");
    }
    whole
}

/// What is published of a body of JSON, and how it ends.
#[track_caller]
fn check_json(dialect: Dialect, body: &str, events: &[&str], end: Option<Outcome>) {
    let expected = Read { events: events.iter().map(|it| it.to_string()).collect(), end };
    assert_eq!(read(Format::json, dialect, Publish::Events, body), expected);
}

/// The data of each event, as an event stream.
fn stream(events: &[&str]) -> String {
    events.iter().map(|data| format!("data: {data}\n\n")).collect()
}

/// What is published of an event stream with these data, and how it ends.
#[track_caller]
fn check(dialect: Dialect, data: &[&str], events: &[&str], end: Option<Outcome>) {
    let expected = Read { events: events.iter().map(|it| it.to_string()).collect(), end };
    assert_eq!(read(Format::sse, dialect, Publish::Events, &stream(data)), expected);
}
