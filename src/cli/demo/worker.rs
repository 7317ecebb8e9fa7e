//! The demo's worker: an HTTP endpoint that replies to a message with a stream of server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::reply;
use super::responses::{Body, plain};

/// The pause between two words.
const WORD_INTERVAL: Duration = Duration::from_millis(40);

/// The largest request body: a message of 64 KiB, the gateway's limit, and the other fields.
const MAX_REQUEST_BYTES: usize = 256 * 1024;

/// Handles `POST /internal/chat/{conversation_id}`.
pub async fn answer<B>(request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !request.uri().path().starts_with("/internal/chat/") {
        return plain(StatusCode::NOT_FOUND, "not found\n");
    }
    if request.method() != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "POST only\n");
    }
    let body = Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect().await;
    let message = body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
    match message {
        Some(message) => stream_events(reply::events(&message)),
        None => plain(StatusCode::BAD_REQUEST, "not a message\n"),
    }
}

/// Sends the first event at once, then one per interval.
fn stream_events(events: Vec<String>) -> Response<Body> {
    let events = stream::unfold((events.into_iter(), false), async |(mut events, started)| {
        let event = events.next()?;
        if started {
            tokio::time::sleep(WORD_INTERVAL).await;
        }
        let frame = Frame::data(Bytes::from(format!("data: {event}\n\n")));
        Some((Ok::<_, Infallible>(frame), (events, true)))
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
