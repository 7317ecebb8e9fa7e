//! The memory budget of the node (`[server] max_memory`): what clients and their messages take together.
//!
//! Nothing is counted per delivery. Each thread measures what its connections hold in the rounds of its timers, at
//! least once a second, and the histories, the broker's intake and what `on_complete` keeps are measured as often. Beyond the budget the thread
//! with the largest send queue closes it, and so on until the rest fits. If it still does not fit, new connections are
//! refused, until a tenth of the budget is free: only those of the networks whose messages take more than a quarter of
//! it, if it would fit without what they hold beyond that. Their connections with the largest messages are closed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::client_memory::{ClientMemory, HeldByClient};
use crate::protocol::ClientNetwork;
use crate::telemetry;
use crate::telemetry::process::MemoryPart;

/// Send queues that are smaller than this are not worth a closed connection.
pub const SMALLEST_CLOSED: usize = 16 * 1024;

/// The budget, shared by all threads. Cheap to clone.
#[derive(Clone)]
pub struct MemoryBudget(Arc<Shared>);

struct Shared {
    /// In bytes; 0 = no limit.
    max: AtomicUsize,
    threads: Box<[ThreadMemory]>,
    /// What belongs to no thread.
    of_node: AtomicUsize,
    /// Which thread counts a frame that may be queued on several, by the address of its end. Empty unless the budget
    /// is exceeded.
    claims: Mutex<HashMap<usize, usize>>,
    /// Whether the budget was exceeded at the last check as well.
    was_exceeded: AtomicBool,
    is_refusing: AtomicBool,
    clients: ClientMemory,
}

/// The latest measurement of a thread.
#[derive(Default)]
struct ThreadMemory {
    queues: AtomicUsize,
    /// Whether `queues` counts shared frames once. The sum of all queues is measured first, which costs nothing.
    is_exact: AtomicBool,
    largest_queue: AtomicUsize,
    partial_messages: AtomicUsize,
    in_progress: AtomicUsize,
}

/// What the connections of one thread hold, in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HeldMemory {
    pub queues: usize,
    pub largest_queue: usize,
    pub partial_messages: usize,
    /// Messages that wait or are on their way to an upstream, and the headers of handshakes that they are sent with.
    pub in_progress: usize,
}

/// The part of a thread in the budget.
#[derive(Clone)]
pub struct ThreadBudget {
    budget: MemoryBudget,
    thread: usize,
}

impl MemoryBudget {
    pub fn new(threads: usize, max: usize) -> Self {
        let budget = Self(Arc::new(Shared {
            max: AtomicUsize::default(),
            threads: (0..threads).map(|_| ThreadMemory::default()).collect(),
            of_node: AtomicUsize::default(),
            claims: Mutex::default(),
            was_exceeded: AtomicBool::default(),
            is_refusing: AtomicBool::default(),
            clients: ClientMemory::new(threads),
        }));
        budget.set_max(max);
        budget
    }

    pub fn set_max(&self, max: usize) {
        self.0.max.store(max, Relaxed);
        telemetry::process::memory_limited(max);
    }

    pub fn thread(&self, thread: usize) -> ThreadBudget {
        ThreadBudget { budget: self.clone(), thread }
    }

    /// Whether new connections are refused, at least those of some networks.
    pub fn is_refusing(&self) -> bool {
        self.0.is_refusing.load(Relaxed)
    }

    /// Whether new connections of `network` are refused.
    pub fn refuses(&self, network: ClientNetwork) -> bool {
        self.is_refusing() && self.0.clients.refuses(network)
    }

    /// Sums up all measurements, and decides whether new connections are refused. To be called about once a second
    /// with the size of the histories, of the publications that wait to be delivered, and of what is kept of replies.
    pub fn check(&self, histories: usize, intake: usize, replies: usize) {
        self.0.of_node.store(histories + intake + replies, Relaxed);
        let sum = |part: fn(&ThreadMemory) -> &AtomicUsize| -> usize {
            self.0.threads.iter().map(|thread| part(thread).load(Relaxed)).sum()
        };
        for (part, bytes) in [
            (MemoryPart::SendQueues, sum(|thread| &thread.queues)),
            (MemoryPart::PartialMessages, sum(|thread| &thread.partial_messages)),
            (MemoryPart::InProgress, sum(|thread| &thread.in_progress)),
            (MemoryPart::Histories, histories),
            (MemoryPart::Intake, intake),
            (MemoryPart::Replies, replies),
        ] {
            telemetry::process::memory_measured(part, bytes);
        }
        let (used, max) = (self.used(), self.0.max.load(Relaxed));
        let is_exceeded = max > 0 && used > max && self.is_exact();
        if !is_exceeded {
            *self.claims() = HashMap::new();
        }
        let was_exceeded = self.0.was_exceeded.swap(is_exceeded, Relaxed);
        let was_refusing = self.is_refusing();
        // Queues are closed first, which a second check finds done.
        let refuses =
            is_exceeded && was_exceeded || was_refusing && max > 0 && used > max - max / 10;
        if refuses {
            self.0.clients.decide(used, max);
        }
        if refuses != was_refusing {
            self.0.is_refusing.store(refuses, Relaxed);
            telemetry::process::memory_refusing(refuses, used, max);
        }
    }

    /// Whether each thread has counted shared frames once.
    fn is_exact(&self) -> bool {
        self.0
            .threads
            .iter()
            .all(|thread| thread.is_exact.load(Relaxed) || thread.queues.load(Relaxed) == 0)
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<usize, usize>> {
        self.0.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> usize {
        let of_threads = self.0.threads.iter().map(ThreadMemory::bytes);
        of_threads.sum::<usize>() + self.0.of_node.load(Relaxed)
    }
}

impl ThreadMemory {
    fn bytes(&self) -> usize {
        let parts = [&self.queues, &self.partial_messages, &self.in_progress];
        parts.into_iter().map(|part| part.load(Relaxed)).sum()
    }
}

impl ThreadBudget {
    /// Whether the node would be over its budget if this thread held so much.
    pub fn would_exceed(&self, held: HeldMemory) -> bool {
        let shared = &self.budget.0;
        let mine = shared.threads[self.thread].bytes();
        let now = held.queues + held.partial_messages + held.in_progress;
        let max = shared.max.load(Relaxed);
        max > 0 && (self.budget.used() + now).saturating_sub(mine) > max
    }

    /// Replaces the measurement of this thread. Returns how many bytes the node is over its budget, if all threads
    /// have counted shared frames once.
    pub fn measured(&self, held: HeldMemory, is_exact: bool) -> usize {
        let shared = &self.budget.0;
        let thread = &shared.threads[self.thread];
        thread.queues.store(held.queues, Relaxed);
        thread.is_exact.store(is_exact, Relaxed);
        thread.largest_queue.store(held.largest_queue, Relaxed);
        thread.partial_messages.store(held.partial_messages, Relaxed);
        thread.in_progress.store(held.in_progress, Relaxed);
        match shared.max.load(Relaxed) {
            0 => 0,
            _ if !self.budget.is_exact() => 0,
            max => self.budget.used().saturating_sub(max),
        }
    }

    /// Whether new connections are refused, at least those of some networks.
    pub fn is_refusing(&self) -> bool {
        self.budget.is_refusing()
    }

    /// Replaces what the clients of this thread hold in messages; empty while the budget is not used up.
    pub fn clients_measured(&self, held: HeldByClient) {
        self.budget.0.clients.measured(self.thread, held);
    }

    /// Whether the messages of `network` take more than its share, while new connections are refused.
    pub fn is_heavy(&self, network: ClientNetwork) -> bool {
        self.is_refusing() && self.budget.0.clients.is_heavy(network)
    }

    /// The bytes of the queued frames of this thread, by the addresses of their ends, without those that another
    /// thread counts.
    pub fn claim(&self, frames: &HashMap<usize, usize>) -> usize {
        let mut claims = self.budget.claims();
        claims.retain(|_, thread| *thread != self.thread);
        let mut bytes = 0;
        for (end, length) in frames {
            if *claims.entry(*end).or_insert(self.thread) == self.thread {
                bytes += length;
            }
        }
        bytes
    }

    /// The largest send queue of the other threads.
    pub fn largest_of_others(&self) -> usize {
        let threads = self.budget.0.threads.iter().enumerate();
        let others = threads.filter(|(thread, _)| *thread != self.thread);
        others.map(|(_, thread)| thread.largest_queue.load(Relaxed)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
