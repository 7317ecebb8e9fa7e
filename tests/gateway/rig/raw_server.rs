//! A WebSocket server behind a gateway that sends exactly the bytes that it is given, and reads strictly.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::within;

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub struct RawServer {
    listener: TcpListener,
}

/// A connection of the gateway.
pub struct RawPeer {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The request line of the handshake.
    pub request: String,
    /// Names (in lower case) and values.
    pub headers: Vec<(String, String)>,
}

/// A frame of a client, unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmasked {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
    pub mask: [u8; 4],
}

impl RawServer {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a free port") }
    }

    /// Serves a socket that is bound already.
    pub fn on(listener: TcpListener) -> Self {
        Self { listener }
    }

    /// The URL `ws://127.0.0.1:PORT`, without a path.
    pub fn url(&self) -> String {
        format!("ws://{}", self.addr())
    }

    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("a listening socket")
    }

    /// Accepts a connection and reads nothing.
    pub async fn accept_silently(&self) -> RawPeer {
        let accepted = within("connection from the gateway", self.listener.accept()).await;
        let (stream, _) = accepted.expect("a connection");
        stream.set_nodelay(true).expect("a TCP socket");
        RawPeer { stream, buffer: Vec::new(), request: String::new(), headers: Vec::new() }
    }

    /// Accepts a connection and reads its handshake.
    pub async fn accept(&self) -> RawPeer {
        let mut peer = self.accept_silently().await;
        peer.read_head().await;
        peer
    }

    /// Accepts a connection and its handshake.
    pub async fn open(&self) -> RawPeer {
        let mut peer = self.accept().await;
        let response = peer.response(&[]);
        peer.write(response.as_bytes()).await;
        peer
    }
}

impl RawPeer {
    async fn read_head(&mut self) {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.fill().await, "the gateway ended the connection inside a head");
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        // Bytes that are not ASCII are read as Latin-1.
        let head: String = head.into_iter().map(char::from).collect();
        let mut lines = head.trim_end().split("\r\n");
        self.request = lines.next().expect("a request line").to_owned();
        let header = |line: &str| {
            let (name, value) = line.split_once(':').expect("a header line");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        self.headers = lines.map(header).collect();
    }

    /// The connection itself, from which everything was taken that has been read.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.buffer.is_empty(), "bytes that nobody has taken");
        self.stream
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let headers = self.headers.iter().filter(|(found, _)| found == name);
        headers.map(|(_, value)| value.as_str()).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The value of `Sec-WebSocket-Accept` for this handshake.
    pub fn accept_value(&self) -> String {
        let key = self.header("sec-websocket-key").expect("a key").as_bytes();
        STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
    }

    /// A valid 101 response with further headers.
    pub fn response(&self, headers: &[(&str, &str)]) -> String {
        let mut response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n",
            self.accept_value()
        );
        for (name, value) in headers {
            response.push_str(&format!("{name}: {value}\r\n"));
        }
        response + "\r\n"
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).await.expect("the gateway takes the bytes");
    }

    pub async fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        within("room to write", self.stream.write_all(bytes)).await
    }

    /// Sends an unmasked frame whose first byte is `first`.
    pub async fn send(&mut self, first: u8, payload: &[u8]) {
        self.write(&server_frame(first, payload)).await;
    }

    pub async fn shutdown(&mut self) {
        within("shutdown", self.stream.shutdown()).await.expect("an open connection");
    }

    /// Reads the next frame, which must be masked; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Unmasked> {
        loop {
            if let Some(frame) = take_client_frame(&mut self.buffer) {
                return Some(frame);
            }
            if !self.fill().await {
                assert!(self.buffer.is_empty(), "the connection ended inside a frame");
                return None;
            }
        }
    }

    /// Reads a frame of this kind, and returns its payload.
    pub async fn expect(&mut self, first: u8) -> Vec<u8> {
        let frame = self.next().await.expect("a frame");
        let found = u8::from(frame.fin) << 7 | frame.opcode;
        assert_eq!(found, first, "{:?}", String::from_utf8_lossy(&frame.payload));
        frame.payload
    }

    /// Reads a close frame, and returns its code and reason.
    pub async fn expect_close(&mut self) -> (u16, String) {
        let payload = self.expect(0x88).await;
        let (code, reason) = payload.split_first_chunk().expect("a close code");
        (u16::from_be_bytes(*code), String::from_utf8(reason.into()).expect("a reason"))
    }

    /// Reads `length` bytes and drops them.
    pub async fn skip(&mut self, mut length: usize) {
        while length > 0 {
            if self.buffer.is_empty() {
                assert!(self.fill().await, "the connection ended too early");
            }
            let taken = self.buffer.len().min(length);
            self.buffer.drain(..taken);
            length -= taken;
        }
    }

    /// Reads until the gateway has ended the connection.
    pub async fn ended(&mut self) {
        while self.fill().await {
            self.buffer.clear();
        }
    }

    async fn fill(&mut self) -> bool {
        let mut piece = vec![0; 64 << 10];
        match within("bytes from the gateway", self.stream.read(&mut piece)).await {
            Ok(length) => {
                self.buffer.extend_from_slice(&piece[..length]);
                length > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("reading failed: {error}"),
        }
    }
}

/// Encodes an unmasked frame whose first byte is `first`.
pub fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..0x10000 => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

fn take_client_frame(buffer: &mut Vec<u8>) -> Option<Unmasked> {
    let (&[first, second], rest) = buffer.split_first_chunk()?;
    assert_eq!(first & 0x70, 0, "a reserved bit without an extension");
    assert_ne!(second & 0x80, 0, "a frame of a client that is not masked");
    let (length, head) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
        length => (u64::from(length), 2),
    };
    let end = head + 4 + usize::try_from(length).expect("a length of this machine");
    let mask: [u8; 4] = *buffer.get(head..)?.first_chunk()?;
    let payload = buffer.get(head + 4..end)?;
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    buffer.drain(..end);
    Some(Unmasked { fin: first & 0x80 != 0, opcode: first & 0xf, payload, mask })
}
