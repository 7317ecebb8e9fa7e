//! The worker behind the gateway: what any HTTP upstream does (docs/upstreams.md). It checks the
//! signature, since `/internal/…` can be reached through the proxy as well, and answers with an event
//! stream that the gateway publishes to the conversation.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::app::{Body, problem};
use super::reply::{self, Step};
use crate::config::Secret;

/// The gateway's `max_message_bytes`, with room for the facts around it.
const MAX_REQUEST_BYTES: usize = 256 * 1024;
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// How old a signature may be, and how far ahead of our clock.
const SIGNATURE_SECONDS: u64 = 5 * 60;

pub struct Worker {
    signing_secret: Secret,
}

/// What the demo reads of a relayed message.
#[derive(Deserialize)]
struct Relayed {
    message: String,
    user: Option<User>,
    message_id: String,
    task_id: String,
}

#[derive(Deserialize)]
struct User {
    id: Value,
    name: Option<String>,
}

impl Worker {
    pub fn new(signing_secret: Secret) -> Self {
        Self { signing_secret }
    }

    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let whole = Limited::new(body, MAX_REQUEST_BYTES).collect();
        let body = match tokio::time::timeout(REQUEST_DEADLINE, whole).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => {
                return problem(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large");
            }
            Err(_) => {
                return problem(StatusCode::REQUEST_TIMEOUT, "the request did not come whole");
            }
        };
        let signature = head.headers.get("x-tidegate-signature").and_then(|v| v.to_str().ok());
        if !signature.is_some_and(|signature| self.has_signed(signature, &body)) {
            return problem(StatusCode::FORBIDDEN, "not signed by the gateway");
        }
        match serde_json::from_slice::<Relayed>(&body) {
            Ok(relayed) if relayed.message == "/reject" => {
                problem(StatusCode::UNPROCESSABLE_ENTITY, "this worker rejects /reject")
            }
            Ok(relayed) => event_stream(&relayed),
            Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
        }
    }

    /// `t=<unix seconds>,v1=<hex>`: HMAC-SHA256 over `<unix seconds>.<body>`, made a short while ago.
    fn has_signed(&self, signature: &str, body: &[u8]) -> bool {
        let parts = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1="));
        let Some((time, given)) = parts else { return false };
        let (Ok(at), Some(given)) = (time.parse::<u64>(), unhex(given)) else { return false };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let secret = self.signing_secret.expose().as_bytes();
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
        mac.update(time.as_bytes());
        mac.update(b".");
        mac.update(body);
        now.abs_diff(at) <= SIGNATURE_SECONDS && mac.verify_slice(&given).is_ok()
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Says who asked what, so that every tab of the conversation shows it; then the reply, word by word.
/// Each event carries its `task_id`, which the gateway leaves as it is.
fn event_stream(relayed: &Relayed) -> Response<Body> {
    let name = match &relayed.user {
        Some(User { name: Some(name), .. }) => name.clone(),
        Some(User { id: Value::String(id), .. }) => id.clone(),
        Some(User { id, .. }) => id.to_string(),
        None => "stranger".to_owned(),
    };
    let task_id = relayed.task_id.clone();
    let asked = json!({
        "event": "message",
        "task_id": &task_id,
        "message_id": relayed.message_id,
        "from": name,
        "text": relayed.message,
    });
    let mut steps = reply::to(&relayed.message, &name).into_iter();
    let mut pending = Some(asked);
    let events = stream::unfold((), move |()| {
        let next = match pending.take() {
            Some(asked) => Some(Ok((asked, Duration::ZERO))),
            None => steps.next().map(|step| match step {
                Step::Word { text, pause } => {
                    Ok((json!({"event": "chunk", "task_id": &task_id, "chunk": text}), pause))
                }
                Step::End => {
                    Ok((json!({"event": "complete", "task_id": &task_id}), Duration::ZERO))
                }
                // The connection breaks in the middle of the reply, as if the process had died.
                Step::Die => Err(io::Error::other("asked to die")),
            }),
        };
        async move {
            match next? {
                Ok((event, pause)) => {
                    tokio::time::sleep(pause).await;
                    let frame = Frame::data(Bytes::from(format!("data: {event}\n\n")));
                    Some((Ok(frame), ()))
                }
                Err(error) => Some((Err(error), ())),
            }
        }
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(events)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> Worker {
        Worker::new(Secret::new("secret"))
    }

    fn sign(at: u64, body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
        mac.update(format!("{at}.{body}").as_bytes());
        let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        format!("t={at},v1={hex}")
    }

    #[test]
    fn only_fresh_signatures_of_this_body_count() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(worker().has_signed(&sign(now, "body"), b"body"));
        let good = sign(now, "body");
        for wrong in [
            sign(now, "other"),
            sign(now - 2 * SIGNATURE_SECONDS, "body"),
            sign(now + 2 * SIGNATURE_SECONDS, "body"),
            good.replace("t=", "t=1"),
            good.replace("v1=", "v1=zz"),
            good.replace(",v1=", ",v0="),
            format!("{good}0"),
            good[..good.len() - 2].to_owned(),
            String::new(),
            "t=,v1=".to_owned(),
            "t=1,v1=\u{e9}".to_owned(),
        ] {
            assert!(!worker().has_signed(&wrong, b"body"), "{wrong}");
        }
    }

    async fn events(message: &str) -> (Vec<Value>, bool) {
        let relayed = Relayed {
            message: message.to_owned(),
            user: Some(User { id: json!(7), name: None }),
            message_id: "m-1".to_owned(),
            task_id: "t-1".to_owned(),
        };
        let mut body = event_stream(&relayed).into_body();
        let mut events = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return (events, true) };
            let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
            let json = text.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
            events.push(serde_json::from_str(json).unwrap());
        }
        (events, false)
    }

    #[tokio::test]
    async fn a_reply_names_its_task_and_ends_once() {
        let (events, broke) = events("/count 3").await;
        assert!(!broke);
        assert_eq!(events[0]["event"], "message");
        assert_eq!(events[0]["from"], "7");
        assert_eq!(events[0]["message_id"], "m-1");
        assert!(events.iter().all(|event| event["task_id"] == "t-1"));
        let ends = events.iter().filter(|event| event["event"] == "complete").count();
        assert_eq!((ends, &events[events.len() - 1]["event"]), (1, &json!("complete")));
    }

    #[tokio::test]
    async fn a_worker_that_dies_breaks_off() {
        let (events, broke) = events("/die").await;
        assert!(broke && events.len() > 2, "{events:?}");
        assert!(events.iter().all(|event| event["event"] != "complete"));
    }
}
