//! The stream of events of a channel, and why it ends.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::cli::server_api::ApiError;
use crate::sse::{SseEvent, SseParser};

/// A stream that is silent for this long is lost: the server sends a comment every 15 s.
const STREAM_TIMEOUT: Duration = Duration::from_secs(45);

/// The largest event: above the largest publication that a gateway can be configured for.
const MAX_EVENT_BYTES: usize = 1100 << 20;

/// Why a stream ended.
pub enum StreamEnd {
    /// The requested number was printed, or the output was closed.
    Finished,
    /// The stream was lost; a later attempt may succeed.
    Lost(String),
    /// The stream failed; a later attempt would fail as well.
    Failed(String),
}

impl From<ApiError> for StreamEnd {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Unavailable(reason) => Self::Lost(reason),
            ApiError::Rejected(_, reason) => Self::Failed(reason),
        }
    }
}

/// The body of a response with events.
pub struct EventStream {
    body: Incoming,
    /// The part of the body that has arrived and is not parsed yet.
    input: Bytes,
    parser: SseParser,
}

impl EventStream {
    pub fn new(body: Incoming) -> Self {
        Self { body, input: Bytes::new(), parser: SseParser::new(MAX_EVENT_BYTES) }
    }

    /// The next event.
    pub async fn next(&mut self) -> Result<SseEvent, StreamEnd> {
        let lost = |reason: &str| StreamEnd::Lost(reason.to_owned());
        loop {
            if let Some(event) = self.parser.next(&mut self.input).map_err(|_| invalid_stream())? {
                return Ok(event);
            }
            match tokio::time::timeout(STREAM_TIMEOUT, self.body.frame()).await {
                Err(_) => return Err(lost("the stream timed out")),
                Ok(None) => return Err(lost("the stream ended")),
                Ok(Some(Err(error))) => {
                    return Err(StreamEnd::Lost(format!("the stream failed: {error}")));
                }
                Ok(Some(Ok(frame))) => self.input = frame.into_data().unwrap_or_default(),
            }
        }
    }
}

pub fn invalid_stream() -> StreamEnd {
    StreamEnd::Failed("not a valid event stream".to_owned())
}
