//! The task that owns an upstream socket, and reads and writes its frames.
//!
//! Reading and writing are two futures of one task. Invariant: the reading future, which is not safe
//! to drop between two bytes of a frame, is dropped only when nothing more is read.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fastwebsockets::{CloseCode, Frame, OpCode, Payload, Role, WebSocket, WebSocketError};
use tokio::io::{Empty, Join, ReadHalf, Sink, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::gate::InFlightPermit;
use super::message::{FromUpstream, Outgoing, SocketMessage};
use crate::http_client::UpgradedStream;
use crate::protocol::is_valid_close_code;

/// The time limit for the upstream to answer our close frame, or for us to answer its close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum number of queued answers to the upstream's pings and close frame; more are dropped.
const MAX_QUEUED_ANSWERS: usize = 4;

/// The maximum length of a control frame on any route (RFC 6455 section 5.5).
const MAX_CONTROL_BYTES: usize = 125;
/// The maximum length of a close frame's reason: the code takes two bytes.
const MAX_REASON_BYTES: usize = MAX_CONTROL_BYTES - 2;

pub(super) struct SocketTask {
    pub to_send: mpsc::Receiver<Outgoing>,
    pub received: mpsc::Sender<FromUpstream>,
    pub max_message_bytes: usize,
    /// The time limit of each write.
    pub deadline: Duration,
    pub in_flight: InFlightPermit,
}

type Answer = Frame<'static>;

/// The code and reason of a close frame; `None` = there was no close frame.
type Closed = Option<(u16, String)>;

enum ReadEnd {
    /// The upstream closed the connection, or the connection broke.
    Upstream(Closed),
    /// The session dropped its receiver.
    Session,
}

impl SocketTask {
    pub async fn run(self, stream: UpgradedStream) {
        let Self { to_send, received, max_message_bytes, deadline, in_flight: _in_flight } = self;
        let (read, write) = tokio::io::split(stream);
        let (answer, answers) = mpsc::channel(MAX_QUEUED_ANSWERS);
        let reader = Reader::new(read, max_message_bytes, received.clone(), answer.clone());
        let reading = reader.run();
        let writing = Writer::new(write, deadline).run(to_send, answers);
        tokio::pin!(reading, writing);
        let closed = tokio::select! {
            end = &mut reading => match end {
                ReadEnd::Upstream(closed) => {
                    // Only the answer to the close frame is left to write, if there is time for it.
                    drop(answer);
                    let _ = timeout(CLOSE_TIMEOUT, &mut writing).await;
                    closed
                }
                ReadEnd::Session => return writing.await,
            },
            () = &mut writing => match timeout(CLOSE_TIMEOUT, &mut reading).await {
                Ok(ReadEnd::Upstream(closed)) => closed,
                Ok(ReadEnd::Session) | Err(_) => None,
            },
        };
        // The session may have dropped its receiver.
        let _ = received.send(FromUpstream::Closed(closed)).await;
    }
}

struct Reader {
    /// Never writes by itself: answers are sent through `answer`.
    socket: WebSocket<Join<ReadHalf<UpgradedStream>, Sink>>,
    /// The fragments of an unfinished message.
    fragments: Option<(OpCode, BytesMut)>,
    max_message_bytes: usize,
    received: mpsc::Sender<FromUpstream>,
    answer: mpsc::Sender<Answer>,
}

impl Reader {
    fn new(
        read: ReadHalf<UpgradedStream>,
        max_message_bytes: usize,
        received: mpsc::Sender<FromUpstream>,
        answer: mpsc::Sender<Answer>,
    ) -> Self {
        let stream = tokio::io::join(read, tokio::io::sink());
        let mut socket = WebSocket::after_handshake(stream, Role::Client);
        socket.set_auto_close(false);
        socket.set_auto_pong(false);
        // The library's limit is exclusive, and applies to control frames as well.
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
                Err(error) => return self.refuse(close_code_of(&error)?).await,
            };
            // Servers must not mask their frames. Those that do are tolerated.
            frame.unmask();
            let message = match frame.opcode {
                OpCode::Ping => {
                    self.answer(Frame::pong(frame.payload));
                    continue;
                }
                OpCode::Pong => continue,
                OpCode::Close => return self.handle_close(&frame.payload),
                _ => self.handle_data(frame),
            };
            match message {
                Ok(None) => {}
                Ok(Some(message)) => {
                    self.received.send(FromUpstream::Message(message)).await.ok()?;
                }
                Err(code) => return self.refuse(code).await,
            }
        }
    }

    /// Returns the message that the frame completes, or the close code for an invalid frame.
    fn handle_data(&mut self, frame: Frame<'_>) -> Result<Option<SocketMessage>, CloseCode> {
        let fin = frame.fin;
        let (kind, bytes) = match (frame.opcode, self.fragments.take()) {
            (OpCode::Continuation, Some((kind, mut bytes))) => {
                if bytes.len() + frame.payload.len() > self.max_message_bytes {
                    return Err(CloseCode::Size);
                }
                bytes.extend_from_slice(&frame.payload);
                (kind, bytes)
            }
            (kind @ (OpCode::Text | OpCode::Binary), None) => (kind, to_bytes_mut(frame.payload)),
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
    fn handle_close(&self, payload: &[u8]) -> Closed {
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            if !payload.is_empty() {
                return self.fail(CloseCode::Protocol);
            }
            self.answer(Frame::close_raw(Payload::Owned(Vec::new())));
            return Some((1000, String::new()));
        };
        let code = u16::from_be_bytes(*code);
        match std::str::from_utf8(reason) {
            Ok(reason) if is_valid_close_code(code) && reason.len() <= MAX_REASON_BYTES => {
                self.answer(Frame::close(code, b""));
                Some((code, reason.to_owned()))
            }
            _ => self.fail(CloseCode::Protocol),
        }
    }

    /// Fails the connection because of a data frame.
    async fn refuse(&mut self, code: CloseCode) -> Closed {
        if code == CloseCode::Size {
            self.received.send(FromUpstream::TooBig).await.ok()?;
        }
        self.fail(code)
    }

    /// Queues a close frame for a protocol violation of the upstream.
    fn fail(&self, code: CloseCode) -> Closed {
        self.answer(Frame::close(code.into(), b""));
        None
    }

    /// Queues an answer. It is dropped if the peer sends pings faster than it reads the pongs.
    fn answer(&self, frame: Answer) {
        let _ = self.answer.try_send(frame);
    }
}

/// Returns the close code for an error of the library; `None` = the connection is lost.
fn close_code_of(error: &WebSocketError) -> Option<CloseCode> {
    match error {
        WebSocketError::UnexpectedEOF | WebSocketError::IoError(_) => None,
        WebSocketError::FrameTooLarge => Some(CloseCode::Size),
        WebSocketError::InvalidUTF8 => Some(CloseCode::Invalid),
        _ => Some(CloseCode::Protocol),
    }
}

fn to_bytes_mut(payload: Payload<'_>) -> BytesMut {
    match payload {
        Payload::Bytes(bytes) => bytes,
        other => BytesMut::from(&other[..]),
    }
}

struct Writer {
    socket: WebSocket<Join<Empty, WriteHalf<UpgradedStream>>>,
    deadline: Duration,
}

impl Writer {
    fn new(write: WriteHalf<UpgradedStream>, deadline: Duration) -> Self {
        let stream = tokio::io::join(tokio::io::empty(), write);
        Self { socket: WebSocket::after_handshake(stream, Role::Client), deadline }
    }

    /// Writes until a close frame is written, a write fails, or the reader has ended.
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

    /// Writes what the session sent, and returns whether more may follow.
    async fn send(&mut self, outgoing: Option<Outgoing>) -> bool {
        match outgoing {
            Some(Outgoing::Message(message, written)) => {
                let frame = match message {
                    SocketMessage::Text(text) => Frame::text(maskable(&text)),
                    SocketMessage::Binary(bytes) => Frame::binary(maskable(&bytes)),
                };
                let is_written = self.write(frame).await;
                if is_written {
                    // The session may have stopped waiting.
                    let _ = written.send(());
                }
                is_written
            }
            Some(Outgoing::Close(code, reason, written)) => {
                self.write(Frame::close(code, truncate_reason(&reason).as_bytes())).await;
                let _ = written.send(());
                false
            }
            None => {
                self.write(Frame::close(CloseCode::Away.into(), b"")).await;
                false
            }
        }
    }

    /// Writes a frame within the time limit, and returns whether that succeeded.
    async fn write(&mut self, frame: Frame<'_>) -> bool {
        let Self { socket, deadline } = self;
        let writing = async {
            socket.write_frame(frame).await?;
            socket.flush().await
        };
        matches!(timeout(*deadline, writing).await, Ok(Ok(())))
    }
}

/// Returns the longest prefix of a reason that fits into a close frame.
fn truncate_reason(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// Returns a copy, because a client masks its payload in place (RFC 6455 section 5.3).
fn maskable(bytes: &Bytes) -> Payload<'static> {
    Payload::Owned(bytes.to_vec())
}
