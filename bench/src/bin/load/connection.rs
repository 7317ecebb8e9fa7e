//! A minimal WebSocket client for the load generator: it does a handshake and counts the received frames.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Result;

const SCRATCH_BYTES: usize = 256 << 10;

thread_local! {
    /// One read buffer for all connections. A read borrows it only while it counts frames.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

pub struct Connection {
    stream: TcpStream,
    counter: FrameCounter,
    /// The bytes that were read after the handshake.
    received: u64,
}

impl Connection {
    /// Connects to `/ws/chat/{conversation}/` and reads the `connected` event.
    pub async fn open(server: SocketAddr, conversation: &str) -> Result<Self> {
        Self::open_path(server, &format!("/ws/chat/{conversation}/")).await
    }

    /// Connects to a path and reads the `connected` event.
    pub async fn open_path(server: SocketAddr, path: &str) -> Result<Self> {
        Self::open_with(server, path, "").await
    }

    /// Connects to a conversation with compression.
    pub async fn open_compressed(server: SocketAddr, conversation: &str) -> Result<Self> {
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        Self::open_with(server, &format!("/ws/chat/{conversation}/"), offer).await
    }

    async fn open_with(server: SocketAddr, path: &str, headers: &str) -> Result<Self> {
        let (mut connection, rest) = Self::upgrade(server, path, headers).await?;
        if connection.counter.count(&rest) == 0 {
            connection.frames().await?;
        }
        Ok(connection)
    }

    /// Connects to a path. `Err` if the first event is not `connected`.
    pub async fn open_admitted(server: SocketAddr, path: &str) -> Result<Self> {
        let (mut connection, mut received) = Self::upgrade(server, path, "").await?;
        let mut counted = 0;
        while connection.counter.count(&received[counted..]) == 0 {
            counted = received.len();
            if connection.stream.read_buf(&mut received).await? == 0 {
                return Err("the server ended the connection".into());
            }
        }
        let first = String::from_utf8_lossy(&received);
        if first.contains("\"connected\"") { Ok(connection) } else { Err(first.into()) }
    }

    /// Connects to a server that sends nothing before it receives something.
    pub async fn open_silent(server: SocketAddr) -> Result<Self> {
        let (connection, rest) = Self::upgrade(server, "/", "").await?;
        if !rest.is_empty() {
            return Err("the server sent something before it received anything".into());
        }
        Ok(connection)
    }

    /// Returns a connection and what was read of it beyond the head of the response.
    async fn upgrade(server: SocketAddr, path: &str, headers: &str) -> Result<(Self, Vec<u8>)> {
        let mut stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: bench.test\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let (head, rest) = read_head(&mut stream).await?;
        if !headers.is_empty() && !head.contains("permessage-deflate") {
            return Err("the server does not compress".into());
        }
        Ok((Self { stream, counter: FrameCounter::default(), received: 0 }, rest))
    }

    /// Waits until at least one frame is complete, and returns the number of completed frames.
    pub async fn frames(&mut self) -> io::Result<u64> {
        loop {
            self.stream.readable().await?;
            let read: io::Result<_> = SCRATCH.with_borrow_mut(|scratch| {
                let length = self.stream.try_read(scratch)?;
                Ok((length, self.counter.count(&scratch[..length])))
            });
            match read {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((length, frames)) => {
                    self.received += length as u64;
                    if frames > 0 {
                        return Ok(frames);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The bytes that were read since the last call.
    pub fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }
}

/// Reads the head of a 101 response, and returns it in lower case, and the bytes after it.
pub async fn read_head(stream: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let mut head = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err("the server ended the handshake".into());
        }
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            if !head.starts_with(b"HTTP/1.1 101") {
                return Err(String::from_utf8_lossy(&head).into());
            }
            let rest = head.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&head).to_ascii_lowercase(), rest));
        }
    }
}

/// A masked text frame.
pub fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    // A key of zeros is valid and leaves the payload unchanged.
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Counts a server's frames in a byte stream. Pings count too, but the servers are configured to send none.
#[derive(Default)]
pub struct FrameCounter {
    /// The bytes of the current frame's payload that have not arrived yet.
    payload: u64,
    /// An incomplete frame head.
    head: [u8; 10],
    have: usize,
}

impl FrameCounter {
    fn count(&mut self, bytes: &[u8]) -> u64 {
        self.pieces(bytes, |_| ())
    }

    /// Passes on each piece of a payload, and returns the number of frames that are now complete.
    pub fn pieces(&mut self, mut bytes: &[u8], mut on_piece: impl FnMut(&[u8])) -> u64 {
        let mut frames = 0;
        loop {
            let length = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            let (piece, rest) = bytes.split_at(length);
            if !piece.is_empty() {
                on_piece(piece);
            }
            self.payload -= length as u64;
            bytes = rest;
            if self.payload > 0 {
                return frames;
            }
            if self.have > 0 && self.have == self.head_length() {
                self.have = 0;
                frames += 1;
            }
            let Some((first, rest)) = bytes.split_first() else { return frames };
            self.head[self.have] = *first;
            self.have += 1;
            bytes = rest;
            if self.have == self.head_length() {
                self.payload = self.payload_length();
            }
        }
    }

    fn head_length(&self) -> usize {
        match (self.have, self.head[1] & 0x7f) {
            (0..2, _) => 2,
            (_, 126) => 4,
            (_, 127) => 10,
            _ => 2,
        }
    }

    fn payload_length(&self) -> u64 {
        match self.head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => u64::from_be_bytes(*self.head.last_chunk().expect("ten bytes")),
            length => u64::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FrameCounter;

    #[test]
    fn frames_are_counted_in_any_pieces() {
        let mut bytes = vec![0x81, 2, b'o', b'k', 0x81, 0];
        bytes.extend([0x81, 126, 1, 0]);
        bytes.extend([0; 256]);
        bytes.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        bytes.extend([0; 65_536]);
        for size in [1, 2, 3, 7, 100, bytes.len()] {
            let mut counter = FrameCounter::default();
            let frames: u64 = bytes.chunks(size).map(|piece| counter.count(piece)).sum();
            assert_eq!(frames, 4, "in pieces of {size}");
        }
        let mut counter = FrameCounter::default();
        assert_eq!(counter.count(&bytes[..bytes.len() - 1]), 3);
    }
}
