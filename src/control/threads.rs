//! Carries out commands on this node: sends them to every worker thread and sums their answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{DebugCommand, Disconnect, Found, Listing, NodeCommand};
use crate::protocol::{ChannelName, random_hex};

/// The most commands that wait for one thread. A command for a thread with a full queue counts as not carried
/// out there.
const THREAD_QUEUE: usize = 64;

/// For the answers of all threads; shorter than the sender waits, so that it learns what was done.
const THREADS_DEADLINE: Duration = Duration::from_millis(1500);

/// Ends the generation of a task of a channel, and returns how many it ended. It is called on the engine's
/// thread and must not wait.
pub type CancelHook = Arc<dyn Fn(&ChannelName, &str) -> u64 + Send + Sync>;

/// Makes debug lines be written, and returns how many targets it accepted: 1 or 0. It is called on the engine's
/// thread and must not wait.
pub type DebugHook = Arc<dyn Fn(&DebugCommand) -> u64 + Send + Sync>;

/// What a worker thread needs to receive commands. It is made on another thread.
pub struct WorkerHandle {
    commands: mpsc::Receiver<Task>,
}

/// A command for one thread. If it is dropped without an answer, nothing was done.
pub struct Task {
    pub command: Arc<ThreadCommand>,
    answer: oneshot::Sender<Answer>,
}

/// A command to a thread.
#[derive(Debug)]
pub enum ThreadCommand {
    Disconnect(Disconnect),
    List(Listing),
}

/// The answer of one thread.
enum Answer {
    Affected(u64),
    Found(Found),
}

impl WorkerHandle {
    /// The next command; `None` = the gateway ends.
    pub async fn next(&mut self) -> Option<Task> {
        self.commands.recv().await
    }
}

impl Task {
    /// Answers that this thread closed so many connections.
    pub fn done(self, closed: u64) {
        // The sender may have stopped waiting.
        let _ = self.answer.send(Answer::Affected(closed));
    }

    /// Answers with what this thread has of a list.
    pub fn found(self, found: Found) {
        // The sender may have stopped waiting.
        let _ = self.answer.send(Answer::Found(found));
    }
}

/// What this node did about a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Done {
    pub affected: u64,
    /// Whether no thread still has to answer.
    pub complete: bool,
    /// The answer to a command for a list.
    pub found: Option<Found>,
}

/// All worker threads of this node. Cheap to clone.
#[derive(Clone)]
pub struct Threads {
    queues: Arc<[mpsc::Sender<Task>]>,
    cancel: CancelHook,
    debug: DebugHook,
    node: Arc<str>,
}

impl Threads {
    /// The queues of `count` threads, and the handle of each.
    pub fn new(count: usize, cancel: CancelHook) -> (Self, Vec<WorkerHandle>) {
        let (queues, workers) = (0..count)
            .map(|_| {
                let (queue, commands) = mpsc::channel(THREAD_QUEUE);
                (queue, WorkerHandle { commands })
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let debug: DebugHook = Arc::new(|_| 0);
        (Self { queues: queues.into(), cancel, debug, node: random_hex(8).into() }, workers)
    }

    /// Sets what carries out commands to debug; without it, none is.
    pub fn with_debug(self, debug: DebugHook) -> Self {
        Self { debug, ..self }
    }

    /// Identifies this node among those that run at the moment.
    pub fn node(&self) -> &str {
        &self.node
    }

    pub(super) async fn execute(&self, command: NodeCommand) -> Done {
        match command {
            // Generations are known to the node as a whole, not to its threads.
            NodeCommand::Cancel { channel, task_id } => {
                Done { affected: (self.cancel)(&channel, &task_id), complete: true, found: None }
            }
            NodeCommand::Debug(command) => {
                Done { affected: (self.debug)(&command), complete: true, found: None }
            }
            NodeCommand::Disconnect(command) => {
                let (answers, complete) = self.send(ThreadCommand::Disconnect(command)).await;
                let affected = answers.iter().map(|answer| match answer {
                    Answer::Affected(closed) => *closed,
                    Answer::Found(_) => 0,
                });
                Done { affected: affected.sum(), complete, found: None }
            }
            NodeCommand::List(listing) if listing.excludes(&self.node) => {
                Done { affected: 0, complete: true, found: Some(listing.empty()) }
            }
            NodeCommand::List(listing) => {
                let (answers, complete) = self.send(ThreadCommand::List(listing.clone())).await;
                let found = answers.into_iter().filter_map(|answer| match answer {
                    Answer::Found(found) => Some(found),
                    Answer::Affected(_) => None,
                });
                Done { affected: 0, complete, found: Some(listing.merge(found)) }
            }
        }
    }

    /// Sends a command to all threads and returns their answers; false = one that has not ended did not
    /// answer.
    async fn send(&self, command: ThreadCommand) -> (Vec<Answer>, bool) {
        let command = Arc::new(command);
        let deadline = Instant::now() + THREADS_DEADLINE;
        let (mut answered, mut complete) = (Vec::new(), true);
        let mut answers = Vec::with_capacity(self.queues.len());
        for queue in self.queues.iter() {
            let (answer, receiver) = oneshot::channel();
            match queue.try_send(Task { command: Arc::clone(&command), answer }) {
                Ok(()) => answers.push(receiver),
                // It has ended, and its connections with it.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(_)) => complete = false,
            }
        }
        for answer in answers {
            match timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => answered.push(answer),
                Ok(Err(_ended)) => {}
                Err(_elapsed) => complete = false,
            }
        }
        (answered, complete)
    }
}
