//! The state of one connection and what drives it: reads of either side, deadlines, and the end.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use super::closing;
use super::undecided::{Held, Undecided};
use super::upstream_side::UpstreamSide;
use crate::protocol::CloseReason;
use crate::session::Session;
use crate::session::heartbeat::STALL_TIMEOUT;
use crate::socket::{ConnectionEnd, FrameScanner, MAX_KEPT, Place, frame};
use crate::telemetry;
use crate::upstream::PassedUpstream;

/// The most that one read takes, in bytes. The buffer belongs to the thread, not to the connection.
const READ_BYTES: usize = 64 * 1024;

/// How many reads of each side one poll makes before other tasks of the thread run.
const READS_PER_POLL: usize = 8;

/// How long the upstream may take to answer a client's close frame. Then the gateway answers it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the upstream may take to answer what came before a client's fault, and then to answer the close frame.
const FAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// An upstream that has sent nothing for this long has answered what came before a client's fault. Many servers answer
/// nothing any more once they have read a close frame.
const QUIET_TIME: Duration = Duration::from_millis(100);

thread_local! {
    /// In front of what is read, there is room for what an earlier read has left.
    static BUFFER: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; MAX_KEPT + READ_BYTES].into_boxed_slice());
}

/// What came of a read of one side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// It was not made, because the other side must take what is there first.
    NotYet,
    /// There is nothing. The side wakes the task when there is.
    InVain,
    Answered,
    /// The client's half has ended.
    Ended,
}

/// What a client did wrong.
pub(super) struct Fault {
    pub reason: CloseReason,
    pub text: Box<str>,
    since: Instant,
}

impl Fault {
    pub fn new(reason: CloseReason, text: &str) -> Self {
        Self { reason, text: text.into(), since: Instant::now() }
    }
}

/// One connection: a client and its upstream.
pub(super) struct Relay {
    pub session: Rc<Session>,
    /// `None` once it ends by itself, or has ended.
    pub(super) upstream: Option<UpstreamSide>,
    pub(super) from_client: FrameScanner,
    /// Bytes that came behind the client's handshake.
    early: Vec<u8>,
    /// What the client did wrong. It is closed for it when the upstream has answered what came before.
    pub(super) fault: Option<Box<Fault>>,
    /// A message of the client that may have to stay, with what came behind it.
    undecided: Option<Box<Undecided>>,
    /// Only while somebody is waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Relay {
    pub fn new(session: Rc<Session>, upstream: PassedUpstream, early: Vec<u8>) -> Self {
        Self {
            session,
            upstream: Some(UpstreamSide::new(upstream)),
            from_client: FrameScanner::of_client(),
            early,
            fault: None,
            undecided: None,
            timer: None,
        }
    }

    /// Reads and forwards. `Ready` when the client's connection has ended.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let session = Rc::clone(&self.session);
        let mut early = std::mem::take(&mut self.early);
        // What was asked in vain wakes this task, and is not asked again before.
        let (mut upstream, mut client) = (Asked::NotYet, Asked::NotYet);
        for _ in 0..READS_PER_POLL {
            if !session.socket.poll_output(cx) {
                return self.end();
            }
            if !early.is_empty() {
                let held = self.client_bytes(cx, &mut early);
                self.hold(held, &early);
                early = Vec::new();
            }
            self.follow_close();
            if upstream != Asked::InVain {
                upstream = self.poll_upstream(cx);
            }
            if self.undecided.is_some() {
                client = self.poll_undecided(cx);
            } else if client != Asked::InVain {
                client = self.poll_client(cx);
            }
            let is_timer_due = self.poll_timer(cx);
            match (upstream, client) {
                (_, Asked::Ended) => return self.end(),
                (Asked::Answered, _) | (_, Asked::Answered) => {}
                _ if is_timer_due => {}
                _ => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends the client's connection after a panic.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.upstream = None;
        let socket = &self.session.socket;
        while socket.poll_output(cx) {
            let mut discarded = [0; 1024];
            match socket.poll_input(cx, &mut discarded) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(0) => break,
                Poll::Ready(length) => socket.count_discarded(length),
            }
        }
        Poll::Ready(())
    }

    /// Makes one read of the upstream, unless the client has yet to take what is there.
    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Asked {
        let socket = &self.session.socket;
        if !socket.takes_frames() || socket.is_backlogged() {
            return Asked::NotYet;
        }
        BUFFER.with_borrow_mut(|buffer| {
            let Some(upstream) = &mut self.upstream else { return Asked::NotYet };
            match upstream.stream.poll_read(cx, &mut buffer[MAX_KEPT..]) {
                Poll::Pending => return Asked::InVain,
                Poll::Ready(0) => self.upstream_lost(),
                Poll::Ready(length) => {
                    let start = MAX_KEPT - upstream.scanner.restore(&mut buffer[..MAX_KEPT]);
                    self.upstream_bytes(&mut buffer[start..MAX_KEPT + length]);
                }
            }
            Asked::Answered
        })
    }

    /// Makes one read of the client, unless the upstream has yet to take what is there.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Asked {
        let session = Rc::clone(&self.session);
        let socket = &session.socket;
        let waiting = self.upstream.as_mut().map_or(0, |upstream| {
            let _ = upstream.stream.poll_flush(cx);
            upstream.stream.waiting_bytes()
        });
        session.set_waiting_bytes(waiting);
        let is_paused = waiting > 0 && socket.is_open();
        socket.set_reading_paused(is_paused);
        if is_paused {
            self.start_timer(STALL_TIMEOUT);
            return Asked::NotYet;
        }
        BUFFER.with_borrow_mut(|buffer| match socket.poll_input(cx, &mut buffer[MAX_KEPT..]) {
            Poll::Pending => Asked::InVain,
            Poll::Ready(0) => Asked::Ended,
            Poll::Ready(length) => {
                let start = MAX_KEPT - self.from_client.restore(&mut buffer[..MAX_KEPT]);
                let bytes = &mut buffer[start..MAX_KEPT + length];
                let held = self.client_bytes(cx, bytes);
                self.hold(held, bytes);
                Asked::Answered
            }
        })
    }

    /// Keeps a message until its user's limit has let it pass. Nothing more of the client is read before.
    fn hold(&mut self, held: Option<Held>, bytes: &[u8]) {
        if let Some(held) = held {
            let undecided = Undecided::new(&self.session, held, bytes.to_vec());
            self.undecided = Some(Box::new(undecided));
        }
    }

    /// Forwards the message that was held, if it may pass, and what came behind it.
    fn poll_undecided(&mut self, cx: &mut Context<'_>) -> Asked {
        let socket = &self.session.socket;
        let Some(undecided) = &mut self.undecided else { return Asked::NotYet };
        socket.set_reading_paused(true);
        self.session.set_waiting_bytes(undecided.len());
        if undecided.poll_verdict(cx).is_pending() {
            return Asked::NotYet;
        }
        let Some(mut undecided) = self.undecided.take() else { return Asked::NotYet };
        socket.set_reading_paused(false);
        let (message, rest) = undecided.split();
        // A message that may not pass has closed its client.
        if socket.is_open() {
            self.send_upstream(cx, message);
        }
        let held = self.client_bytes(cx, rest);
        if let Some(held) = held {
            undecided.hold_next(&self.session, held);
            self.undecided = Some(undecided);
        }
        Asked::Answered
    }

    /// Starts to wait, unless something is waited for already.
    fn start_timer(&mut self, time: Duration) {
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
    }

    /// The upstream's answers to what came before the client's fault are waited for, until there are no more.
    pub(super) fn await_quiet(&mut self) {
        let Some(fault) = &self.fault else { return };
        let due = (Instant::now() + QUIET_TIME).min(fault.since + FAULT_TIMEOUT);
        self.timer = Some(Box::pin(tokio::time::sleep_until(due)));
    }

    /// The upstream's answer to the client's close frame or fault is waited for.
    pub(super) fn await_answer(&mut self) {
        let time = if self.fault.is_some() { FAULT_TIMEOUT } else { ANSWER_TIMEOUT };
        self.timer = Some(Box::pin(tokio::time::sleep(time)));
    }

    /// Returns whether a deadline has passed, and does what is due then.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(timer) = &mut self.timer else { return false };
        if timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.timer = None;
        let Some(upstream) = &mut self.upstream else { return false };
        let socket = &self.session.socket;
        if let Some(fault) = self.fault.as_ref().filter(|_| !upstream.is_told_to_close) {
            upstream.stream.send(cx, &frame::masked_close(fault.reason.code(), &fault.text));
            upstream.is_told_to_close = true;
            self.await_answer();
        } else if self.fault.is_some() || !socket.is_open() {
            self.upstream_gave_up();
        } else if upstream.stream.waiting_bytes() > 0 {
            let stalled = upstream.stream.stalled_for();
            if stalled < STALL_TIMEOUT {
                let due = Instant::now() + (STALL_TIMEOUT - stalled);
                self.timer = Some(Box::pin(tokio::time::sleep_until(due)));
            } else {
                telemetry::upstreams::upstream_stalled(self.session.log_fields(), stalled);
                socket.close_over(CloseReason::BadGateway, "the upstream takes nothing");
                self.upstream = None;
            }
        }
        true
    }

    /// The gateway closes the client's connection: so it does the upstream's, with the same code and text.
    fn follow_close(&mut self) {
        let socket = &self.session.socket;
        let is_closed_by_gateway =
            matches!(socket.end(), Some(ConnectionEnd::ByGateway(_) | ConnectionEnd::ByServer(_)));
        if is_closed_by_gateway && !socket.takes_frames() {
            self.let_upstream_end();
        }
    }

    /// Lets the upstream's socket end by itself: with a close frame, if one is due and has its place.
    pub(super) fn let_upstream_end(&mut self) {
        let Some(upstream) = self.upstream.take() else { return };
        self.session.set_waiting_bytes(0);
        let frame = self
            .close_frame()
            .filter(|_| !upstream.is_told_to_close && self.from_client.place() != Place::InFrame);
        closing::let_end(upstream, frame, &self.session.services.shutdown);
    }

    /// The close frame for the upstream of a connection that the gateway ends.
    fn close_frame(&self) -> Option<Bytes> {
        if let Some(fault) = &self.fault {
            return Some(frame::masked_close(fault.reason.code(), &fault.text));
        }
        let socket = &self.session.socket;
        let code = match socket.end()? {
            ConnectionEnd::ByGateway(reason) => reason.code(),
            ConnectionEnd::ByServer(code) => code,
            _ => return None,
        };
        Some(frame::masked_close(code, socket.end_text()))
    }

    fn end(&mut self) -> Poll<()> {
        self.let_upstream_end();
        Poll::Ready(())
    }
}
