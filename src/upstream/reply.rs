//! A reply that an HTTP upstream streams as the body of its answer.

use std::fmt;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::Message;
use super::event::{self, MAX_EVENT_BYTES};
use super::gate::InFlightPermit;
use super::ndjson::LineParser;
use crate::protocol::ChannelName;
use crate::sse::{self, EventTooLarge, SseParser};
use crate::telemetry::upstreams::ReplyEnd;

/// Why a streaming reply ended before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBroken {
    /// The connection broke, or the body ended inside an event.
    Lost,
    /// An event over the bound, or longer than `max_reply`.
    Refused(&'static str),
}

/// A reply that streams. Dropping it gives up the request and its place in flight.
pub struct Reply {
    body: Incoming,
    format: Format,
    /// What came of the body and is not parsed yet: at most one read.
    input: Bytes,
    deadline: Instant,
    over: bool,
    in_flight: InFlightPermit,
    channel: ChannelName,
    task_id: Box<str>,
}

/// How the body is divided into events.
pub(super) enum Format {
    Sse(Box<SseParser>),
    Ndjson(LineParser),
}

/// What the parser found next.
enum Parsed {
    Event(Bytes),
    Done,
    NeedsMore,
}

impl Reply {
    pub(super) fn new(
        body: Incoming,
        format: Format,
        deadline: Instant,
        in_flight: InFlightPermit,
        message: &Message,
    ) -> Self {
        let (channel, task_id) = (message.channel.clone(), message.task_id.as_str().into());
        Self {
            body,
            format,
            input: Bytes::new(),
            deadline,
            over: false,
            in_flight,
            channel,
            task_id,
        }
    }

    /// The next event as one JSON object: an object with a string `event` as it is, anything else
    /// wrapped as `{"event":"chunk","chunk":…}`. `None` at the regular end, and ever after an end of
    /// any kind. Dropped halfway, it loses nothing.
    pub async fn next(&mut self) -> Option<Result<Bytes, ReplyBroken>> {
        while !self.over {
            match self.format.next(&mut self.input) {
                Ok(Parsed::Event(json)) => return Some(Ok(json)),
                Ok(Parsed::Done) => return self.end(ReplyEnd::Complete),
                Ok(Parsed::NeedsMore) => {}
                Err(EventTooLarge) => return self.end(ReplyEnd::TooLarge),
            }
            // A body that always has more ready is never waited for, so its deadline would not be seen.
            if Instant::now() >= self.deadline {
                return self.end(ReplyEnd::TooLong);
            }
            match timeout_at(self.deadline, self.body.frame()).await {
                Ok(Some(Ok(frame))) => self.input = frame.into_data().unwrap_or_default(),
                Ok(Some(Err(_))) => return self.end(ReplyEnd::Lost),
                Ok(None) => return self.at_eof(),
                Err(_) => return self.end(ReplyEnd::TooLong),
            }
        }
        None
    }

    /// Ends a reply whose last event has said that it is the last; what may still come is not read.
    pub fn finish(mut self) {
        if !self.over {
            self.end(ReplyEnd::Complete);
        }
    }

    /// Gives up a reply that nobody wants any more: the request is aborted.
    pub fn give_up(mut self) {
        if !self.over {
            self.end(ReplyEnd::GivenUp);
        }
    }

    fn at_eof(&mut self) -> Option<Result<Bytes, ReplyBroken>> {
        match self.format.at_eof() {
            Ok(Parsed::Event(json)) => {
                // The last event; the end itself is told by the next call.
                self.end(ReplyEnd::Complete);
                Some(Ok(json))
            }
            Ok(Parsed::Done | Parsed::NeedsMore) => self.end(ReplyEnd::Complete),
            Err(CutOff) => self.end(ReplyEnd::Lost),
        }
    }

    fn end(&mut self, end: ReplyEnd) -> Option<Result<Bytes, ReplyBroken>> {
        self.over = true;
        self.in_flight.metrics.reply_ended(&self.channel, &self.task_id, end);
        Some(Err(match end {
            ReplyEnd::Complete | ReplyEnd::GivenUp => return None,
            ReplyEnd::Lost => ReplyBroken::Lost,
            ReplyEnd::TooLarge => ReplyBroken::Refused("an event of the reply was too large"),
            ReplyEnd::TooLong => ReplyBroken::Refused("the reply took too long"),
        }))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("over", &self.over).finish_non_exhaustive()
    }
}

/// The body ended inside an event.
struct CutOff;

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
            Parsed::Event(event::object(&name, &data))
        })
    }

    /// The last line of NDJSON may lack its line feed; an event of an event stream ends with a blank
    /// line or not at all.
    fn at_eof(&mut self) -> Result<Parsed, CutOff> {
        let left = match self {
            Self::Sse(parser) => parser.take_unfinished().map(sse::to_text),
            Self::Ndjson(parser) => parser.take_unfinished(),
        };
        match (self, left) {
            (_, None) => Ok(Parsed::Done),
            (_, Some(data)) if event::is_done(&data) => Ok(Parsed::Done),
            (Self::Ndjson(_), Some(line)) if event::is_json(&line) => {
                Ok(Parsed::Event(event::object("", &line)))
            }
            _ => Err(CutOff),
        }
    }
}
