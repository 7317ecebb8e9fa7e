//! The node's own part: a command is handed to every worker thread, and their counts are summed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{DebugCommand, Disconnect, Found, Listing, NodeCommand};
use crate::protocol::{ChannelName, random_hex};

/// Commands that wait for one thread. One that is full does not answer: the command counts as not done there.
const THREAD_QUEUE: usize = 64;

/// For all threads together; shorter than the sender's patience, so that what was done is still told.
const THREADS_DEADLINE: Duration = Duration::from_millis(1500);

/// Ends the generation of a task of a channel, and says how many it ended. Called on the engine's
/// thread; must not wait.
pub type CancelHook = Arc<dyn Fn(&ChannelName, &str) -> u64 + Send + Sync>;

/// Has debug lines written, and says whether it has: 1 or 0. Called on the engine's thread; must not wait.
pub type DebugHook = Arc<dyn Fn(&DebugCommand) -> u64 + Send + Sync>;

/// What a worker thread needs to take commands; made on another thread.
pub struct WorkerHandle {
    commands: mpsc::Receiver<Task>,
}

/// A command for one thread. Dropped unanswered, it counts as nothing done.
pub struct Task {
    pub command: Arc<ThreadCommand>,
    answer: oneshot::Sender<Answer>,
}

/// What a thread is asked for.
#[derive(Debug)]
pub enum ThreadCommand {
    Disconnect(Disconnect),
    List(Listing),
}

/// What one thread did, or found.
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
    /// It is done; this thread closed so many connections.
    pub fn done(self, closed: u64) {
        let _nobody_waits_any_more = self.answer.send(Answer::Affected(closed));
    }

    /// This is what the thread has of it.
    pub fn found(self, found: Found) {
        let _nobody_waits_any_more = self.answer.send(Answer::Found(found));
    }
}

/// What this node did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Done {
    pub affected: u64,
    /// No thread is still to answer.
    pub complete: bool,
    /// To a command that asks.
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
    /// For `count` threads, and the worker of each.
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

    /// Has `debug` carry out commands to debug; without it, none is.
    pub fn with_debug(self, debug: DebugHook) -> Self {
        Self { debug, ..self }
    }

    /// Names this node among those that run at the moment.
    pub fn node(&self) -> &str {
        &self.node
    }

    pub(super) async fn execute(&self, command: NodeCommand) -> Done {
        match command {
            // What runs is known to the node as a whole.
            NodeCommand::Cancel { channel, task_id } => {
                Done { affected: (self.cancel)(&channel, &task_id), complete: true, found: None }
            }
            NodeCommand::Debug(command) => {
                Done { affected: (self.debug)(&command), complete: true, found: None }
            }
            NodeCommand::Disconnect(command) => {
                let (answers, complete) = self.ask(ThreadCommand::Disconnect(command)).await;
                let affected = answers.iter().map(|answer| match answer {
                    Answer::Affected(closed) => *closed,
                    Answer::Found(_) => 0,
                });
                Done { affected: affected.sum(), complete, found: None }
            }
            NodeCommand::List(listing) if listing.is_of_others(&self.node) => {
                Done { affected: 0, complete: true, found: Some(listing.nothing()) }
            }
            NodeCommand::List(listing) => {
                let (answers, complete) = self.ask(ThreadCommand::List(listing.clone())).await;
                let found = answers.into_iter().filter_map(|answer| match answer {
                    Answer::Found(found) => Some(found),
                    Answer::Affected(_) => None,
                });
                Done { affected: 0, complete, found: Some(listing.merge(found)) }
            }
        }
    }

    /// What the threads answer; false = one that is still there did not.
    async fn ask(&self, command: ThreadCommand) -> (Vec<Answer>, bool) {
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
