//! Clients, an upstream and a caller of the server API, on threads that allocate nothing while they are measured: they
//! write what was made before, and read into buffers of fixed size.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Longer than anything takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// More than a client reads at once, or an upstream writes.
const BUFFER_BYTES: usize = 64 << 10;

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Writes `number` in decimal, with zeros in front.
pub fn write_digits(into: &mut [u8], mut number: usize) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A masked text frame. A key of zeros leaves its payload as it is.
pub fn text_frame(payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126);
    let mut frame = vec![0x81, 0x80 | length.expect("a short payload"), 0, 0, 0, 0];
    frame.extend(payload);
    frame
}

/// The request of a WebSocket.
pub fn handshake(path: &str, token: Option<&str>) -> Vec<u8> {
    let query = token.map(|token| format!("?connection_token={token}")).unwrap_or_default();
    format!(
        "GET {path}{query} HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    stream
}

/// A stream, and what was read of it but not used.
struct Reader {
    stream: TcpStream,
    buffer: Box<[u8]>,
    filled: usize,
}

impl Reader {
    fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: vec![0; BUFFER_BYTES].into(), filled: 0 }
    }

    /// Reads more; `false` at the end of the stream.
    fn fill(&mut self) -> bool {
        assert!(self.filled < self.buffer.len(), "more than the buffer takes");
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(length) => {
                self.filled += length;
                length > 0
            }
            Err(error) => panic!("nothing to read: {error}"),
        }
    }

    fn consume(&mut self, length: usize) {
        self.buffer.copy_within(length..self.filled, 0);
        self.filled -= length;
    }

    /// The length of the head of a request or response, if all of it and of its body is there, and that of both.
    fn head_and_body(&self) -> Option<(usize, usize)> {
        let bytes = &self.buffer[..self.filled];
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let name = b"content-length: ";
        let is_name = |part: &[u8]| part.eq_ignore_ascii_case(name);
        let body = bytes[..head].windows(name.len()).position(is_name).map_or(0, |at| {
            let digits =
                bytes[at + name.len()..head].iter().take_while(|byte| byte.is_ascii_digit());
            digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
        });
        (bytes.len() >= head + body).then_some((head, head + body))
    }

    /// Waits for a whole request or response; `None` at the end of the stream.
    fn next_http(&mut self) -> Option<(usize, usize)> {
        loop {
            if let Some(found) = self.head_and_body() {
                return Some(found);
            }
            if !self.fill() {
                return None;
            }
        }
    }
}

/// A WebSocket client.
pub struct Client(Reader);

impl Client {
    /// Connects, and reads the `connected` event.
    pub fn open(address: SocketAddr, request: &[u8]) -> Self {
        let mut client = Self(Reader::new(connect(address)));
        client.shake_hands(request);
        client
    }

    /// Opens another connection, and returns the one before, which stays open.
    pub fn open_next(&mut self, address: SocketAddr, request: &[u8]) -> TcpStream {
        let before = std::mem::replace(&mut self.0.stream, connect(address));
        self.shake_hands(request);
        before
    }

    fn shake_hands(&mut self, request: &[u8]) {
        self.send(request);
        let (head, _) = self.0.next_http().expect("an answer to the handshake");
        let answer = &self.0.buffer[..head];
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(answer));
        self.0.consume(head);
        self.expect(b"connected");
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.stream.write_all(bytes).expect("the gateway reads");
    }

    /// Reads the next frame, which must contain `part`.
    pub fn expect(&mut self, part: &[u8]) {
        loop {
            let bytes = &self.0.buffer[..self.0.filled];
            let (head, length) = match *bytes {
                [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
                [_, length @ ..126, ..] => (2, usize::from(length)),
                _ => (2, usize::MAX / 2),
            };
            if bytes.len() >= head + length {
                let payload = &bytes[head..head + length];
                let text = String::from_utf8_lossy;
                assert!(contains(payload, part), "{:?} instead of {:?}", text(payload), text(part));
                self.0.consume(head + length);
                return;
            }
            assert!(self.0.fill(), "the gateway has closed the connection");
        }
    }
}

/// A connection to the admin port.
pub struct Api {
    reader: Reader,
    key: &'static str,
}

impl Api {
    pub fn connect(address: SocketAddr, key: &'static str) -> Self {
        Self { reader: Reader::new(connect(address)), key }
    }

    pub fn request(&self, path: &str, body: &str) -> Vec<u8> {
        let (key, length) = (self.key, body.len());
        format!(
            "POST {path} HTTP/1.1\r\nHost: a.test\r\nX-API-Key: {key}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// Sends a request and waits for its answer, which must be good.
    pub fn call(&mut self, request: &[u8]) {
        self.answer(request, |_| ());
    }

    fn answer<T>(&mut self, request: &[u8], read: impl FnOnce(&[u8]) -> T) -> T {
        self.reader.stream.write_all(request).expect("the admin port reads");
        let (head, whole) = self.reader.next_http().expect("an answer of the admin port");
        let bytes = &self.reader.buffer[..whole];
        assert!(bytes.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(bytes));
        let value = read(&bytes[head..]);
        self.reader.consume(whole);
        value
    }

    /// A connection token of the user.
    pub fn token(&mut self, user: usize) -> String {
        let body = format!(r#"{{"user_id":{user},"username":"user-{user}"}}"#);
        let request = self.request("/v1/tokens", &body);
        self.answer(&request, |body| {
            let answer: serde_json::Value = serde_json::from_slice(body).expect("JSON");
            answer["connection_token"].as_str().expect("a token").to_owned()
        })
    }
}

/// How many events a streamed reply has, and when they are written.
#[derive(Default)]
pub struct Pace {
    state: Mutex<PaceState>,
    changed: Condvar,
}

#[derive(Default)]
struct PaceState {
    events: usize,
    together: bool,
    /// How many events of the reply the client has.
    taken: usize,
}

impl Pace {
    /// The next replies have so many events. They are written at once if `together`; else each is written when the client
    /// has the one before.
    pub fn set(&self, events: usize, together: bool) {
        *self.state.lock().unwrap() = PaceState { events, together, taken: 0 };
    }

    pub fn event_taken(&self) {
        self.state.lock().unwrap().taken += 1;
        self.changed.notify_all();
    }

    /// Starts a reply.
    fn begin(&self) -> (usize, bool) {
        let mut state = self.state.lock().unwrap();
        state.taken = 0;
        (state.events, state.together)
    }

    fn wait_until_taken(&self, count: usize) {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, DEADLINE, |state| state.taken < count);
        assert!(!waited.expect("the lock").1.timed_out(), "the client has not got event {count}");
    }
}

/// An HTTP upstream: `/queued` is answered with 202, `/taken` with 200, and `/stream` with a reply.
pub struct Upstream {
    address: SocketAddr,
    pace: Arc<Pace>,
}

const EVENT: &[u8] =
    b"3e\r\ndata: {\"event\":\"chunk\",\"chunk\":\"One of many words, at once\"}\n\n\r\n";

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let pace = Arc::new(Pace::default());
        let shared = Arc::clone(&pace);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection of the gateway");
                stream.set_nodelay(true).expect("a socket");
                let pace = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &pace));
            }
        });
        Self { address, pace }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pace(&self) -> &Pace {
        &self.pace
    }
}

fn serve(stream: TcpStream, pace: &Pace) {
    let mut reader = Reader::new(stream);
    let mut together = Vec::with_capacity(BUFFER_BYTES);
    while let Some((_, whole)) = reader.next_http() {
        let request = &reader.buffer[..whole];
        let (is_queued, is_stream) =
            (request.starts_with(b"POST /queued"), request.starts_with(b"POST /stream"));
        reader.consume(whole);
        let stream = &mut reader.stream;
        if is_stream {
            stream_reply(stream, pace, &mut together);
        } else if is_queued {
            write(stream, b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
        } else {
            write(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    }
}

fn stream_reply(stream: &mut TcpStream, pace: &Pace, together: &mut Vec<u8>) {
    let (events, at_once) = pace.begin();
    write(
        stream,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    if at_once {
        together.clear();
        (0..events).for_each(|_| together.extend(EVENT));
        write(stream, together);
    } else {
        for event in 0..events {
            pace.wait_until_taken(event);
            write(stream, EVENT);
        }
    }
    pace.wait_until_taken(events);
    write(stream, b"0\r\n\r\n");
}

fn write(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("the gateway reads");
}
