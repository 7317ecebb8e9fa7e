//! The task that owns an upstream socket and moves its frames.
//!
//! Reading and writing are two futures of one task. Invariant: the reading future, which is not safe
//! to drop between two bytes of a frame, is dropped only when nothing is read any more.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fastwebsockets::{CloseCode, Frame, OpCode, Payload, Role, WebSocket, WebSocketError};
use tokio::io::{Empty, Join, ReadHalf, Sink, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::gate::InFlightPermit;
use super::websocket::{FromUpstream, SocketMessage, Stream};

/// How long the upstream has to answer our close frame, or we to answer its.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Frames that answer the upstream's pings, or its close; more are not kept.
const ANSWERS: usize = 4;

/// Control frames may be this long on any route (RFC 6455 section 5.5).
const MAX_CONTROL_BYTES: usize = 125;
/// Of a close frame's reason: its code takes two bytes.
const MAX_REASON_BYTES: usize = MAX_CONTROL_BYTES - 2;

/// What the session sends; the channel hears when it is written.
pub(super) enum Outgoing {
    Message(SocketMessage, oneshot::Sender<()>),
    Close(u16, String, oneshot::Sender<()>),
}

pub(super) struct SocketTask {
    pub to_send: mpsc::Receiver<Outgoing>,
    pub received: mpsc::Sender<FromUpstream>,
    pub max_message_bytes: usize,
    /// Of each write.
    pub deadline: Duration,
    pub in_flight: InFlightPermit,
}

type Answer = Frame<'static>;

/// The code and reason of a close frame; `None` = there was none.
type Closed = Option<(u16, String)>;

enum ReadEnd {
    /// The upstream closed or broke.
    Upstream(Closed),
    /// The session listens no more.
    Session,
}

impl SocketTask {
    pub async fn run(self, stream: Stream) {
        let Self { to_send, received, max_message_bytes, deadline, in_flight: _in_flight } = self;
        let (read, write) = tokio::io::split(stream);
        let (answer, answers) = mpsc::channel(ANSWERS);
        let reader = Reader::new(read, max_message_bytes, received.clone(), answer.clone());
        let reading = reader.run();
        let writing = Writer::new(write, deadline).run(to_send, answers);
        tokio::pin!(reading, writing);
        let closed = tokio::select! {
            end = &mut reading => match end {
                ReadEnd::Upstream(closed) => {
                    // What is left to write is the answer to its close frame.
                    drop(answer);
                    let _written_or_cut = timeout(CLOSE_TIMEOUT, &mut writing).await;
                    closed
                }
                ReadEnd::Session => return writing.await,
            },
            () = &mut writing => match timeout(CLOSE_TIMEOUT, &mut reading).await {
                Ok(ReadEnd::Upstream(closed)) => closed,
                Ok(ReadEnd::Session) | Err(_) => None,
            },
        };
        let _told_or_gone = received.send(FromUpstream::Closed(closed)).await;
    }
}

struct Reader {
    /// Never writes by itself: what there is to answer goes through `answer`.
    socket: WebSocket<Join<ReadHalf<Stream>, Sink>>,
    /// The message so far, where it comes in fragments.
    fragments: Option<(OpCode, BytesMut)>,
    max_message_bytes: usize,
    received: mpsc::Sender<FromUpstream>,
    answer: mpsc::Sender<Answer>,
}

impl Reader {
    fn new(
        read: ReadHalf<Stream>,
        max_message_bytes: usize,
        received: mpsc::Sender<FromUpstream>,
        answer: mpsc::Sender<Answer>,
    ) -> Self {
        let stream = tokio::io::join(read, tokio::io::sink());
        let mut socket = WebSocket::after_handshake(stream, Role::Client);
        socket.set_auto_close(false);
        socket.set_auto_pong(false);
        // The library's bound is exclusive, and holds for control frames as well.
        let largest = max_message_bytes.max(MAX_CONTROL_BYTES);
        socket.set_max_message_size(largest.saturating_add(1));
        Self { socket, fragments: None, max_message_bytes, received, answer }
    }

    async fn run(mut self) -> ReadEnd {
        let received = self.received.clone();
        tokio::select! {
            closed = self.read_all() => ReadEnd::Upstream(closed),
            () = received.closed() => ReadEnd::Session,
        }
    }

    async fn read_all(&mut self) -> Closed {
        loop {
            let mut frame = match self.socket.read_frame().await {
                Ok(frame) => frame,
                Err(error) => return self.give_up(violation(&error)?),
            };
            // Servers do not mask; one that does is understood all the same.
            frame.unmask();
            let message = match frame.opcode {
                OpCode::Ping => {
                    self.answer(Frame::pong(frame.payload));
                    continue;
                }
                OpCode::Pong => continue,
                OpCode::Close => return self.closed(&frame.payload),
                _ => self.data(frame),
            };
            match message {
                Ok(None) => {}
                Ok(Some(message)) => {
                    self.received.send(FromUpstream::Message(message)).await.ok()?;
                }
                Err(code) => return self.give_up(code),
            }
        }
    }

    /// A whole message, or the close code for a frame that must not be.
    fn data(&mut self, frame: Frame<'_>) -> Result<Option<SocketMessage>, CloseCode> {
        let fin = frame.fin;
        let (kind, bytes) = match (frame.opcode, self.fragments.take()) {
            (OpCode::Continuation, Some((kind, mut bytes))) => {
                if bytes.len() + frame.payload.len() > self.max_message_bytes {
                    return Err(CloseCode::Size);
                }
                bytes.extend_from_slice(&frame.payload);
                (kind, bytes)
            }
            (kind @ (OpCode::Text | OpCode::Binary), None) => (kind, owned(frame.payload)),
            _ => return Err(CloseCode::Protocol),
        };
        if bytes.len() > self.max_message_bytes {
            return Err(CloseCode::Size);
        }
        if !fin {
            self.fragments = Some((kind, bytes));
            return Ok(None);
        }
        match kind {
            OpCode::Text if simdutf8::basic::from_utf8(&bytes).is_err() => Err(CloseCode::Invalid),
            OpCode::Text => Ok(Some(SocketMessage::Text(bytes.freeze()))),
            _ => Ok(Some(SocketMessage::Binary(bytes.freeze()))),
        }
    }

    /// Answers the upstream's close frame with its own code (RFC 6455 section 5.5.1).
    fn closed(&self, payload: &[u8]) -> Closed {
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            if !payload.is_empty() {
                return self.give_up(CloseCode::Protocol);
            }
            self.answer(Frame::close_raw(Payload::Owned(Vec::new())));
            return Some((1000, String::new()));
        };
        let code = u16::from_be_bytes(*code);
        match std::str::from_utf8(reason) {
            Ok(reason)
                if CloseCode::from(code).is_allowed() && reason.len() <= MAX_REASON_BYTES =>
            {
                self.answer(Frame::close(code, b""));
                Some((code, reason.to_owned()))
            }
            _ => self.give_up(CloseCode::Protocol),
        }
    }

    fn give_up(&self, code: CloseCode) -> Closed {
        self.answer(Frame::close(code.into(), b""));
        None
    }

    /// A peer that sends pings faster than it reads their answers goes without.
    fn answer(&self, frame: Answer) {
        let _kept_or_full = self.answer.try_send(frame);
    }
}

/// The close code for what the library refused; `None` = the connection is gone.
fn violation(error: &WebSocketError) -> Option<CloseCode> {
    match error {
        WebSocketError::UnexpectedEOF | WebSocketError::IoError(_) => None,
        WebSocketError::FrameTooLarge => Some(CloseCode::Size),
        WebSocketError::InvalidUTF8 => Some(CloseCode::Invalid),
        _ => Some(CloseCode::Protocol),
    }
}

fn owned(payload: Payload<'_>) -> BytesMut {
    match payload {
        Payload::Bytes(bytes) => bytes,
        other => BytesMut::from(&other[..]),
    }
}

struct Writer {
    socket: WebSocket<Join<Empty, WriteHalf<Stream>>>,
    deadline: Duration,
}

impl Writer {
    fn new(write: WriteHalf<Stream>, deadline: Duration) -> Self {
        let stream = tokio::io::join(tokio::io::empty(), write);
        Self { socket: WebSocket::after_handshake(stream, Role::Client), deadline }
    }

    /// Until a close frame is written, a write fails, or the reader is gone.
    async fn run(
        mut self,
        mut to_send: mpsc::Receiver<Outgoing>,
        mut answers: mpsc::Receiver<Answer>,
    ) {
        loop {
            let written = tokio::select! {
                biased;
                answer = answers.recv() => match answer {
                    Some(frame) => {
                        let is_last = frame.opcode == OpCode::Close;
                        self.write(frame).await && !is_last
                    }
                    None => false,
                },
                outgoing = to_send.recv() => self.send(outgoing).await,
            };
            if !written {
                return;
            }
        }
    }

    /// Whether there may be more to write.
    async fn send(&mut self, outgoing: Option<Outgoing>) -> bool {
        match outgoing {
            Some(Outgoing::Message(message, written)) => {
                let frame = match message {
                    SocketMessage::Text(text) => Frame::text(masked(&text)),
                    SocketMessage::Binary(bytes) => Frame::binary(masked(&bytes)),
                };
                let is_written = self.write(frame).await;
                if is_written {
                    let _told_or_gone = written.send(());
                }
                is_written
            }
            Some(Outgoing::Close(code, reason, written)) => {
                self.write(Frame::close(code, fitting(&reason).as_bytes())).await;
                let _told_or_gone = written.send(());
                false
            }
            None => {
                self.write(Frame::close(CloseCode::Away.into(), b"")).await;
                false
            }
        }
    }

    async fn write(&mut self, frame: Frame<'_>) -> bool {
        let Self { socket, deadline } = self;
        let writing = async {
            socket.write_frame(frame).await?;
            socket.flush().await
        };
        matches!(timeout(*deadline, writing).await, Ok(Ok(())))
    }
}

/// As much of a close frame's reason as there is room for.
fn fitting(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// A copy, since a client masks what it sends in place (RFC 6455 section 5.3).
fn masked(bytes: &Bytes) -> Payload<'static> {
    Payload::Owned(bytes.to_vec())
}
