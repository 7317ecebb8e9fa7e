//! A WebSocket that is not the gateway's own code: fastwebsockets, in either role.

use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, WebSocket, WebSocketError};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::within;

/// Larger than any message of the tests.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// What the peer said.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Text(String),
    Binary(Vec<u8>),
    /// `None` = a close frame without a code.
    Closed(Option<u16>, String),
    /// The connection ended without a close frame.
    Lost,
}

/// Pings are answered and closes are echoed while reading.
pub struct Socket(FragmentCollector<TokioIo<Upgraded>>);

impl Socket {
    pub fn new(mut socket: WebSocket<TokioIo<Upgraded>>) -> Self {
        socket.set_max_message_size(MAX_MESSAGE_BYTES);
        Self(FragmentCollector::new(socket))
    }

    /// The next message or end. Pongs are passed over.
    pub async fn next(&mut self) -> Event {
        within("message from the peer", self.next_without_deadline()).await
    }

    /// As [`Socket::next`], for servers that wait for whatever a test does.
    pub async fn next_without_deadline(&mut self) -> Event {
        loop {
            let frame = match self.0.read_frame().await {
                Ok(frame) => frame,
                Err(WebSocketError::UnexpectedEOF | WebSocketError::IoError(_)) => {
                    return Event::Lost;
                }
                Err(error) => panic!("the peer broke the protocol: {error}"),
            };
            let payload = &*frame.payload;
            match frame.opcode {
                OpCode::Text => return Event::Text(String::from_utf8(payload.into()).unwrap()),
                OpCode::Binary => return Event::Binary(payload.into()),
                OpCode::Close => return closed(payload),
                OpCode::Ping | OpCode::Pong | OpCode::Continuation => {}
            }
        }
    }

    /// The next message, which must be text.
    pub async fn next_text(&mut self) -> String {
        match self.next().await {
            Event::Text(text) => text,
            other => panic!("expected text, got {other:?}"),
        }
    }

    /// The next message, which must be JSON.
    pub async fn next_json(&mut self) -> Value {
        let text = self.next_text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
    }

    /// The next message, which must be JSON with this `event`.
    pub async fn next_event(&mut self, name: &str) -> Value {
        let json = self.next_json().await;
        assert_eq!(json["event"], name, "{json}");
        json
    }

    /// Skips messages up to the close frame, and returns its code.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.next().await {
                Event::Text(_) | Event::Binary(_) => {}
                Event::Closed(code, _) => return code,
                Event::Lost => panic!("the connection ended without a close frame"),
            }
        }
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send(Frame::text(Payload::Owned(text.into()))).await;
    }

    pub async fn send_json(&mut self, value: &Value) {
        self.send_text(&value.to_string()).await;
    }

    pub async fn send_binary(&mut self, bytes: &[u8]) {
        self.send(Frame::binary(Payload::Owned(bytes.into()))).await;
    }

    pub async fn send_ping(&mut self, payload: &[u8]) {
        let payload = Payload::Owned(payload.into());
        self.send(Frame::new(true, OpCode::Ping, None, payload)).await;
    }

    /// Says goodbye; the peer's answer is read with [`Socket::closed`].
    pub async fn close(&mut self, code: u16, reason: &str) {
        self.send(Frame::close(code, reason.as_bytes())).await;
    }

    async fn send(&mut self, frame: Frame<'_>) {
        // Moved into an owned frame, so that it does not borrow from the caller across the await.
        let frame =
            Frame::new(frame.fin, frame.opcode, None, Payload::Owned(frame.payload.to_vec()));
        within("room to send", self.0.write_frame(frame)).await.expect("the peer takes a frame");
    }

    /// As the `send_…` functions, where the peer may be gone.
    pub async fn try_send(&mut self, event: Event) -> bool {
        let frame = match event {
            Event::Text(text) => Frame::text(Payload::Owned(text.into())),
            Event::Binary(bytes) => Frame::binary(Payload::Owned(bytes)),
            Event::Closed(code, reason) => Frame::close(code.unwrap_or(1000), reason.as_bytes()),
            Event::Lost => return false,
        };
        within("room to send", self.0.write_frame(frame)).await.is_ok()
    }
}

fn closed(payload: &[u8]) -> Event {
    match payload.split_first_chunk() {
        None => Event::Closed(None, String::new()),
        Some((code, reason)) => {
            let reason = String::from_utf8(reason.into()).expect("a reason in UTF-8");
            Event::Closed(Some(u16::from_be_bytes(*code)), reason)
        }
    }
}
