//! `GET /v1/channels/{channel}/tail`: what is published to a channel from now on, as server-sent events.
//!
//! A reader that is slower than the channel is disconnected, and gets the reason if it still reads. The
//! stream ends when the node begins to drain.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};
use tokio::time::{Interval, MissedTickBehavior};

use super::body::Body;
use super::code::Code;
use super::connection::Caller;
use super::{Admin, Answer, api};
use crate::broker::{Tail, TailEnd, TailEvent, TooManyTails};
use crate::protocol::{ChannelName, label_enum};
use crate::socket::{Delivery, frame};

/// For the engine to confirm that this node receives the channel.
const LIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval of comments, so that proxies and readers know that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const COMMENT: &[u8] = b": \n\n";

/// A part of the body is sent once it has this many bytes.
const PART_BYTES: usize = 64 * 1024;

label_enum! {
    /// The `reason` of the `end` event, the last event of the stream.
    pub enum EndReason {
        /// The reader was slower than the channel.
        TooSlow => "too_slow",
        /// Redis refused the subscription.
        Refused => "refused",
        /// This node is stopping.
        Draining => "draining",
    }
}

impl Admin {
    /// Answers once this node receives what is published to the channel.
    pub(super) async fn tail(
        &self,
        channel: &str,
        request: Request<Incoming>,
        caller: &Caller<'_>,
    ) -> Result<Answer, Answer> {
        let channel = self.open_channel(channel)?;
        api::Query::of(&request)?.finish(&[])?;
        let mut answer = Response::new(Body::from(""));
        if request.method() != Method::HEAD {
            let mut stream = self.open_tail(&channel, caller).await?;
            *answer.body_mut() = Body::Stream(Box::new(move |cx| stream.poll_part(cx)));
        }
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(answer)
    }

    async fn open_tail(
        &self,
        channel: &ChannelName,
        caller: &Caller<'_>,
    ) -> Result<TailStream, Answer> {
        if self.shutdown.is_draining() {
            let message = "this node is stopping";
            return Err(api::error(Code::Draining, message));
        }
        caller.hold_process(&self.shutdown);
        let tail = self.tails.open(channel, caller.connection.too_slow.clone());
        let mut tail = tail.map_err(|TooManyTails| {
            let message = "too many tails of this node are open";
            api::error(Code::TooManyTails, message)
        })?;
        let live = async {
            loop {
                match tail.next().await {
                    Some(TailEvent::Live) => return true,
                    Some(TailEvent::End(_)) | None => return false,
                    Some(_) => {}
                }
            }
        };
        match tokio::time::timeout(LIVE_TIMEOUT, live).await {
            Ok(true) => {}
            Ok(false) => {
                let message = "the engine does not let this node subscribe to the channel";
                return Err(api::error(Code::EngineDown, message));
            }
            Err(_) => return Err(api::engine_down()),
        }
        let live = serde_json::json!({
            "channel": channel.as_str(),
            "history": self.history.keeps(channel),
            "node": self.control.node(),
        });
        let mut keep_alive = tokio::time::interval(KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        keep_alive.reset();
        let shutdown = self.shutdown.clone();
        Ok(TailStream {
            tail: Some(tail),
            first: Some(named_event("live", live.to_string().as_bytes())),
            keep_alive,
            draining: Box::pin(async move { shutdown.draining().await }),
        })
    }
}

/// The stream of one tail.
struct TailStream {
    /// `None` once the last event has been sent.
    tail: Option<Tail>,
    first: Option<Bytes>,
    keep_alive: Interval,
    draining: Pin<Box<dyn Future<Output = ()>>>,
}

impl TailStream {
    /// The next part of the stream; `None` ends it.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(tail) = &mut self.tail else { return Poll::Ready(None) };
        let mut part = BytesMut::new();
        part.extend(self.first.take());
        while part.len() < PART_BYTES
            && let Poll::Ready(event) = tail.poll_next(cx)
        {
            match event {
                // The stream began with it. It comes again after a gap, or when another tail begins.
                Some(TailEvent::Live) => {}
                Some(TailEvent::Publication(delivery)) => write_publication(&mut part, &delivery),
                Some(TailEvent::Gap) => {
                    part.extend_from_slice(&named_event("gap", br#"{"missed":"unknown"}"#));
                }
                Some(TailEvent::End(TailEnd::TooSlow)) | None => {
                    return self.end(part, EndReason::TooSlow);
                }
                Some(TailEvent::End(TailEnd::Refused)) => {
                    return self.end(part, EndReason::Refused);
                }
            }
        }
        if self.draining.as_mut().poll(cx).is_ready() {
            return self.end(part, EndReason::Draining);
        }
        if self.keep_alive.poll_tick(cx).is_ready() && part.is_empty() {
            part.extend_from_slice(COMMENT);
        }
        if part.is_empty() { Poll::Pending } else { Poll::Ready(Some(part.freeze())) }
    }

    fn end(&mut self, mut part: BytesMut, reason: EndReason) -> Poll<Option<Bytes>> {
        self.tail = None;
        let data = serde_json::json!({ "reason": reason }).to_string();
        part.extend_from_slice(&named_event("end", data.as_bytes()));
        Poll::Ready(Some(part.freeze()))
    }
}

fn named_event(event: &str, data: &[u8]) -> Bytes {
    let mut text = BytesMut::new();
    text.put_slice(b"event: ");
    text.put_slice(event.as_bytes());
    text.put_slice(b"\n");
    write_data(&mut text, data);
    text.freeze()
}

/// Writes the publication as an event without a name, as clients get it. Binary data become a `binary`
/// event in Base64.
fn write_publication(out: &mut BytesMut, delivery: &Delivery) {
    let payload = frame::payload(&delivery.frame);
    if let Some(position) = delivery.position {
        out.put_slice(format!("id: {}\n", position.offset).as_bytes());
    }
    if std::str::from_utf8(payload).is_ok() {
        write_data(out, payload);
    } else {
        out.put_slice(b"event: binary\n");
        write_data(out, BASE64_STANDARD.encode(payload).as_bytes());
    }
}

/// Writes a `data:` line for each line of `data`, and the end of the event. JSON has line ends only
/// between its tokens, so joining the lines gives the same value.
fn write_data(out: &mut BytesMut, data: &[u8]) {
    let mut rest = data;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        out.put_slice(b"data: ");
        out.put_slice(&rest[..end.unwrap_or(rest.len())]);
        out.put_slice(b"\n");
        match end {
            Some(end) if rest[end..].starts_with(b"\r\n") => rest = &rest[end + 2..],
            Some(end) => rest = &rest[end + 1..],
            None => break,
        }
    }
    out.put_slice(b"\n");
}

#[cfg(test)]
mod tests;
