//! A client that sends exactly the bytes that it is given, and reads strictly.

use std::io;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::frame::{self, ClientFrame, ServerFrame, take_server_frame};
use super::{deflate, within};

/// The key of the example in RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A client on one TCP connection.
pub struct RawClient {
    stream: TcpStream,
    /// Bytes that have been read from the connection but not returned yet.
    buffer: Vec<u8>,
    /// How many compressed messages have come; `None` if none may.
    compressed: Option<usize>,
}

/// The head of an HTTP response.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    /// Names (in lower case) and values.
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// What an open WebSocket receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text message, with its fragments joined.
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// A close frame; the code is `None` if it has none.
    Close(Option<u16>, Vec<u8>),
    /// The connection has ended.
    End,
}

impl RawClient {
    /// Opens a TCP connection and sends nothing.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = within("accepted connection", TcpStream::connect(addr)).await.unwrap();
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, buffer: Vec::new(), compressed: None }
    }

    /// Like [`RawClient::connect`], from another address of this machine, such as `127.0.0.2`.
    pub async fn connect_from(source: &str, addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).expect("a loopback address");
        let stream = within("accepted connection", socket.connect(addr)).await.unwrap();
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, buffer: Vec::new(), compressed: None }
    }

    /// Like [`RawClient::connect`], with a receive buffer of this many bytes, for a client that reads slowly.
    pub async fn connect_with_buffer(addr: SocketAddr, bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(bytes).expect("a size");
        let stream = within("accepted connection", socket.connect(addr)).await.unwrap();
        Self { stream, buffer: Vec::new(), compressed: None }
    }

    /// The connection itself, from which everything was taken that has been read.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.buffer.is_empty(), "bytes that nobody has taken");
        self.stream
    }

    /// Opens a WebSocket on `path` and checks the response.
    pub async fn open(addr: SocketAddr, path: &str) -> Self {
        let mut client = Self::connect(addr).await;
        client.write(handshake(path, &[]).as_bytes()).await;
        let head = client.read_head().await;
        assert_eq!(head.status, 101, "{head:?}");
        assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT), "{head:?}");
        assert_eq!(STANDARD.decode(ACCEPT).map(|hash| hash.len()), Ok(20));
        assert_eq!(head.header("sec-websocket-extensions"), None, "{head:?}");
        client
    }

    /// Opens a WebSocket on `path` with permessage-deflate, as `offer` says.
    pub async fn open_compressed(addr: SocketAddr, path: &str, offer: &str) -> Self {
        let mut client = Self::connect(addr).await;
        client.write(handshake(path, &[("Sec-WebSocket-Extensions", offer)]).as_bytes()).await;
        let head = client.read_head().await;
        assert_eq!(head.status, 101, "{head:?}");
        let agreed = head.header("sec-websocket-extensions").expect("an extension");
        let own = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        assert!(agreed.starts_with(own), "{agreed}");
        client.allow_compressed();
        client
    }

    /// The gateway may send compressed messages from now on.
    pub fn allow_compressed(&mut self) {
        self.compressed = Some(0);
    }

    /// How many compressed messages have come.
    pub fn compressed(&self) -> usize {
        self.compressed.unwrap_or_default()
    }

    /// Writes all of `bytes`; panics if the peer has closed the connection.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).await.expect("the gateway takes the bytes");
    }

    /// Writes all of `bytes`; fails if the peer has closed the connection.
    pub async fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        within("room to write", self.stream.write_all(bytes)).await
    }

    /// Writes `bytes` in pieces of `size` bytes, each in a TCP segment of its own where possible.
    pub async fn try_write_chopped(&mut self, bytes: &[u8], size: usize) -> io::Result<()> {
        for piece in bytes.chunks(size) {
            self.try_write(piece).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    pub async fn send(&mut self, frame: &ClientFrame) {
        self.write(&frame.bytes()).await;
    }

    /// Closes the sending half: the peer reads the end and may still write.
    pub async fn shutdown(&mut self) {
        within("shutdown", self.stream.shutdown()).await.expect("an open connection");
    }

    /// Closes the connection at once, with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("an open connection");
    }

    /// Reads the head of an HTTP response. What follows it stays in the buffer.
    pub async fn read_head(&mut self) -> Head {
        let end = loop {
            let found = self.buffer.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = found {
                break end + 4;
            }
            assert!(self.fill().await, "the connection ended inside a response head");
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        parse_head(std::str::from_utf8(&head).expect("a head of ASCII"))
    }

    /// Like [`RawClient::read_head`], but `None` if the peer closes the connection instead.
    pub async fn try_read_status(&mut self) -> Option<u16> {
        while !self.buffer.windows(4).any(|window| window == b"\r\n\r\n") {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.read_head().await.status)
    }

    /// Reads `length` bytes of a body.
    pub async fn read_exact(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.fill().await, "the connection ended inside a body");
        }
        self.buffer.drain(..length).collect()
    }

    /// Returns what the next read of the connection gives.
    pub async fn read_some(&mut self) -> Vec<u8> {
        assert!(self.buffer.is_empty(), "bytes that nobody has taken");
        let mut bytes = vec![0; 64 * 1024];
        let length = within("some bytes", self.stream.read(&mut bytes)).await;
        bytes.truncate(length.expect("an open connection"));
        bytes
    }

    /// Reads until the peer closes the connection.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Reads the next frame, or `None` at the end of the connection.
    pub async fn read_frame(&mut self) -> Option<ServerFrame> {
        loop {
            if let Some(frame) = take_server_frame(&mut self.buffer) {
                return Some(frame);
            }
            if !self.fill().await {
                assert!(self.buffer.is_empty(), "the connection ended inside a frame");
                return None;
            }
        }
    }

    /// Reads the next message, control frame or end.
    pub async fn next(&mut self) -> Received {
        let mut started: Option<(u8, Vec<u8>)> = None;
        let mut inflates = false;
        loop {
            let Some(frame) = self.read_frame().await else {
                assert!(started.is_none(), "the connection ended inside a message");
                return Received::End;
            };
            let ServerFrame { fin, compressed, opcode, payload } = frame;
            if compressed {
                *self.compressed.as_mut().expect("nothing is compressed without an agreement") += 1;
                inflates = true;
            }
            let (opcode, payload) = match (opcode, started.take()) {
                (frame::CONTINUATION, None) => panic!("a continuation of nothing"),
                (frame::CONTINUATION, Some((opcode, message))) => {
                    (opcode, [message, payload].concat())
                }
                (frame::TEXT | frame::BINARY, Some(_)) => panic!("a message inside a message"),
                (_, None) => (opcode, payload),
                (_, Some(_)) => {
                    panic!("control frames inside messages are for the gateway's peers")
                }
            };
            if fin && inflates {
                return received(opcode, deflate::inflate(&payload));
            }
            if fin {
                return received(opcode, payload);
            }
            started = Some((opcode, payload));
        }
    }

    /// Expects a text message that contains `part`.
    pub async fn expect_text(&mut self, part: &str) {
        match self.next().await {
            Received::Text(text) if String::from_utf8_lossy(&text).contains(part) => {}
            other => panic!("expected {part:?}, got {}", shorten(&other)),
        }
    }

    pub async fn expect(&mut self, expected: Received) {
        let received = self.next().await;
        assert!(
            received == expected,
            "expected {}, got {}",
            shorten(&expected),
            shorten(&received)
        );
    }

    /// Expects a close frame, answers it, expects the end of the connection and returns the code.
    pub async fn read_close(&mut self) -> Option<u16> {
        let code = match self.next().await {
            Received::Close(code, reason) => {
                assert!(std::str::from_utf8(&reason).is_ok(), "a reason that is not UTF-8");
                code
            }
            other => panic!("expected a close frame, got {}", shorten(&other)),
        };
        // The gateway may have closed the connection already, or this may have been its answer to our close.
        let _ = self.try_write(&frame::close(code.unwrap_or(1000), "").bytes()).await;
        self.expect(Received::End).await;
        code
    }

    /// Reads more bytes into the buffer. Returns `false` at the end of the connection.
    async fn fill(&mut self) -> bool {
        let mut piece = vec![0; 64 << 10];
        match within("bytes from the gateway", self.stream.read(&mut piece)).await {
            Ok(length) => {
                self.buffer.extend_from_slice(&piece[..length]);
                length > 0
            }
            // A connection that is closed while it has unread bytes is reset.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("reading failed: {error}"),
        }
    }
}

/// A valid handshake request with additional `headers`.
pub fn handshake(path: &str, headers: &[(&str, &str)]) -> String {
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request + "\r\n"
}

fn parse_head(head: &str) -> Head {
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.and_then(|line| line.get(..3)?.parse().ok()).expect("a status line");
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').expect("a header line");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    });
    Head { status, headers: headers.collect() }
}

fn received(opcode: u8, payload: Vec<u8>) -> Received {
    match opcode {
        frame::TEXT => Received::Text(payload),
        frame::BINARY => Received::Binary(payload),
        frame::PING => Received::Ping(payload),
        frame::PONG => Received::Pong(payload),
        _ => match payload.split_first_chunk() {
            Some((code, reason)) => Received::Close(Some(u16::from_be_bytes(*code)), reason.into()),
            None => {
                assert!(payload.is_empty(), "a close frame of one byte");
                Received::Close(None, payload)
            }
        },
    }
}

/// Shortens bytes for the message of a failed assertion.
fn shorten(received: &Received) -> String {
    let text = format!("{received:?}");
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}… ({} characters)", &text[..end], text.len()),
        None => text,
    }
}
