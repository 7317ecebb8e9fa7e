//! What the sessions of a thread hold in memory, and which of them are closed when the node's budget is used up.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{Session, SessionRegistry};
use crate::limits::{HeldByClient, HeldMemory, SMALLEST_CLOSED, ThreadBudget};
use crate::protocol::{ClientNetwork, CloseReason};
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
        held.in_progress += self.client.forwarded().map_or(0, |kept| kept.bytes());
    }

    /// What this session holds besides itself, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let forwarded = self.client.forwarded().map_or(0, |kept| kept.bytes());
        self.socket.queued_bytes() + self.message_bytes() + forwarded
    }

    /// The bytes of this client's messages that are not complete, wait, or are on their way to the upstream.
    fn message_bytes(&self) -> usize {
        self.socket.partial_bytes() + self.bytes_in_progress()
    }

    /// What counts as the address of this client.
    pub(super) fn network(&self) -> ClientNetwork {
        ClientNetwork::of(self.client.address, self.services.config().config.limits.ipv6_prefix)
    }
}

impl SessionRegistry {
    /// Reports what the sessions hold. If the node is over its budget and the largest send queue is one of this
    /// thread, closes the largest ones. If that has not helped, closes clients whose messages take too much.
    pub(super) fn keep_budget(&self, budget: &ThreadBudget, mut held: HeldMemory) {
        let exceeds = budget.would_exceed(held);
        budget.clients_measured(match exceeds || budget.is_refusing() {
            true => self.held_by_client(),
            false => HeldByClient::new(),
        });
        if !exceeds {
            budget.measured(held, false);
            return;
        }
        // One publication waits in the queues of many clients, and takes its memory once.
        held.queues = self.distinct_queued_bytes(budget);
        let over = budget.measured(held, true);
        if over == 0 {
            return;
        }
        let over = self.close_queues(budget, &mut held, over);
        self.close_heavy(budget, over);
        budget.measured(held, true);
    }

    /// Closes the largest send queues. Returns how many bytes the node is still over its budget.
    fn close_queues(&self, budget: &ThreadBudget, held: &mut HeldMemory, mut over: usize) -> usize {
        let others = budget.largest_of_others();
        if held.largest_queue < others {
            return over;
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
            telemetry::process::memory_queue_closed(session.client.connection_id, bytes, over);
            session.socket.close(CloseReason::TooSlow);
            over = over.saturating_sub(bytes);
            held.queues = held.queues.saturating_sub(bytes);
        }
        over
    }

    /// Closes the connections with the largest messages of the networks that hold more than their share, if new ones
    /// of these networks are refused already. What they held is measured in the next round.
    fn close_heavy(&self, budget: &ThreadBudget, mut over: usize) {
        let mut heavy: Vec<_> = self.open_sessions();
        heavy.retain(|session| session.message_bytes() > 0 && budget.is_heavy(session.network()));
        heavy.sort_by_cached_key(|session| Reverse(session.message_bytes()));
        for session in heavy {
            if over == 0 {
                break;
            }
            let (id, bytes) = (session.client.connection_id, session.message_bytes());
            telemetry::process::memory_client_closed(id, session.network(), bytes, over);
            session.socket.close(CloseReason::Overloaded);
            session.drop_waiting();
            over = over.saturating_sub(bytes);
        }
    }

    fn held_by_client(&self) -> HeldByClient {
        let mut held = HeldByClient::new();
        for session in self.open_sessions::<Vec<_>>() {
            match session.message_bytes() {
                0 => {}
                bytes => *held.entry(session.network()).or_default() += bytes,
            }
        }
        held
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
