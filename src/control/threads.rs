//! Executes commands on this node: sends them to every worker thread and combines their answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{
    Concerning, DebugCommand, Disconnect, GenerationRow, ListPart, Listing, NodeCommand, Part,
};
use crate::protocol::{ChannelName, random_hex};

/// The most commands in the queue of one thread. If the queue is full, the command counts as not executed there.
const THREAD_QUEUE: usize = 64;

/// How long to wait for the answers of all threads. It is shorter than the sender's wait, so that the reply still
/// arrives in time.
const THREADS_DEADLINE: Duration = Duration::from_millis(1500);

/// Cancels the generation of a task of a channel, and returns how many generations it cancelled. It is called on
/// the engine thread and must not block.
pub type CancelHook = Arc<dyn Fn(&ChannelName, &str) -> u64 + Send + Sync>;

/// Turns on debug lines for a target, and returns how many targets it accepted: 1 or 0. It is called on the engine
/// thread and must not block.
pub type DebugHook = Arc<dyn Fn(&DebugCommand) -> u64 + Send + Sync>;

/// Finds replies in progress on this node. It is called on the engine thread and must not block.
pub type GenerationsHook = Arc<dyn Fn(&Concerning, &str) -> Part<GenerationRow> + Send + Sync>;

/// What a worker thread needs to receive commands. The handle is created on another thread.
pub struct WorkerHandle {
    commands: mpsc::Receiver<Task>,
}

/// A command for one thread. Dropping it without an answer means that the thread has ended.
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
    List {
        part: ListPart,
        /// The number of rows that match, if it was asked for.
        matching: u64,
    },
}

impl WorkerHandle {
    /// Waits for the next command; `None` if the gateway is stopping.
    pub async fn next(&mut self) -> Option<Task> {
        self.commands.recv().await
    }
}

impl Task {
    /// Answers that this thread closed `closed` connections.
    pub fn answer_closed(self, closed: u64) {
        // The sender may have stopped waiting.
        let _ = self.answer.send(Answer::Affected(closed));
    }

    /// Answers with this thread's rows of a list.
    pub fn answer_list(self, part: ListPart) {
        self.answer_counted(part, 0);
    }

    /// Answers with this thread's rows of a list, and how many match in total.
    pub fn answer_counted(self, part: ListPart, matching: u64) {
        // The sender may have stopped waiting.
        let _ = self.answer.send(Answer::List { part, matching });
    }
}

/// The result of a command on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandResult {
    pub affected: u64,
    /// Whether every thread has answered or has ended.
    pub complete: bool,
    /// The answer to a command for a list.
    pub list: Option<ListPart>,
}

/// All worker threads of this node. Cheap to clone.
#[derive(Clone)]
pub struct Threads {
    queues: Arc<[mpsc::Sender<Task>]>,
    cancel: CancelHook,
    debug: DebugHook,
    generations: GenerationsHook,
    node: Arc<str>,
}

impl Threads {
    /// Creates the queues of `count` threads, and one handle for each of them.
    pub fn new(count: usize, cancel: CancelHook) -> (Self, Vec<WorkerHandle>) {
        let (queues, workers) = (0..count)
            .map(|_| {
                let (queue, commands) = mpsc::channel(THREAD_QUEUE);
                (queue, WorkerHandle { commands })
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let debug: DebugHook = Arc::new(|_| 0);
        let generations: GenerationsHook = Arc::new(|_, _| Part::default());
        let (queues, node) = (queues.into(), random_hex(8).into());
        (Self { queues, cancel, debug, generations, node }, workers)
    }

    /// Sets the hook that finds replies in progress. Without it, there are none.
    pub fn with_generations(self, generations: GenerationsHook) -> Self {
        Self { generations, ..self }
    }

    /// Sets the hook that executes debug commands. Without it, they have no effect.
    pub fn with_debug(self, debug: DebugHook) -> Self {
        Self { debug, ..self }
    }

    /// Identifies this node among those that run at the moment.
    pub fn node(&self) -> &str {
        &self.node
    }

    pub(super) async fn execute(&self, command: NodeCommand) -> CommandResult {
        match command {
            // Generations belong to the node as a whole, not to its threads.
            NodeCommand::Cancel { channel, task_id } => CommandResult {
                affected: (self.cancel)(&channel, &task_id),
                complete: true,
                list: None,
            },
            NodeCommand::Debug(command) => {
                CommandResult { affected: (self.debug)(&command), complete: true, list: None }
            }
            NodeCommand::Disconnect(command) => {
                let (answers, complete) = self.send(ThreadCommand::Disconnect(command)).await;
                let affected = answers.iter().map(|answer| match answer {
                    Answer::Affected(closed) => *closed,
                    Answer::List { .. } => 0,
                });
                CommandResult { affected: affected.sum(), complete, list: None }
            }
            NodeCommand::List(listing) if listing.excludes(&self.node) => {
                CommandResult { affected: 0, complete: true, list: Some(listing.empty()) }
            }
            // Like cancelling: no thread has to be asked.
            NodeCommand::List(Listing::Generations(query)) => {
                let part = ListPart::Generations((self.generations)(&query, &self.node));
                CommandResult { affected: 0, complete: true, list: Some(part) }
            }
            NodeCommand::List(listing) => {
                let (answers, complete) = self.send(ThreadCommand::List(listing.clone())).await;
                let mut affected = 0;
                let parts = answers.into_iter().filter_map(|answer| match answer {
                    Answer::List { part, matching } => {
                        affected += matching;
                        Some(part)
                    }
                    Answer::Affected(_) => None,
                });
                let list = Some(listing.merge(parts));
                CommandResult { affected, complete, list }
            }
        }
    }

    /// Sends a command to all threads. Returns their answers, and whether every thread has answered or has ended.
    async fn send(&self, command: ThreadCommand) -> (Vec<Answer>, bool) {
        let command = Arc::new(command);
        let deadline = Instant::now() + THREADS_DEADLINE;
        let (mut answered, mut complete) = (Vec::new(), true);
        let mut answers = Vec::with_capacity(self.queues.len());
        for queue in self.queues.iter() {
            let (answer, receiver) = oneshot::channel();
            match queue.try_send(Task { command: Arc::clone(&command), answer }) {
                Ok(()) => answers.push(receiver),
                // The thread has ended, and its connections with it.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(_)) => complete = false,
            }
        }
        for answer in answers {
            match timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => answered.push(answer),
                // The thread has ended.
                Ok(Err(_)) => {}
                Err(_) => complete = false,
            }
        }
        (answered, complete)
    }
}
