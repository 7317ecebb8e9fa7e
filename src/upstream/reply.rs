//! An accepted message, and the reply that an HTTP upstream streams as the body of its response.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderValue;
use tokio::time::{Instant, timeout_at};

use super::dialect::{
    Collected, Conclusion, Failure, Outcome, ReplySummary, Translation, Untranslatable, detect,
    is_keep_alive,
};
use super::event;
use super::format::{Format, Frame, Rest};
use super::gate::{InFlightPermit, TaskPermit};
use super::{Message, deadline_after};
use crate::config::{self, Publish, StreamEnd};
use crate::http_client::{BodyError, DecodedBody};
use crate::protocol::{ChannelName, Dialect, EventName, strip_bom, with_task_id};
use crate::sse::{self, EventTooLarge};
use crate::telemetry;
use crate::telemetry::upstreams::ReplyEnd;

mod whole;

/// How long after the proof of its end a reply is read for what belongs to it, such as its usage.
const LINGER: Duration = Duration::from_secs(2);

/// The upstream accepted the message.
#[derive(Debug)]
pub struct Accepted {
    pub task_id: String,
    pub reply: ReplySource,
    /// Held until the worker's reply has ended.
    pub task: Option<TaskPermit>,
}

/// Where the reply to an accepted message comes from.
#[derive(Debug)]
pub enum ReplySource {
    /// There is no reply.
    None,
    /// A worker publishes the reply.
    Worker,
    /// The upstream streams the reply in its response.
    Stream(Box<Reply>),
}

/// Why a streamed reply is incomplete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBroken {
    /// The connection was lost, or the body ended inside an event.
    Lost,
    /// An event was too large, for example; the text says what is wrong.
    Refused(&'static str),
    /// The reply took longer than `max_reply`, or nothing more came; the text says which.
    TimedOut(&'static str),
}

/// What comes next of a streamed reply.
#[derive(Debug)]
pub enum ReplyEvent {
    /// A JSON object with a string `event`, of an upstream that writes its own. Whether it ends the reply is for the route
    /// to say.
    Own(Bytes),
    /// A publication with its task id, which does not end the reply.
    Publication(Bytes),
    /// The upstream has ended the reply. Nothing follows.
    End(Conclusion),
}

/// A streamed reply. Dropping it aborts the request and releases its in-flight permit.
pub struct Reply {
    body: Box<DecodedBody>,
    format: Format,
    content: Content,
    publish: Publish,
    /// The part of the body that is not parsed yet: at most one read.
    input: Bytes,
    deadline: Instant,
    /// How long nothing may come; `None` = until the deadline.
    idle_timeout: Option<Duration>,
    /// What completes the upstream's own events.
    end: StreamEnd,
    /// Until when what may follow the proof of an end is waited for; `None` = there is no proof yet.
    lingers_until: Option<Instant>,
    is_ended: bool,
    /// Whether some of the body was received.
    has_begun: bool,
    /// What is collected of the reply, until it is known what its events are.
    to_collect: Option<Collected>,
    in_flight: InFlightPermit,
    channel: ChannelName,
    task_id: Box<str>,
}

/// What the events of the body are.
enum Content {
    /// The upstream's own.
    Own(ReplySummary),
    Dialect(Box<Translation>),
    /// The first event decides.
    Undecided,
}

impl Reply {
    /// `input` is the beginning of the body, as far as it has been read.
    pub(super) fn new(
        body: DecodedBody,
        input: Bytes,
        format: Format,
        dialect: Dialect,
        config: &config::HttpUpstream,
        in_flight: InFlightPermit,
        message: &Message,
    ) -> Self {
        let (channel, task_id) = (message.channel.clone(), message.task_id.as_str().into());
        let mut reply = Self {
            body: Box::new(body),
            format,
            content: Content::Undecided,
            publish: config.publish,
            input,
            deadline: deadline_after(config.max_reply),
            idle_timeout: config.stream_idle_timeout,
            end: config.end,
            lingers_until: None,
            is_ended: false,
            has_begun: false,
            to_collect: None,
            in_flight,
            channel,
            task_id,
        };
        match dialect {
            Dialect::Auto => {}
            Dialect::Events => reply.content = Content::Own(ReplySummary::default()),
            dialect => reply.set_dialect(dialect, config.dialect == Dialect::Auto),
        }
        reply
    }

    /// `is_found`: it is not what the config says.
    fn set_dialect(&mut self, dialect: Dialect, is_found: bool) {
        let metrics = &self.in_flight.metrics;
        telemetry::dialects::reply_begun(metrics.name(), dialect);
        if is_found {
            metrics.dialect_found(dialect);
        }
        let translation = Translation::new(dialect, self.publish, metrics, &self.task_id);
        self.content = match translation {
            Some(translation) => Content::Dialect(Box::new(translation)),
            None => Content::Own(ReplySummary::default()),
        };
        if let Some(collected) = self.to_collect.take() {
            self.collect(collected);
        }
    }

    /// Returns what comes next. `None` at the regular end of an upstream that writes its own events, and after any kind of
    /// end. It is cancel-safe: dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Result<ReplyEvent, ReplyBroken>> {
        while !self.is_ended {
            if let Some(ready) = self.take_ready() {
                return ready;
            }
            match self.format.next(&mut self.input) {
                Ok(Some(frame)) => match self.take(&frame) {
                    Some(next) => return next,
                    None => continue,
                },
                Ok(None) => {}
                Err(EventTooLarge) => return self.break_off(ReplyEnd::TooLarge),
            }
            // The timeout below does not expire while the body always has more data ready.
            let wait_until = self.wait_until();
            if Instant::now() >= wait_until {
                return self.time_is_over();
            }
            // Only the time counts in which the body is waited for.
            let silent_at = match self.idle_timeout {
                // After the proof of its end, silence is no fault.
                Some(timeout) if self.lingers_until.is_none() => deadline_after(timeout),
                _ => wait_until,
            };
            match timeout_at(wait_until.min(silent_at), self.body.next()).await {
                Ok(Some(Ok(part))) => {
                    self.check_start(&part);
                    self.input = part;
                }
                Ok(Some(Err(BodyError::Lost(_)))) => return self.break_off(ReplyEnd::Lost),
                Ok(Some(Err(BodyError::TooLarge))) => return self.break_off(ReplyEnd::TooLarge),
                Ok(Some(Err(_))) if self.lingers_until.is_some() => return self.conclude(),
                Ok(Some(Err(error))) => {
                    self.in_flight.metrics.body_unreadable(&error.to_string());
                    return self.end_with(ReplyEnd::Unreadable);
                }
                Ok(None) => return self.handle_eof(),
                Err(_) if silent_at < wait_until => return self.end_with(ReplyEnd::Silent),
                Err(_) => return self.time_is_over(),
            }
        }
        None
    }

    /// Returns what can be said without reading on.
    fn take_ready(&mut self) -> Option<Option<Result<ReplyEvent, ReplyBroken>>> {
        let Content::Dialect(translation) = &mut self.content else { return None };
        if let Some(json) = translation.next() {
            return Some(Some(Ok(ReplyEvent::Publication(json))));
        }
        if translation.is_over() {
            return Some(self.conclude());
        }
        None
    }

    /// Takes an event of the body.
    fn take(&mut self, frame: &Frame) -> Option<Option<Result<ReplyEvent, ReplyBroken>>> {
        let Frame { name, data, is_bare } = frame;
        if matches!(self.content, Content::Undecided) {
            if is_keep_alive(name, data) {
                return None;
            }
            if event::is_done(data) {
                return Some(self.handle_end_of_stream());
            }
            // A failure is the same in every dialect.
            let dialect = detect(name, data).unwrap_or(Dialect::Events);
            self.set_dialect(dialect, true);
        }
        let translation = match &mut self.content {
            Content::Own(_) | Content::Undecided if *is_bare => return None,
            Content::Own(_) | Content::Undecided if event::is_done(data) => {
                return Some(self.end_with(ReplyEnd::Complete));
            }
            Content::Own(_) | Content::Undecided => {
                return Some(Some(Ok(self.own_event(name, data))));
            }
            Content::Dialect(translation) => translation,
        };
        if event::is_done(data) {
            return Some(self.handle_end_of_stream());
        }
        match translation.take(name, data) {
            Ok(()) => {
                self.lingers_until = match (translation.has_ended(), self.lingers_until) {
                    (false, _) => None,
                    // Nothing more that is published: the wait is not longer for it.
                    (true, Some(until)) if !translation.has_publications() => Some(until),
                    (true, _) => Some(Instant::now() + LINGER),
                };
                None
            }
            Err(Untranslatable::NotJson) => Some(self.break_off(ReplyEnd::Malformed)),
            Err(Untranslatable::TooLarge) => Some(self.break_off(ReplyEnd::TooLarge)),
        }
    }

    fn own_event(&mut self, name: &str, data: &str) -> ReplyEvent {
        if name == EventName::Error.label()
            && let Some(json) = event::to_error(data)
        {
            self.end_with(ReplyEnd::Failed);
            let json = with_task_id(&json, &self.task_id);
            let reason = Some(Failure::read(data).to_string());
            return ReplyEvent::End(Conclusion { json, outcome: Outcome::Failed, reason });
        }
        ReplyEvent::Own(event::to_object(name, data))
    }

    /// The stream says that nothing more will come, or there is nothing more.
    fn handle_end_of_stream(&mut self) -> Option<Result<ReplyEvent, ReplyBroken>> {
        match &self.content {
            Content::Own(_) => self.end_with(match self.end {
                StreamEnd::Body => ReplyEnd::Complete,
                StreamEnd::Event => ReplyEnd::Lost,
            }),
            // No event has come, and APIs write one at least.
            Content::Undecided => self.end_with(ReplyEnd::Lost),
            Content::Dialect(translation) if translation.has_ended() => self.conclude(),
            Content::Dialect(_) => self.end_with(ReplyEnd::Lost),
        }
    }

    /// Returns the last publications, and then the end that the stream has proved.
    fn conclude(&mut self) -> Option<Result<ReplyEvent, ReplyBroken>> {
        let Content::Dialect(translation) = &mut self.content else {
            return self.end_with(ReplyEnd::Complete);
        };
        translation.close();
        if let Some(json) = translation.next() {
            return Some(Ok(ReplyEvent::Publication(json)));
        }
        let conclusion = translation.conclude();
        self.end_with(match conclusion.outcome {
            Outcome::Completed => ReplyEnd::Complete,
            Outcome::Failed => ReplyEnd::Failed,
            Outcome::Aborted => ReplyEnd::Aborted,
        });
        Some(Ok(ReplyEvent::End(conclusion)))
    }

    /// Ends a reply that cannot be read on. If its end has been proved, nothing is missing.
    fn break_off(&mut self, end: ReplyEnd) -> Option<Result<ReplyEvent, ReplyBroken>> {
        match self.lingers_until {
            Some(_) => self.conclude(),
            None => self.end_with(end),
        }
    }

    fn is_completed_by_body(&self) -> bool {
        matches!(self.content, Content::Own(_)) && self.end == StreamEnd::Body
    }

    fn wait_until(&self) -> Instant {
        self.lingers_until.map_or(self.deadline, |until| until.min(self.deadline))
    }

    fn time_is_over(&mut self) -> Option<Result<ReplyEvent, ReplyBroken>> {
        match self.lingers_until {
            Some(_) => self.conclude(),
            None => self.end_with(ReplyEnd::TooLong),
        }
    }

    /// Warns of a body that begins with JSON but is to be an event stream, of which all would be ignored, and of the
    /// reverse, of which each line would be a chunk.
    fn check_start(&mut self, part: &[u8]) {
        if self.has_begun || part.is_empty() {
            return;
        }
        self.has_begun = true;
        let start = strip_bom(part).trim_ascii_start();
        let (declared, looks_like) = match (&self.format, &self.content) {
            (Format::Sse(_), Content::Own(_)) if matches!(start.first(), Some(b'{' | b'[')) => {
                ("text/event-stream", "JSON")
            }
            (Format::Ndjson(_), _) if sse::is_field(start) => {
                ("application/x-ndjson", "text/event-stream")
            }
            _ => return,
        };
        let declared = HeaderValue::from_static(declared);
        self.in_flight.metrics.content_type_mismatched(Some(&declared), looks_like);
    }

    fn handle_eof(&mut self) -> Option<Result<ReplyEvent, ReplyBroken>> {
        match self.format.finish(self.body.is_delimited()) {
            Rest::Nothing => self.handle_end_of_body(),
            Rest::Cut => self.break_off(ReplyEnd::Lost),
            Rest::Frame(frame) => match self.take(&frame) {
                Some(next) => {
                    if !self.is_ended && self.is_completed_by_body() {
                        // This is the last event. The next call returns the end.
                        self.end_with(ReplyEnd::Complete);
                    }
                    next
                }
                // The body stays at its end, so that the next call comes here again after what is ready.
                None => self.take_ready().unwrap_or_else(|| self.handle_end_of_body()),
            },
        }
    }

    fn handle_end_of_body(&mut self) -> Option<Result<ReplyEvent, ReplyBroken>> {
        if let Content::Dialect(translation) = &mut self.content
            && self.body.is_delimited()
        {
            translation.end_body();
        }
        self.handle_end_of_stream()
    }

    fn end_with(&mut self, end: ReplyEnd) -> Option<Result<ReplyEvent, ReplyBroken>> {
        self.is_ended = true;
        self.in_flight.metrics.reply_ended(&self.channel, &self.task_id, end);
        Some(Err(match end {
            ReplyEnd::Complete | ReplyEnd::Failed | ReplyEnd::Aborted | ReplyEnd::GivenUp => {
                return None;
            }
            ReplyEnd::Lost => ReplyBroken::Lost,
            ReplyEnd::TooLarge => ReplyBroken::Refused("an event of the reply was too large"),
            ReplyEnd::Malformed => ReplyBroken::Refused("an event of the reply was not JSON"),
            ReplyEnd::Unreadable => {
                ReplyBroken::Refused("the reply has a content encoding that cannot be decoded")
            }
            ReplyEnd::TooLong => ReplyBroken::TimedOut("the reply took too long"),
            ReplyEnd::Silent => ReplyBroken::TimedOut("the reply fell silent"),
        }))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("is_ended", &self.is_ended).finish_non_exhaustive()
    }
}
