//! What the sessions of a thread hold in memory, and which send queue is closed when the node's budget is used up.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{Session, SessionRegistry};
use crate::limits::{HeldMemory, SMALLEST_CLOSED, ThreadBudget};
use crate::protocol::CloseReason;
use crate::telemetry;

/// The most frames that are compared in order to count a shared one once. The frames of further connections count
/// in full.
const MAX_COMPARED: usize = 100_000;

impl Session {
    /// Adds what this session holds.
    pub(super) fn add_memory(&self, held: &mut HeldMemory) {
        let queued = self.socket.queued_bytes();
        held.queues += queued;
        held.largest_queue = held.largest_queue.max(queued);
        held.partial_messages += self.socket.partial_bytes();
        held.in_progress += self.bytes_in_progress();
    }
}

impl SessionRegistry {
    /// Reports what the sessions hold. If the node is over its budget and the largest send queue is one of this
    /// thread, closes the largest ones.
    pub(super) fn keep_budget(&self, budget: &ThreadBudget, mut held: HeldMemory) {
        if !budget.would_exceed(held) {
            budget.measured(held, false);
            return;
        }
        // One publication waits in the queues of many clients, and takes its memory once.
        held.queues = self.distinct_queued_bytes(budget);
        let mut over = budget.measured(held, true);
        let others = budget.largest_of_others();
        if over == 0 || held.largest_queue < others {
            return;
        }
        let mut queues: Vec<_> = self.open_sessions();
        queues.retain(|session| session.socket.queued_bytes() >= SMALLEST_CLOSED);
        queues.sort_by_cached_key(|session| Reverse(session.socket.queued_bytes()));
        held.largest_queue = 0;
        for session in queues {
            let bytes = session.socket.queued_bytes();
            if over == 0 || bytes < others {
                held.largest_queue = bytes;
                break;
            }
            telemetry::process::memory_closed(session.client.connection_id, bytes, over);
            session.socket.close(CloseReason::TooSlow);
            over = over.saturating_sub(bytes);
            held.queues = held.queues.saturating_sub(bytes);
        }
        budget.measured(held, true);
    }

    fn distinct_queued_bytes(&self, budget: &ThreadBudget) -> usize {
        let (mut frames, mut others) = (HashMap::new(), 0);
        for session in self.open_sessions::<Vec<_>>() {
            if frames.len() >= MAX_COMPARED {
                others += session.socket.queued_bytes();
            } else {
                session.socket.for_each_queued(&mut |frame| {
                    // Frames are shared: the same one ends at the same address, even if a part of it is sent.
                    let end = frame.as_ptr_range().end as usize;
                    let longest = frames.entry(end).or_insert(0);
                    *longest = frame.len().max(*longest);
                });
            }
        }
        budget.claim(&frames) + others
    }
}
