//! The messages of one thread to one queue, which are sent together.
//!
//! What the tasks of a thread send in one round of its scheduler leaves in one write, with one command for messages that
//! follow each other into the same list. The first message of a batch sends it, in the next round; the others wait for its
//! answer. A single message waits for nothing but the round. Invariant: each message of a batch gets an answer, also if the
//! task that sends it ends before.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::queue::QueueWriter;
use super::{NO_RESPONSE, RelayError};

/// The most messages of a batch. Lua takes fewer than 8,000 arguments.
const MAX_MESSAGES: usize = 256;
/// A batch takes no more messages once it has this many bytes.
const MAX_BYTES: usize = 1 << 20;

/// Why a message is not in the queue, and the reason for the log.
pub(super) type NotQueued = (RelayError, String);

/// What became of a message.
pub(super) type Written = Result<(), NotQueued>;

/// Messages that follow each other into the same list or stream.
pub(super) struct Run {
    pub key: String,
    json: Vec<u8>,
    /// Where each message ends in `json`.
    ends: Vec<usize>,
}

impl Run {
    pub fn messages(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let begin = |index: usize| index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.ends.iter().enumerate().map(move |(index, end)| &self.json[begin(index)..*end])
    }
}

/// The messages of one thread to one queue.
#[derive(Default)]
pub(super) struct Outgoing {
    /// The batch that the next message joins.
    open: RefCell<Option<Rc<Batch>>>,
    /// Keeps the thread's own connection, which wakes no other thread.
    _connection: Option<AbortOnDropHandle<()>>,
}

#[derive(Default)]
struct Batch(RefCell<State>);

#[derive(Default)]
struct State {
    /// Taken when they are sent.
    runs: Vec<Run>,
    messages: usize,
    bytes: usize,
    /// What became of each message, by its number; empty if the batch was not sent. It is set once.
    written: Option<Vec<Written>>,
    /// The tasks that wait, in the same way.
    waiting: Vec<Option<Waker>>,
}

impl Outgoing {
    /// Opens a connection for the current thread. Until it is open, messages go over the connection of all threads.
    pub fn new(writer: &QueueWriter) -> Self {
        let connection = AbortOnDropHandle::new(tokio::spawn(writer.serve_thread()));
        Self { open: RefCell::default(), _connection: Some(connection) }
    }

    /// Adds a message to the queue, together with those of other tasks. `write` appends its JSON, before this returns.
    pub fn send<'a>(
        &'a self,
        writer: &'a QueueWriter,
        key: Cow<'_, str>,
        deadline: Instant,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), String>,
    ) -> Sending<'a> {
        let answer = self.join(key, write).map(|(batch, number)| Answer { batch, number });
        Sending { outgoing: self, writer, deadline, answer }
    }

    fn join(
        &self,
        key: Cow<'_, str>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), String>,
    ) -> Result<(Rc<Batch>, usize), NotQueued> {
        let mut open = self.open.borrow_mut();
        let batch = open.take_if(|batch| batch.has_room()).unwrap_or_default();
        let number = batch.0.borrow_mut().add(key, write);
        // A batch without messages has no task that sends it.
        if batch.0.borrow().messages > 0 {
            *open = Some(Rc::clone(&batch));
        }
        let number = number.map_err(|reason| (RelayError::Unavailable, reason))?;
        Ok((batch, number))
    }

    /// Sends what has joined the batch when the task is polled again.
    async fn send_batch(&self, batch: &Rc<Batch>, writer: &QueueWriter, deadline: Instant) {
        next_round().await;
        let _ = self.open.borrow_mut().take_if(|open| Rc::ptr_eq(open, batch));
        let runs = std::mem::take(&mut batch.0.borrow_mut().runs);
        let written = match timeout_at(deadline, writer.write(&runs)).await {
            Ok(written) => written,
            Err(_) => all_failed(&runs, (RelayError::TimedOut, NO_RESPONSE.to_owned())),
        };
        batch.settle(written);
    }
}

/// The same for all messages of all runs.
pub(super) fn all_failed(runs: &[Run], failure: NotQueued) -> Vec<Written> {
    let count = runs.iter().map(|run| run.messages().len()).sum();
    vec![Err(failure); count]
}

/// Completes when the task is polled for the second time, after those that are to run already.
async fn next_round() {
    let mut is_next = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_next, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Batch {
    fn has_room(&self) -> bool {
        let state = self.0.borrow();
        state.written.is_none() && state.messages < MAX_MESSAGES && state.bytes < MAX_BYTES
    }

    /// Sets the outcome, unless there is one, and wakes the tasks that wait for it.
    fn settle(&self, written: Vec<Written>) {
        let waiting = {
            let mut state = self.0.borrow_mut();
            if state.written.is_some() {
                return;
            }
            state.written = Some(written);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().flatten().for_each(Waker::wake);
    }
}

impl State {
    /// Adds a message, and returns its number in the batch.
    fn add(
        &mut self,
        key: Cow<'_, str>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), String>,
    ) -> Result<usize, String> {
        if self.runs.last().is_none_or(|run| run.key != *key) {
            self.runs.push(Run { key: key.into_owned(), json: Vec::new(), ends: Vec::new() });
        }
        let run = self.runs.last_mut().expect("pushed above");
        let before = run.json.len();
        if let Err(reason) = write(&mut run.json) {
            run.json.truncate(before);
            if run.ends.is_empty() {
                self.runs.pop();
            }
            return Err(reason);
        }
        run.ends.push(run.json.len());
        self.bytes += run.json.len() - before;
        self.messages += 1;
        Ok(self.messages - 1)
    }

    /// What became of a message, once that is known.
    fn written(&self, number: usize) -> Option<Written> {
        let not_sent = || Err((RelayError::Unavailable, "it was not sent".to_owned()));
        Some(self.written.as_ref()?.get(number).cloned().unwrap_or_else(not_sent))
    }
}

/// A message that has joined a batch.
pub(super) struct Sending<'a> {
    outgoing: &'a Outgoing,
    writer: &'a QueueWriter,
    deadline: Instant,
    answer: Result<Answer, NotQueued>,
}

impl Sending<'_> {
    /// Sends the batch, if the message is the first of it, and completes with what became of the message.
    pub async fn finish(self) -> Written {
        let Self { outgoing, writer, deadline, answer } = self;
        let answer = answer?;
        if answer.number == 0 {
            // In a box, because only one message of a batch needs the room.
            Box::pin(outgoing.send_batch(&answer.batch, writer, deadline)).await;
        }
        answer.await
    }
}

/// Completes with the outcome of one message of a batch. When that of the first one is dropped before, nobody sends the
/// batch any more, and the others get an answer.
struct Answer {
    batch: Rc<Batch>,
    number: usize,
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.number == 0 {
            self.batch.settle(Vec::new());
        }
    }
}

impl Future for Answer {
    type Output = Written;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.batch.0.borrow_mut();
        let number = self.number;
        if let Some(written) = state.written(number) {
            return Poll::Ready(written);
        }
        if state.waiting.len() <= number {
            state.waiting.resize(number + 1, None);
        }
        let waiting = &mut state.waiting[number];
        match waiting {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waiting = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
