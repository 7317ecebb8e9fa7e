//! Spans of handshakes, messages and replies, for an OpenTelemetry collector.
//!
//! A [`Span`] is nothing while tracing is off or its trace is not sampled: no allocation, no clock read.
//! Invariant: what is exported never waits for the collector, and takes bounded room before it.

mod export;
mod reply;
#[cfg(test)]
mod tests;

pub use export::{Collector, Settings, Tracing, start};
pub use opentelemetry_http::{HttpClient, HttpError};
pub use reply::ReplySpans;

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

use super::about::About;
use super::definitions::{metrics, words};
use crate::protocol::TraceContext;
use export::{Outcome, TRACING};

metrics! {
    /// Spans of traces that are sampled, by what became of them.
    SPANS = counter "tidegate_spans_total" [outcome: words(&[Outcome::LABELS])];
}

/// Whether any spans are exported.
pub fn are_on() -> bool {
    TRACING.get().is_some()
}

/// Decides about a trace that begins here, or follows whoever began it. Without tracing it stays as it is.
pub fn sampled(client: Option<TraceContext>) -> TraceContext {
    let Some(tracing) = TRACING.get() else { return client.unwrap_or_default() };
    client.unwrap_or_else(|| {
        let trace = TraceContext::new();
        trace.with_sampled(tracing.samples(trace.trace_id()))
    })
}

/// What a span is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request that came.
    Server,
    /// Work of our own.
    Internal,
    /// A request of ours.
    Client,
    /// Something put into a queue.
    Producer,
}

/// A span that has begun; it ends when it is dropped. Of no size to speak of while it is none.
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
    /// Begins now, under `parent`: the client's, or that of a span of ours.
    pub fn begin(
        parent: &TraceContext,
        kind: Kind,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Self {
        if !parent.is_sampled() || !are_on() {
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

    /// Whether there is anything to be told of it.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What its children begin under; `None` = it is none.
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|open| open.context)
    }

    /// It began as long ago as that.
    pub fn began(&mut self, ago: std::time::Duration) {
        if let Some(open) = &mut self.0 {
            open.started = open.started.checked_sub(ago).unwrap_or(open.started);
        }
    }

    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            open.attributes.push(KeyValue::new(key, value));
        }
    }

    /// Whom it is about.
    pub fn about(&mut self, about: About<'_>) {
        if self.is_on() {
            self.set("tidegate.connection", about.connection.to_string());
            self.set("tidegate.request", about.request.to_string());
            self.set("tidegate.channel", about.channel.as_str().to_owned());
            if let Some(user) = about.user {
                self.set("user.id", user.to_string());
            }
        }
    }

    /// How it went; `error.type` where it did not go well.
    pub fn outcome(&mut self, outcome: &'static str, went: Went) {
        self.set("tidegate.outcome", outcome);
        if went != Went::Well {
            self.set("error.type", outcome);
        }
        if let (Went::Wrong, Some(open)) = (went, &mut self.0) {
            open.status = Status::error(outcome);
        }
    }

    /// Now, whenever it is dropped.
    pub fn end(self) {}

    fn under(parent: &Self, name: &'static str) -> Self {
        match &parent.0 {
            Some(open) => Self::begin(&open.context, Kind::Internal, || name.into()),
            None => Self(None),
        }
    }
}

/// Whose fault it is, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    Well,
    /// Refused as it should be: no error of ours.
    Refused,
    Wrong,
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
            // 0 = it is the first.
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
