//! Spans for an OpenTelemetry collector.
//!
//! A [`Span`] costs nothing while tracing is off or its trace is not sampled: no allocation, no clock read.
//! Invariant: exporting a span never waits for the collector, and the queue in front of it is bounded.

mod export;
#[cfg(test)]
mod tests;

pub use export::{Collector, Settings, Tracing, start};
pub use opentelemetry_http::{HttpClient, HttpError};

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

use super::definitions::{metrics, words};
use super::log::ConnectionFields;
use crate::protocol::TraceContext;
use export::{Outcome, TRACING};

metrics! {
    /// Spans of sampled traces, by whether they were exported.
    SPANS = counter "tidegate_spans_total" [outcome: words(&[Outcome::LABELS])];
}

/// Whether any spans are exported.
pub fn is_enabled() -> bool {
    TRACING.get().is_some()
}

/// Follows the sampling decision of the client's trace, or starts a trace and makes the decision. Without tracing,
/// the client's trace is returned unchanged.
pub fn sample(client: Option<TraceContext>) -> TraceContext {
    let Some(tracing) = TRACING.get() else { return client.unwrap_or_default() };
    client.unwrap_or_else(|| {
        let trace = TraceContext::new();
        trace.with_sampled(tracing.samples(trace.trace_id()))
    })
}

/// What a span measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request that the gateway received.
    Server,
    /// Work within the gateway.
    Internal,
    /// A request that the gateway sent.
    Client,
    /// A task that the gateway put into a queue.
    Producer,
}

/// A span that has started; it ends when it is dropped. Empty if it is not recorded.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    context: TraceContext,
    parent: TraceContext,
    kind: Kind,
    name: Cow<'static, str>,
    started: SystemTime,
    ended: Option<SystemTime>,
    attributes: Vec<KeyValue>,
    status: Status,
}

impl Span {
    /// Starts a span now as a child of `parent`, which is the client's span or one of the gateway.
    pub fn start(
        parent: &TraceContext,
        kind: Kind,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Self {
        if !parent.is_sampled() || !is_enabled() {
            return Self(None);
        }
        Self(Some(Box::new(Open {
            context: parent.own_child(),
            parent: *parent,
            kind,
            name: name(),
            started: SystemTime::now(),
            ended: None,
            attributes: Vec::new(),
            status: Status::Unset,
        })))
    }

    /// Whether the span is recorded; if not, its attributes need not be computed.
    pub fn is_recording(&self) -> bool {
        self.0.is_some()
    }

    /// The context for its children; `None` = the span is not recorded.
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|open| open.context)
    }

    /// Moves the start of the span back by `ago`.
    pub fn backdate(&mut self, ago: std::time::Duration) {
        if let Some(open) = &mut self.0 {
            open.started = open.started.checked_sub(ago).unwrap_or(open.started);
        }
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            open.attributes.push(KeyValue::new(key, value));
        }
    }

    /// Sets the attributes that identify a connection.
    pub fn set_connection(&mut self, fields: ConnectionFields<'_>) {
        if self.is_recording() {
            self.set("tidegate.connection", fields.connection.to_string());
            self.set("tidegate.request", fields.request.to_string());
            if let Some(channel) = fields.channel {
                self.set("tidegate.channel", channel.as_str().to_owned());
            }
            if let Some(user) = fields.user {
                self.set("user.id", user.to_string());
            }
        }
    }

    /// Sets the outcome and the status, and `error.type` unless the status is [`SpanStatus::Ok`].
    pub fn set_outcome(&mut self, outcome: &'static str, status: SpanStatus) {
        self.set("tidegate.outcome", outcome);
        if status != SpanStatus::Ok {
            self.set("error.type", outcome);
        }
        if let (SpanStatus::Error, Some(open)) = (status, &mut self.0) {
            open.status = Status::error(outcome);
        }
    }

    /// Ends the span now.
    pub fn end(self) {}

    /// Starts a child of this span now.
    pub fn child(&self, name: &'static str) -> Self {
        match &self.0 {
            Some(open) => Self::start(&open.context, Kind::Internal, || name.into()),
            None => Self(None),
        }
    }
}

/// The status of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanStatus {
    Ok,
    /// Something was refused by rule, which is not an error of the gateway.
    Refused,
    Error,
}

impl Drop for Span {
    fn drop(&mut self) {
        if let (Some(open), Some(tracing)) = (self.0.take(), TRACING.get()) {
            tracing.export(open.into_data());
        }
    }
}

impl Open {
    fn into_data(self) -> SpanData {
        let span_id = SpanId::from(self.context.span_id());
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(self.context.trace_id()),
                span_id,
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            // 0 = this is the root span.
            parent_span_id: SpanId::from(self.parent.span_id()),
            parent_span_is_remote: !self.parent.is_own(),
            span_kind: match self.kind {
                Kind::Server => SpanKind::Server,
                Kind::Internal => SpanKind::Internal,
                Kind::Client => SpanKind::Client,
                Kind::Producer => SpanKind::Producer,
            },
            name: self.name,
            start_time: self.started,
            end_time: self.ended.unwrap_or_else(SystemTime::now),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: self.status,
            instrumentation_scope: export::scope(),
        }
    }
}
