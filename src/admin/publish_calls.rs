//! Serves the calls of `POST /v1/publish` with which a connection begins, until something else comes.
//!
//! Calls that have arrived together are answered in one write. A call that is slow, large or unusual ends this phase, and
//! the HTTP library goes on with the bytes that were read.

use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connection::{Caller, Connection, HEADER_TIMEOUT};
use super::open_connections::{Call, OpenConnections};
use super::publish_call::{Front, MAX_CALL_BYTES, front};
use super::stream::Stream;
use super::{Admin, Answer, REQUESTS_IN_A_ROW, api};
use crate::clock;
use crate::telemetry;
use crate::telemetry::admin::Call as ApiCall;
use crate::telemetry::connections::HttpError;

/// The least room for a read.
const READ_BYTES: usize = 4 * 1024;

/// A call that comes in more pieces is left to the library, which does not parse the beginning anew with each.
const MAX_PIECES: u32 = 8;

/// How long a client may take nothing of its answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The head of the answer to a call that has published, up to the length of the body.
const PUBLISHED_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                              cache-control: no-store\r\ncontent-length: ";

/// A call with a valid key.
struct ReadCall {
    body: Bytes,
    key: usize,
    counted: Call,
}

/// The answers that are not written yet.
#[derive(Default)]
struct Answers {
    bytes: Vec<u8>,
    /// The `Date` of this second.
    date: String,
    second: u64,
}

/// What is at the front of the bytes that were read.
enum Next {
    Call(ReadCall),
    Partial { length: usize, has_head: bool },
    Other,
}

impl Admin {
    /// Serves calls until something else comes. Returns what was read of it; `None` if the connection has ended.
    pub(super) async fn serve_publish_calls(
        &self,
        stream: &mut Stream,
        connection: &Connection,
        connections: &OpenConnections,
    ) -> Option<Bytes> {
        let mut input = BytesMut::new();
        let mut answers = Answers::default();
        let mut since = Instant::now();
        let mut idle = pin!(tokio::time::sleep(HEADER_TIMEOUT));
        let mut pieces = 0;
        loop {
            let (length, has_head) = match self.next_call(&mut input, connections) {
                Next::Call(call) => {
                    pieces = 0;
                    self.answer_call(call, connection, &mut answers).await;
                    if answers.bytes.len() >= MAX_CALL_BYTES {
                        answers.write(stream).await?;
                    }
                    continue;
                }
                Next::Partial { length, has_head } if pieces < MAX_PIECES => (length, has_head),
                Next::Partial { .. } | Next::Other => {
                    answers.write(stream).await?;
                    return Some(input.freeze());
                }
            };
            answers.write(stream).await?;
            if pieces == 0 {
                since = Instant::now();
            }
            input.reserve(length.saturating_sub(input.len()).max(READ_BYTES));
            let read = tokio::select! {
                biased;
                read = stream.read_buf(&mut input) => read,
                () = &mut idle => {
                    let left = HEADER_TIMEOUT.saturating_sub(since.elapsed());
                    if !left.is_zero() {
                        idle.as_mut().reset(tokio::time::Instant::now() + left);
                        continue;
                    }
                    if has_head {
                        return Some(input.freeze());
                    }
                    telemetry::connections::http_ended(HttpError::Timeout);
                    return None;
                }
            };
            match read {
                Ok(0) if input.is_empty() => return None,
                // The library knows what to do about a call that ends early.
                Ok(0) => return Some(input.freeze()),
                Ok(_) => pieces += 1,
                Err(_) => {
                    telemetry::connections::http_ended(HttpError::Broken);
                    return None;
                }
            }
        }
    }

    /// Takes a complete call out of `input`. One that may not publish is left to the library, which refuses it.
    fn next_call(&self, input: &mut BytesMut, connections: &OpenConnections) -> Next {
        if input.is_empty() {
            return Next::Partial { length: 0, has_head: false };
        }
        let call = match front(input) {
            Front::Call(call) => call,
            Front::Partial { length, has_head } => return Next::Partial { length, has_head },
            Front::Other => return Next::Other,
        };
        let given = api::given_key(call.authorization, call.api_key);
        let key = api::find_key(given, &self.config.load().admin.api_keys);
        let body = call.body;
        let Some((key, counted)) = key.zip(connections.begin_call()) else { return Next::Other };
        let body = input.split_to(body.end).freeze().slice(body);
        Next::Call(ReadCall { body, key, counted })
    }

    async fn answer_call(&self, call: ReadCall, connection: &Connection, answers: &mut Answers) {
        let ReadCall { body, key, counted } = call;
        connection.used.set(Instant::now());
        connection.has_key.set(true);
        *connection.call.borrow_mut() = Some(counted);
        let in_a_row = connection.requests_in_a_row.get() + 1;
        connection.requests_in_a_row.set(in_a_row % REQUESTS_IN_A_ROW);
        if in_a_row == REQUESTS_IN_A_ROW {
            // This thread also delivers publications.
            tokio::task::yield_now().await;
        }
        let answer = self.publish_body(body, &Caller { connection, key }).await;
        connection.call.borrow_mut().take();
        let status = answer.as_ref().map_or_else(|refusal| refusal.status().as_u16(), |_| 200);
        telemetry::admin::api_called(ApiCall::Publish, status, connection.address);
        match answer {
            Ok(json) => answers.add_published(&json),
            Err(refusal) => answers.add(refusal).await,
        }
    }
}

impl Answers {
    fn add_published(&mut self, json: &str) {
        self.bytes.extend_from_slice(PUBLISHED_HEAD.as_bytes());
        self.add_body(json.as_bytes());
    }

    async fn add(&mut self, answer: Answer) {
        let (head, body) = answer.into_parts();
        let status = head.status;
        let reason = status.canonical_reason().unwrap_or_default();
        self.bytes
            .extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
        for (name, value) in &head.headers {
            let header = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
            header.iter().for_each(|part| self.bytes.extend_from_slice(part));
        }
        self.bytes.extend_from_slice(b"content-length: ");
        let Ok(body) = body.collect().await;
        self.add_body(&body.to_bytes());
    }

    /// Adds the length of a body, the end of the head and the body.
    fn add_body(&mut self, body: &[u8]) {
        let second = clock::unix_seconds();
        if self.second != second {
            self.second = second;
            self.date = httpdate::fmt_http_date(std::time::SystemTime::now());
        }
        self.bytes.extend_from_slice(body.len().to_string().as_bytes());
        let parts = [b"\r\ndate: ", self.date.as_bytes(), b"\r\n\r\n", body];
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
    }

    /// Writes all answers; `None` if the client does not take them.
    async fn write(&mut self, stream: &mut Stream) -> Option<()> {
        if self.bytes.is_empty() {
            return Some(());
        }
        let written = match stream {
            Stream::Tcp(tcp) => match tcp.try_write(&self.bytes) {
                Ok(written) => written,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                Err(_) => return None,
            },
            Stream::Tls(_) => 0,
        };
        if written < self.bytes.len() {
            let rest = async {
                stream.write_all(&self.bytes[written..]).await?;
                stream.flush().await
            };
            tokio::time::timeout(ANSWER_TIMEOUT, rest).await.ok()?.ok()?;
        }
        self.bytes.clear();
        self.bytes.shrink_to(READ_BYTES);
        Some(())
    }
}

#[cfg(test)]
mod tests;
