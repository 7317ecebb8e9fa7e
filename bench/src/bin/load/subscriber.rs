//! A client of any measured server: it subscribes, and counts the marks in what it receives.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::Result;
use super::connection::{FrameCounter, read_head, text_frame};
use super::peer::{Framing, MARK, Peer, TIME_DIGITS, fill, source};

const SCRATCH_BYTES: usize = 256 << 10;
const OPEN_DEADLINE: Duration = Duration::from_secs(20);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

pub struct Subscriber {
    stream: TcpStream,
    received: Received,
}

/// What has been received, in pieces of any size.
struct Received {
    framing: Framing,
    frames: FrameCounter,
    /// How many digits of a time are missing, and what the others say.
    missing: usize,
    time: u64,
}

/// What one read has brought.
#[derive(Default, Clone, Copy)]
pub struct News {
    pub frames: u64,
    pub marks: u64,
}

impl Subscriber {
    /// Connects the client with this number, and sends what subscribes it.
    pub async fn open(peer: &Peer, number: usize, channel: &str, credential: &str) -> Result<Self> {
        let opened =
            tokio::time::timeout(OPEN_DEADLINE, Self::connect(peer, number, channel, credential))
                .await;
        opened.map_err(|_| "the server did not answer a handshake in time")?
    }

    async fn connect(peer: &Peer, number: usize, channel: &str, credential: &str) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        let server = peer.servers[number % peer.servers.len()];
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(source(number), 0))?;
        let mut stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        let mut received = Received {
            framing: peer.framing,
            frames: FrameCounter::default(),
            missing: 0,
            time: 0,
        };
        let mut first = News::default();
        if peer.framing == Framing::WebSocket {
            stream.write_all(&handshake(peer, channel, credential)).await?;
            let (_, rest) = read_head(&mut stream).await?;
            first = received.read(&rest, &mut |_| ());
        }
        for message in &peer.hello {
            let message = fill(message, channel, "");
            let bytes = match peer.framing {
                Framing::WebSocket => text_frame(message.as_bytes()),
                Framing::Bare => message.into_bytes(),
            };
            stream.write_all(&bytes).await?;
        }
        let mut subscriber = Self { stream, received };
        let mut greeted = first.frames;
        while greeted < peer.greeting {
            greeted += subscriber.read(&mut |_| ()).await?.frames;
        }
        Ok(subscriber)
    }

    /// Waits for bytes, and passes on the time of each mark in them.
    pub async fn read(&mut self, on_time: &mut impl FnMut(u64)) -> io::Result<News> {
        self.receive(|received, bytes| received.read(bytes, on_time)).await
    }

    /// The same without the times, which costs the generator less.
    pub async fn count(&mut self) -> io::Result<News> {
        self.receive(Received::count).await
    }

    async fn receive(
        &mut self,
        mut take: impl FnMut(&mut Received, &[u8]) -> News,
    ) -> io::Result<News> {
        let Self { stream, received } = self;
        loop {
            stream.readable().await?;
            let read: io::Result<_> = SCRATCH.with_borrow_mut(|scratch| {
                let length = stream.try_read(scratch)?;
                Ok((length, take(received, &scratch[..length])))
            });
            match read {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((_, news)) => return Ok(news),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }
}

fn handshake(peer: &Peer, channel: &str, credential: &str) -> Vec<u8> {
    let mut request = format!(
        "GET {} HTTP/1.1\r\nHost: bench.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        fill(&peer.path, channel, "").replace("{credential}", credential)
    );
    for (name, value) in &peer.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.into_bytes()
}

impl Received {
    fn count(&mut self, bytes: &[u8]) -> News {
        let mut marks = 0;
        let mut add = |piece: &[u8]| marks += memchr::memchr_iter(MARK, piece).count() as u64;
        let frames = match self.framing {
            Framing::WebSocket => self.frames.pieces(bytes, add),
            Framing::Bare => {
                add(bytes);
                0
            }
        };
        News { frames, marks }
    }

    fn read(&mut self, bytes: &[u8], on_time: &mut impl FnMut(u64)) -> News {
        let mut marks = 0;
        let Self { framing, frames, missing, time } = self;
        let mut read = |mut piece: &[u8]| {
            while !piece.is_empty() {
                if *missing > 0 {
                    let digit = char::from(piece[0]).to_digit(16).unwrap_or(0);
                    *time = *time << 4 | u64::from(digit);
                    *missing -= 1;
                    piece = &piece[1..];
                    if *missing == 0 {
                        on_time(*time);
                    }
                    continue;
                }
                let Some(at) = memchr::memchr(MARK, piece) else { return };
                marks += 1;
                (*missing, *time) = (TIME_DIGITS, 0);
                piece = &piece[at + 1..];
            }
        };
        let frames = match framing {
            Framing::WebSocket => frames.pieces(bytes, read),
            Framing::Bare => {
                read(bytes);
                0
            }
        };
        News { frames, marks }
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::FrameCounter;
    use super::super::peer::{Framing, publication};
    use super::Received;

    #[test]
    fn marks_and_times_are_read_in_any_pieces() {
        let first = publication(100, 0x1234_5678_9abc_def0);
        let second = publication(120, 7);
        // A length of 126 bytes, which is the mark, is not counted.
        let other = vec![b'o'; 126];
        let mut bytes = Vec::new();
        for payload in [first.as_bytes(), &other, second.as_bytes()] {
            match payload.len() {
                length @ ..126 => bytes.extend([0x81, length as u8]),
                length => bytes.extend([0x81, 126, 0, length as u8]),
            }
            bytes.extend(payload);
        }
        for size in [1, 3, 17, bytes.len()] {
            let new = || Received {
                framing: Framing::WebSocket,
                frames: FrameCounter::default(),
                missing: 0,
                time: 0,
            };
            let (mut timed, mut counted) = (new(), new());
            let (mut times, mut marks) = (Vec::new(), 0);
            for piece in bytes.chunks(size) {
                timed.read(piece, &mut |time| times.push(time));
                marks += counted.count(piece).marks;
            }
            assert_eq!(times, [0x1234_5678_9abc_def0, 7], "in pieces of {size}");
            assert_eq!(marks, 2, "in pieces of {size}");
        }
    }
}
