//! The gateway's answers where the HTTP library could not make a request of what a client sent.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::exchange::{Exchange, Fault};
use crate::protocol::HeadMistake;
use crate::socket::{ByteStream, linger_and_close};

/// How long a client has to take the answer, and to stop sending.
const LINGER: Duration = Duration::from_secs(1);
/// The most bytes that are discarded meanwhile.
const MAX_DISCARDED: usize = 256 * 1024;

/// What a client is told: the status, the text and its code.
pub(super) struct Answer(u16, &'static str, &'static str);

impl Answer {
    /// `None` = the client is not to get an answer.
    pub fn to(exchange: &Exchange, error: &hyper::Error) -> Option<Self> {
        match exchange.fault() {
            Some(Fault::HeadTimeout) => {
                return Some(Self(408, "timed out reading the request head", "timeout"));
            }
            Some(Fault::TooSlow | Fault::Gone) => return None,
            None => {}
        }
        Some(match exchange.library_error()? {
            431 => Self(431, "the request head is too large", "too_large"),
            414 => Self(414, "the request target is too long", "too_large"),
            // The library does not tell this from other malformed headers, but in its text.
            _ if error.to_string().contains("invalid transfer-encoding") => {
                let mistake = HeadMistake::TransferEncoding;
                let (status, text) = mistake.response();
                Self(status, text, mistake.label())
            }
            _ => {
                let (status, text) = HeadMistake::Syntax.response();
                Self(status, text, HeadMistake::Syntax.label())
            }
        })
    }

    /// Sends the answer and ends the connection, so that the client reads the answer and not a reset.
    pub async fn send(self, mut stream: ByteStream) {
        let Self(status, error, code) = self;
        let reason = hyper::StatusCode::from_u16(status).ok().and_then(|it| it.canonical_reason());
        let body = serde_json::json!({ "error": error, "code": code }).to_string();
        let answer = format!(
            "HTTP/1.1 {status} {}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            reason.unwrap_or_default(),
            body.len()
        );
        // A client that does not take the answer goes without it.
        if let Ok(Ok(())) = tokio::time::timeout(LINGER, stream.write_all(answer.as_bytes())).await
        {
            linger_and_close(stream, LINGER, MAX_DISCARDED).await;
        }
    }
}
