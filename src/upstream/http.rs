//! Relays a message as a request to an HTTP upstream, with retries where they cannot cause duplicates.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use hyper::{Request, Response, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::time::{Instant, timeout_at};

use super::gate::PendingRequest;
use super::message::user_in_template;
use super::response::{self, RelayResponse};
use super::{Message, NO_RESPONSE, RelayError, payload, signature, template};
use crate::config::{self, RequestBody};
use crate::http_client::{self, ExchangeClient, FailedRequest, Failure, ResponseBody, error_chain};
use crate::protocol::{Template, UnfitForUrl, UrlValue};
use crate::telemetry::upstreams::UpstreamMetrics;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The most headers that each request has.
const HEADERS: usize = 9;

const ACCEPTED: &str = "application/json, text/event-stream, application/x-ndjson";

/// The characters that are encoded in header values: those that are not allowed there, and `%`, so that two
/// texts never become the same value. Non-ASCII characters are always encoded.
pub(super) const NOT_IN_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
/// The same for the part before a colon, where the colon is encoded as well.
const NOT_BEFORE_COLON: &AsciiSet = &NOT_IN_HEADER.add(b':');

/// The relaying of one message to one upstream.
pub(super) struct Relay<'a> {
    pub client: &'a ExchangeClient,
    pub config: &'a config::HttpUpstream,
    pub metrics: &'a UpstreamMetrics,
    pub message: &'a Message,
    /// The URL of each replica.
    pub urls: Vec<Uri>,
    /// The body of each attempt; empty if the method has none.
    pub body: Bytes,
    /// The deadline of the response head (for all attempts together) and of a body that is not streamed.
    pub deadline: Instant,
}

enum Attempt {
    Answered(Response<ResponseBody>),
    /// The upstream cannot have received the request; the text says why.
    NotSent(String),
    /// The upstream may have received the request; the text says what went wrong.
    Lost(String),
    /// There is no answer in time, or none that can be read; the text says why.
    NoAnswer(RelayError, String),
}

impl Relay<'_> {
    pub async fn run(&self, pending: &mut PendingRequest<'_>) -> RelayResponse {
        match self.send_with_retries(pending).await {
            Ok(response) => {
                let dialect = self.config.dialect;
                response::read(response, dialect, self.deadline, self.metrics).await
            }
            Err((error, reason)) => RelayResponse::Refused(error, reason),
        }
    }

    /// Sends the request until there is a final response; `Err` says why there is none.
    async fn send_with_retries(
        &self,
        pending: &mut PendingRequest<'_>,
    ) -> Result<Response<ResponseBody>, (RelayError, String)> {
        let unavailable = |reason| (RelayError::Unavailable, reason);
        let mut retries_left = self.config.retries;
        loop {
            let sent = self.send(pending.replica()).await.map_err(unavailable)?;
            let (error, reason) = match sent {
                Attempt::Answered(response) => {
                    if retries_left == 0 || !response::is_retryable(response.status()) {
                        return Ok(response);
                    }
                    (RelayError::Unavailable, format!("answered {}", response.status()))
                }
                // Another replica can be tried at once.
                Attempt::NotSent(reason)
                    if pending.try_another(&RelayError::Unreachable, &reason) =>
                {
                    continue;
                }
                Attempt::NotSent(reason) if retries_left > 0 => (RelayError::Unreachable, reason),
                Attempt::NotSent(reason) => return Err((RelayError::Unreachable, reason)),
                Attempt::Lost(reason) => return Err(unavailable(reason)),
                Attempt::NoAnswer(error, reason) => return Err((error, reason)),
            };
            retries_left -= 1;
            if timeout_at(self.deadline, tokio::time::sleep(retry_delay())).await.is_err() {
                return Err(unavailable(format!("{reason}; no time left for a retry")));
            }
            self.metrics.request_retried(self.message.log_fields(), &reason);
            // Without another one it goes to the same again.
            pending.try_another(&error, &reason);
        }
    }

    async fn send(&self, replica: usize) -> Result<Attempt, String> {
        let sending = self.client.request(self.request(replica)?);
        let sent = match timeout_at(self.deadline, sending).await {
            // The upstream closed an idle connection as the request was sent. If it has received the request all the
            // same, it knows it by its idempotency key.
            Ok(Err(error)) if error.was_closed_while_idle() => {
                self.metrics.request_retried(self.message.log_fields(), &error_chain(&error));
                let again = self.client.request_on_new_connection(self.request(replica)?);
                timeout_at(self.deadline, Box::pin(again)).await
            }
            sent => sent,
        };
        Ok(match sent {
            Ok(Ok(response)) => Attempt::Answered(response),
            Ok(Err(error)) if error.is_connect() || was_never_sent(&error) => {
                Attempt::NotSent(error_chain(&error))
            }
            Ok(Err(error)) => match bad_answer(&error) {
                Some(bad) => Attempt::NoAnswer(bad, describe(&error)),
                None => Attempt::Lost(describe(&error)),
            },
            Err(_) => Attempt::NoAnswer(RelayError::TimedOut, NO_RESPONSE.to_owned()),
        })
    }

    fn request(&self, replica: usize) -> Result<Request<Full<Bytes>>, String> {
        let (message, config) = (self.message, &self.config.request);
        let value = |text: String| {
            HeaderValue::try_from(text).map_err(|error| format!("invalid request: {error}"))
        };
        // Room for all that follow, and for `Host`.
        let mut headers = HeaderMap::with_capacity(HEADERS + config.headers.len());
        headers.insert(IDEMPOTENCY_KEY, value(idempotency_key(message))?);
        headers.insert(X_REQUEST_ID, value(message.task_id.clone())?);
        headers.insert(TRACEPARENT, value(message.trace.child())?);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(secret) = &self.config.signing_secret {
            headers.insert(signature::HEADER, value(signature::sign(secret, &self.body))?);
        }
        // Those of the configuration and of the client take the place of these.
        headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        headers.insert(USER_AGENT, HeaderValue::from_static(http_client::USER_AGENT));
        if config.has_body() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in &config.headers {
            headers.insert(name, value.clone());
        }
        if let Some(forwarded) = &message.forwarded {
            forwarded.add_to(&config.forward, &mut headers);
        }
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = config.method.clone();
        *request.uri_mut() = self.urls[replica].clone();
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Returns the URL of a replica for a message. Names of the path come first, then what is known of the message. `Err`
/// tells the client why there is none.
pub(super) fn url(template: &Template, message: &Message) -> Result<Uri, &'static str> {
    let url = template.fill_url_from(&message.params, |name| match name {
        "user_id" => UrlValue::Name(user_in_template(message.user_id.as_ref()).to_string().into()),
        "channel" => UrlValue::Name(message.channel.as_str().into()),
        name => match (message.params.get(name), name) {
            (Some(value), _) => UrlValue::Name(value.into()),
            (None, "message") => UrlValue::Text((&*message.text).into()),
            (None, "username") => {
                UrlValue::Text(message.username.as_deref().unwrap_or_default().into())
            }
            (None, "connection_id") => UrlValue::Name(message.connection_id.to_string().into()),
            (None, "message_id") => UrlValue::Text((&*message.message_id).into()),
            (None, "task_id") => UrlValue::Name((&*message.task_id).into()),
            (None, _) => UrlValue::Name("".into()),
        },
    });
    let url = url.map_err(|UnfitForUrl| super::UNFIT_FOR_URL)?;
    url.try_into().map_err(|_| "the message is too long for the URL of the service")
}

/// Returns the body for a message. `Err` tells the client why there is none.
pub(super) fn body(config: &config::HttpRequest, message: &Message) -> Result<Bytes, String> {
    if !config.has_body() {
        return Ok(Bytes::new());
    }
    Ok(match &config.body {
        RequestBody::Envelope => payload::json(message)?.into(),
        RequestBody::Data => Bytes::copy_from_slice(message.data.get().as_bytes()),
        RequestBody::Template(template) => template::fill_body(template, message)?.into(),
    })
}

/// Returns `<user or connection>:<message id>`, which is the same when a client sends a message again.
fn idempotency_key(message: &Message) -> String {
    let mut key = String::with_capacity(32 + ":".len() + message.message_id.len());
    match &message.user_id {
        Some(user) => key.extend(utf8_percent_encode(&user.to_string(), NOT_BEFORE_COLON)),
        // Hex digits need no encoding.
        None => message.connection_id.bits().with_hex(|digits| key.push_str(digits)),
    }
    key.push(':');
    key.extend(utf8_percent_encode(&message.message_id, NOT_IN_HEADER));
    key
}

/// Returns a random delay of 50 to 500 ms, so that retries after a restart of the upstream are spread out.
fn retry_delay() -> Duration {
    let random = u64::from(getrandom::u32().unwrap_or_default());
    Duration::from_millis(50 + random % 451)
}

/// Returns what is wrong with an answer; `None` = there was none.
pub(super) fn bad_answer(error: &impl FailedRequest) -> Option<RelayError> {
    match error.failure() {
        Failure::HeadTooLarge => Some(RelayError::HeadTooLarge),
        Failure::Malformed => Some(RelayError::Malformed),
        Failure::Lost | Failure::Unreachable => None,
    }
}

/// Returns the reason for the log. It says first what is wrong with an answer.
pub(super) fn describe(error: &impl FailedRequest) -> String {
    let what = match error.failure() {
        Failure::HeadTooLarge => "the head of its answer is too large",
        Failure::Malformed => "its answer is not HTTP/1.1",
        Failure::Lost => "the connection was lost before it answered",
        Failure::Unreachable => "cannot be reached",
    };
    format!("{what}: {}", error_chain(error))
}

/// Whether the connection closed before the client wrote a byte of the request. On a reused connection the
/// client retries by itself, so that this was a new one.
fn was_never_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_canceled)
}

#[cfg(test)]
mod tests;
