//! A message of a client that waits until the limit of its user has let it pass (`messages_per_user`).
//!
//! The limit is counted in the engine, so that the answer takes a while. Meanwhile the client is not read.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::session::Session;

/// Where a message is in the bytes of its client.
pub(super) struct Held {
    pub start: usize,
    /// What of it is there and scanned already.
    pub length: usize,
}

pub(super) struct Undecided {
    /// What one read took.
    bytes: Vec<u8>,
    message: Held,
    verdict: Pin<Box<dyn Future<Output = ()>>>,
}

impl Undecided {
    pub fn new(session: &Rc<Session>, message: Held, bytes: Vec<u8>) -> Self {
        Self { bytes, message, verdict: verdict(session) }
    }

    /// How many bytes are kept.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.message.start
    }

    /// `Ready` when the message may pass, or has closed its client.
    pub fn poll_verdict(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.verdict.as_mut().poll(cx)
    }

    /// Returns what is there of the message, and what follows.
    pub fn split(&mut self) -> (&[u8], &mut [u8]) {
        let (message, rest) = self.bytes[self.message.start..].split_at_mut(self.message.length);
        (message, rest)
    }

    /// Holds another message, which is in what followed.
    pub fn hold_next(&mut self, session: &Rc<Session>, next: Held) {
        let start = self.message.start + self.message.length + next.start;
        self.message = Held { start, length: next.length };
        self.verdict = verdict(session);
    }
}

fn verdict(session: &Rc<Session>) -> Pin<Box<dyn Future<Output = ()>>> {
    let session = Rc::clone(session);
    Box::pin(async move {
        // Whoever is over the limit is closed.
        let _ = session.check_user_limits().await;
    })
}
