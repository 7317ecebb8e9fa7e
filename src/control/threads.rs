//! The node's own part: an order is handed to every worker thread, and their counts are summed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{Disconnect, Order};
use crate::protocol::ChannelName;

/// Orders that wait for one thread. One that is full does not answer: the order counts as not done there.
const THREAD_QUEUE: usize = 64;

/// For all threads together; shorter than the sender's patience, so that what was done is still told.
const THREADS_DEADLINE: Duration = Duration::from_millis(1500);

/// Ends the generation of a task of a channel, and says how many it ended. Called on the engine's
/// thread; must not wait.
pub type CancelHook = Arc<dyn Fn(&ChannelName, &str) -> u64 + Send + Sync>;

/// What a worker thread needs to take orders; made on another thread.
pub struct Seat {
    orders: mpsc::Receiver<Task>,
}

/// An order for one thread. Dropped unanswered, it counts as nothing done.
pub struct Task {
    pub order: Arc<Disconnect>,
    closed: oneshot::Sender<u64>,
}

impl Seat {
    /// The next order; `None` = the gateway ends.
    pub async fn next(&mut self) -> Option<Task> {
        self.orders.recv().await
    }
}

impl Task {
    /// It is done; this thread closed so many connections.
    pub fn done(self, closed: u64) {
        let _nobody_waits_any_more = self.closed.send(closed);
    }
}

/// What this node did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    pub affected: u64,
    /// No thread is still to answer.
    pub complete: bool,
}

/// All worker threads of this node. Cheap to clone.
#[derive(Clone)]
pub struct Threads {
    queues: Arc<[mpsc::Sender<Task>]>,
    cancel: CancelHook,
}

impl Threads {
    /// For `count` threads, and the seat of each.
    pub fn new(count: usize, cancel: CancelHook) -> (Self, Vec<Seat>) {
        let (queues, seats) = (0..count)
            .map(|_| {
                let (queue, orders) = mpsc::channel(THREAD_QUEUE);
                (queue, Seat { orders })
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        (Self { queues: queues.into(), cancel }, seats)
    }

    pub(super) async fn execute(&self, order: Order) -> Done {
        match order {
            // What runs is known to the node as a whole.
            Order::Cancel { channel, task_id } => {
                Done { affected: (self.cancel)(&channel, &task_id), complete: true }
            }
            Order::Disconnect(order) => self.disconnect(Arc::new(order)).await,
        }
    }

    async fn disconnect(&self, order: Arc<Disconnect>) -> Done {
        let deadline = Instant::now() + THREADS_DEADLINE;
        let mut done = Done { affected: 0, complete: true };
        let mut answers = Vec::with_capacity(self.queues.len());
        for queue in self.queues.iter() {
            let (closed, answer) = oneshot::channel();
            match queue.try_send(Task { order: Arc::clone(&order), closed }) {
                Ok(()) => answers.push(answer),
                // It has ended, and its connections with it.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(_)) => done.complete = false,
            }
        }
        for answer in answers {
            match timeout_at(deadline, answer).await {
                Ok(Ok(closed)) => done.affected += closed,
                Ok(Err(_ended)) => {}
                Err(_elapsed) => done.complete = false,
            }
        }
        done
    }
}
