//! An accepted message, and the reply that an HTTP upstream streams as the body of its response.

use std::fmt;

use bytes::Bytes;
use hyper::header::HeaderValue;
use tokio::time::{Instant, timeout_at};

use super::Message;
use super::event::{self, MAX_EVENT_BYTES};
use super::gate::{InFlightPermit, TaskPermit};
use super::ndjson::LineParser;
use crate::http_client::{BodyError, DecodedBody};
use crate::protocol::{ChannelName, strip_bom};
use crate::sse::{self, EventTooLarge, SseParser};
use crate::telemetry::upstreams::ReplyEnd;

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
    Stream(Reply),
}

/// Why a streamed reply is incomplete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBroken {
    /// The connection was lost, or the body ended inside an event.
    Lost,
    /// An event was too large, or the reply took longer than `max_reply`; the text says which.
    Refused(&'static str),
}

/// A streamed reply. Dropping it aborts the request and releases its in-flight permit.
pub struct Reply {
    body: Box<DecodedBody>,
    format: Format,
    /// The part of the body that is not parsed yet: at most one read.
    input: Bytes,
    deadline: Instant,
    is_ended: bool,
    /// Whether some of the body was received.
    has_begun: bool,
    in_flight: InFlightPermit,
    channel: ChannelName,
    task_id: Box<str>,
}

/// The format that divides the body into events.
pub(super) enum Format {
    Sse(Box<SseParser>),
    Ndjson(LineParser),
}

/// The result of parsing the next event.
enum Parsed {
    Event(Bytes),
    Done,
    NeedsMore,
}

impl Reply {
    pub(super) fn new(
        body: DecodedBody,
        format: Format,
        deadline: Instant,
        in_flight: InFlightPermit,
        message: &Message,
    ) -> Self {
        let (channel, task_id) = (message.channel.clone(), message.task_id.as_str().into());
        Self {
            body: Box::new(body),
            format,
            input: Bytes::new(),
            deadline,
            is_ended: false,
            has_begun: false,
            in_flight,
            channel,
            task_id,
        }
    }

    /// Returns the next event as one JSON object: an object with a string `event` unchanged, anything else
    /// wrapped as `{"event":"chunk","chunk":…}`. `None` at the regular end, and after any kind of end.
    /// It is cancel-safe: dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Result<Bytes, ReplyBroken>> {
        while !self.is_ended {
            match self.format.next(&mut self.input) {
                Ok(Parsed::Event(json)) => return Some(Ok(json)),
                Ok(Parsed::Done) => return self.end_with(ReplyEnd::Complete),
                Ok(Parsed::NeedsMore) => {}
                Err(EventTooLarge) => return self.end_with(ReplyEnd::TooLarge),
            }
            // The timeout below does not expire while the body always has more data ready.
            if Instant::now() >= self.deadline {
                return self.end_with(ReplyEnd::TooLong);
            }
            match timeout_at(self.deadline, self.body.next()).await {
                Ok(Some(Ok(part))) => {
                    self.check_start(&part);
                    self.input = part;
                }
                Ok(Some(Err(BodyError::Lost(_)))) => return self.end_with(ReplyEnd::Lost),
                Ok(Some(Err(BodyError::TooLarge))) => return self.end_with(ReplyEnd::TooLarge),
                Ok(Some(Err(error))) => {
                    self.in_flight.metrics.body_unreadable(&error.to_string());
                    return self.end_with(ReplyEnd::Unreadable);
                }
                Ok(None) => return self.handle_eof(),
                Err(_) => return self.end_with(ReplyEnd::TooLong),
            }
        }
        None
    }

    /// Ends a reply after its terminal event. The rest of the body is not read.
    pub fn finish(mut self) {
        if !self.is_ended {
            self.end_with(ReplyEnd::Complete);
        }
    }

    /// Aborts the request of a reply that is not needed any more.
    pub fn abort(mut self) {
        if !self.is_ended {
            self.end_with(ReplyEnd::GivenUp);
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
        let (declared, looks_like) = match self.format {
            Format::Sse(_) if matches!(start.first(), Some(b'{' | b'[')) => {
                ("text/event-stream", "JSON")
            }
            Format::Ndjson(_) if sse::is_field(start) => {
                ("application/x-ndjson", "text/event-stream")
            }
            Format::Sse(_) | Format::Ndjson(_) => return,
        };
        let declared = HeaderValue::from_static(declared);
        self.in_flight.metrics.content_type_mismatched(Some(&declared), looks_like);
    }

    fn handle_eof(&mut self) -> Option<Result<Bytes, ReplyBroken>> {
        match self.format.finish() {
            Ok(Parsed::Event(json)) => {
                // This is the last event. The next call returns the end.
                self.end_with(ReplyEnd::Complete);
                Some(Ok(json))
            }
            Ok(Parsed::Done | Parsed::NeedsMore) => self.end_with(ReplyEnd::Complete),
            Err(Truncated) => self.end_with(ReplyEnd::Lost),
        }
    }

    fn end_with(&mut self, end: ReplyEnd) -> Option<Result<Bytes, ReplyBroken>> {
        self.is_ended = true;
        self.in_flight.metrics.reply_ended(&self.channel, &self.task_id, end);
        Some(Err(match end {
            ReplyEnd::Complete | ReplyEnd::GivenUp => return None,
            ReplyEnd::Lost => ReplyBroken::Lost,
            ReplyEnd::TooLarge => ReplyBroken::Refused("an event of the reply was too large"),
            ReplyEnd::Unreadable => {
                ReplyBroken::Refused("the reply has a content encoding that cannot be decoded")
            }
            ReplyEnd::TooLong => ReplyBroken::Refused("the reply took too long"),
        }))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("is_ended", &self.is_ended).finish_non_exhaustive()
    }
}

/// The body ended inside an event.
struct Truncated;

impl Format {
    pub fn sse() -> Self {
        Self::Sse(Box::new(SseParser::new(MAX_EVENT_BYTES)))
    }

    pub fn ndjson() -> Self {
        Self::Ndjson(LineParser::default())
    }

    fn next(&mut self, input: &mut Bytes) -> Result<Parsed, EventTooLarge> {
        let (name, data) = match self {
            Self::Sse(parser) => match parser.next(input)? {
                Some(event) => (event.name, sse::to_text(event.data)),
                None => return Ok(Parsed::NeedsMore),
            },
            Self::Ndjson(parser) => match parser.next(input)? {
                Some(line) => (String::new(), line),
                None => return Ok(Parsed::NeedsMore),
            },
        };
        Ok(if event::is_done(&data) {
            Parsed::Done
        } else {
            Parsed::Event(event::to_object(&name, &data))
        })
    }

    /// Parses what the end of the body left. The last line of NDJSON may lack its line feed; an event of an
    /// event stream is incomplete without the blank line.
    fn finish(&mut self) -> Result<Parsed, Truncated> {
        let left = match self {
            Self::Sse(parser) => parser.take_unfinished().map(sse::to_text),
            Self::Ndjson(parser) => parser.take_unfinished(),
        };
        match (self, left) {
            (_, None) => Ok(Parsed::Done),
            (_, Some(data)) if event::is_done(&data) => Ok(Parsed::Done),
            (Self::Ndjson(_), Some(line)) if event::is_json(&line) => {
                Ok(Parsed::Event(event::to_object("", &line)))
            }
            _ => Err(Truncated),
        }
    }
}
