//! A message as a POST to an HTTP upstream, with retries where they cannot do harm.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, USER_AGENT};
use hyper::{Request, Response};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::time::{Instant, timeout_at};

use super::answer::{self, Answer};
use super::{Message, RelayError, payload, signature};
use crate::config;
use crate::http_client::{self, HttpClient, error_chain};
use crate::protocol::TemplateContext;
use crate::telemetry::upstreams::UpstreamMetrics;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const ACCEPTED: &str = "application/json, text/event-stream, application/x-ndjson";

/// What a header value cannot hold, and `%`, so that two texts never become the same value. What is
/// not ASCII is always encoded.
pub(super) const NOT_IN_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
/// In the part before a colon, the colon as well.
const NOT_BEFORE_COLON: &AsciiSet = &NOT_IN_HEADER.add(b':');

/// One message on its way to one upstream.
pub(super) struct Relay<'a> {
    pub client: &'a HttpClient,
    pub config: &'a config::HttpUpstream,
    pub metrics: &'a UpstreamMetrics,
    pub message: &'a Message,
    /// For the head, all attempts together, and for a body that is not streamed.
    pub deadline: Instant,
}

enum Attempt {
    Answered(Response<Incoming>),
    /// The upstream cannot have seen it.
    NotSent(String),
    /// It may have.
    Lost(String),
}

impl Relay<'_> {
    pub async fn run(&self) -> Answer {
        match self.attempts().await {
            Ok(response) => answer::read(response, self.deadline).await,
            Err(reason) => Answer::NotTaken(RelayError::Unavailable, reason),
        }
    }

    /// Asks until there is an answer that stands; `Err` says why there is none.
    async fn attempts(&self) -> Result<Response<Incoming>, String> {
        let body = Bytes::from(payload::json(self.message)?);
        let mut left = self.config.retries;
        loop {
            let reason = match self.attempt(body.clone()).await? {
                Attempt::Answered(response) => {
                    if left == 0 || !answer::is_worth_a_retry(response.status()) {
                        return Ok(response);
                    }
                    format!("answered {}", response.status())
                }
                Attempt::NotSent(reason) if left > 0 => reason,
                Attempt::NotSent(reason) | Attempt::Lost(reason) => return Err(reason),
            };
            left -= 1;
            if timeout_at(self.deadline, tokio::time::sleep(pause())).await.is_err() {
                return Err(format!("{reason}; no time left to try again"));
            }
            self.metrics.request_retried(self.message.log_fields(), &reason);
        }
    }

    async fn attempt(&self, body: Bytes) -> Result<Attempt, String> {
        let request = self.request(body)?;
        Ok(match timeout_at(self.deadline, self.client.request(request)).await {
            Ok(Ok(response)) => Attempt::Answered(response),
            Ok(Err(error)) if error.is_connect() || was_never_sent(&error) => {
                Attempt::NotSent(error_chain(&error))
            }
            Ok(Err(error)) => Attempt::Lost(error_chain(&error)),
            Err(_) => Attempt::Lost(super::NO_ANSWER.to_owned()),
        })
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
        let message = self.message;
        let mut request = Request::post(self.url())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, ACCEPTED)
            .header(USER_AGENT, http_client::USER_AGENT)
            .header(IDEMPOTENCY_KEY, idempotency_key(message))
            .header(X_REQUEST_ID, &message.task_id)
            .header(TRACEPARENT, message.trace.child());
        if let Some(secret) = &self.config.signing_secret {
            request = request.header(signature::HEADER, signature::sign(secret, &body));
        }
        request.body(Full::new(body)).map_err(|error| format!("no valid request: {error}"))
    }

    fn url(&self) -> String {
        let Message { params, user_id, channel, .. } = self.message;
        let user_id = super::user_in_template(user_id.as_ref());
        let context = TemplateContext { params, user_id, channel: Some(channel.as_str()) };
        self.config.url.fill_url(context)
    }
}

/// `<user or connection>:<message id>`: what a client sends twice under one id has one key.
fn idempotency_key(message: &Message) -> String {
    let sender = match &message.user_id {
        Some(user) => user.to_string(),
        None => message.connection_id.to_string(),
    };
    let sender = utf8_percent_encode(&sender, NOT_BEFORE_COLON);
    format!("{sender}:{}", utf8_percent_encode(&message.message_id, NOT_IN_HEADER))
}

/// 50 to 500 ms, so that clients of an upstream that restarts do not come back in step.
fn pause() -> Duration {
    let random = u64::from(getrandom::u32().unwrap_or_default());
    Duration::from_millis(50 + random % 451)
}

/// Whether the client gave up before it wrote a byte of the request: the connection closed first. A
/// reused connection it has replaced by itself; this is a fresh one.
fn was_never_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_canceled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt;

    /// As the client wraps it.
    #[derive(Debug)]
    struct Behind(hyper::Error);

    impl std::fmt::Display for Behind {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("client error")
        }
    }

    impl std::error::Error for Behind {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[tokio::test]
    async fn only_what_was_not_written_was_never_sent() {
        let request = || Request::new(Full::new(Bytes::new()));

        let (ours, theirs) = tokio::io::duplex(1024);
        let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        let asked = sender.send_request(request());
        drop((connection, theirs));
        assert!(was_never_sent(&Behind(asked.await.unwrap_err())));

        let (ours, mut theirs) = tokio::io::duplex(1024);
        let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        let asked = sender.send_request(request());
        let (_, asked, read) =
            tokio::join!(connection, asked, async move { theirs.read(&mut [0; 64]).await });
        assert!(read.unwrap() > 0, "it was written");
        assert!(!was_never_sent(&Behind(asked.unwrap_err())));
    }
}
