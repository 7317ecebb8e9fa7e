//! A WebSocket of fastwebsockets, as client or server. It shares no code with the gateway.

use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, WebSocket, WebSocketError};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::within;

/// The largest message in bytes; no test sends a larger one.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A message or an end that was received from the peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Text(String),
    Binary(Vec<u8>),
    /// A close frame; the code is `None` if it has none.
    Closed(Option<u16>, String),
    /// The connection ended without a close frame.
    Lost,
}

/// A connection that answers pings and echoes close frames while it is read.
pub struct Socket(FragmentCollector<TokioIo<Upgraded>>);

impl Socket {
    pub fn new(mut socket: WebSocket<TokioIo<Upgraded>>) -> Self {
        socket.set_max_message_size(MAX_MESSAGE_BYTES);
        Self(FragmentCollector::new(socket))
    }

    /// Waits for the next message or end and skips pongs.
    pub async fn next(&mut self) -> Event {
        within("message from the peer", self.next_without_deadline()).await
    }

    /// Like [`Socket::next`], for servers that wait for as long as a test takes.
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

    /// Waits for the next message, which must be text.
    pub async fn next_text(&mut self) -> String {
        match self.next().await {
            Event::Text(text) => text,
            other => panic!("expected text, got {other:?}"),
        }
    }

    /// Waits for the next message, which must be JSON.
    pub async fn next_json(&mut self) -> Value {
        let text = self.next_text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
    }

    /// Waits for the next message, which must be JSON with the event called `name`.
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

    /// Sends a close frame; the peer's answer is read with [`Socket::closed`].
    pub async fn close(&mut self, code: u16, reason: &str) {
        self.send(Frame::close(code, reason.as_bytes())).await;
    }

    async fn send(&mut self, frame: Frame<'_>) {
        // Moved into an owned frame, so that it does not borrow from the caller across the await.
        let frame =
            Frame::new(frame.fin, frame.opcode, None, Payload::Owned(frame.payload.to_vec()));
        within("room to send", self.0.write_frame(frame)).await.expect("the peer takes a frame");
    }

    /// Like the `send_…` functions, for a peer that may have closed the connection.
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
