//! RFC 6455 as bytes: every class of case in sections 1 to 7, 9 and 10 of the Autobahn test suite, checked
//! strictly, against a raw route in front of an echo server.
//!
//! A case defines what is sent, what must come back, and how the connection must end. Each is sent once in
//! one piece and, if it is small, once more byte by byte, since a stream has no pieces. Messages that were
//! complete before an error are echoed before the close, as the suite requires for a strict result.

mod closing;
mod control;
mod framing;
mod messages;
mod sizes;
mod utf8;

use super::rig::echo::Echo;
use super::rig::raw::Received;
use super::rig::{Gateway, RawClient, Settings, frame};

/// The largest case in bytes that is also sent byte by byte.
const CHOPPED_BYTES: usize = 600;

/// A gateway with the echo server behind it.
struct Target {
    gateway: Gateway,
    _echo: Echo,
}

impl Target {
    async fn start() -> Self {
        let echo = Echo::start().await;
        let gateway = Gateway::start(Settings::echo(&echo.url())).await;
        Self { gateway, _echo: echo }
    }

    /// Opens a connection to the route for messages up to 16 MiB.
    async fn open(&self) -> RawClient {
        RawClient::open(self.gateway.addr(), "/echo").await
    }

    /// Opens a connection to the route for messages up to 1 KiB.
    async fn open_small(&self) -> RawClient {
        RawClient::open(self.gateway.addr(), "/small").await
    }
}

/// What one client sends, and what it must receive.
struct Case {
    name: String,
    send: Vec<u8>,
    /// The messages that must come back, in this order.
    answers: Vec<Received>,
    end: End,
}

enum End {
    /// The connection is still open: the client's close frame is answered.
    Open,
    /// The gateway closes the connection with one of these codes.
    Closed(&'static [u16]),
}

const PROTOCOL_ERROR: End = End::Closed(&[1002]);
const INVALID_UTF8: End = End::Closed(&[1007]);

impl Case {
    fn new(name: impl Into<String>, frames: &[frame::ClientFrame], end: End) -> Self {
        Self { name: name.into(), send: frame::join(frames), answers: Vec::new(), end }
    }

    fn answers(mut self, answers: impl Into<Vec<Received>>) -> Self {
        self.answers = answers.into();
        self
    }

    async fn run(&self, target: &Target) {
        self.run_chopped(target, self.send.len().max(1)).await;
        if self.send.len() <= CHOPPED_BYTES {
            self.run_chopped(target, 1).await;
        }
    }

    async fn run_chopped(&self, target: &Target, size: usize) {
        // This is shown if the case fails.
        println!("{}, {size} bytes at a time", self.name);
        let mut client = target.open().await;
        let written = client.try_write_chopped(&self.send, size).await;
        for answer in &self.answers {
            client.expect(answer.clone()).await;
        }
        match self.end {
            End::Open => {
                written.expect("an open connection takes everything");
                close_normally(client).await;
            }
            End::Closed(codes) => {
                let code = client.read_close().await;
                assert!(code.is_some_and(|code| codes.contains(&code)), "closed with {code:?}");
            }
        }
    }
}

async fn run(target: &Target, cases: impl IntoIterator<Item = Case>) {
    for case in cases {
        case.run(target).await;
    }
}

/// The normal end: the client closes, the gateway echoes the code and closes the connection.
async fn close_normally(mut client: RawClient) {
    client.send(&frame::close(1000, "")).await;
    assert_eq!(client.read_close().await, Some(1000));
}

/// Expects that the connection still works: a ping that is sent now is answered next.
async fn expect_open(client: &mut RawClient) {
    client.send(&frame::ping("still there?")).await;
    client.expect(Received::Pong(b"still there?".into())).await;
}

fn echoed(text: &str) -> Received {
    Received::Text(text.into())
}
