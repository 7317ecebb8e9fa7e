//! Channel histories in the memory of this process.

mod log;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::log::{Due, Kept, Log, Running};
use super::cancelled::CancelledChannels;
use super::remembered::RememberedCalls;
use super::{
    Cancellation, EPOCH_TTL, Extent, GENERATION_TTL, Page, PublishOnce, Published, ReadFrom,
    TerminalEvent, encode_received, end_key, new_epoch,
};
use crate::config;
use crate::protocol::{ChannelName, Position};
use crate::socket::Delivery;

/// The approximate bytes of a channel besides its publications.
const CHANNEL_BYTES: usize = 512;

/// Channels without publications may take this part of `max_bytes` in addition. They never cost another channel its
/// publications.
const EMPTY_PART: usize = 4;

/// The most running generations that are recorded for one channel. Beyond this the oldest are removed.
const MAX_RUNNING: usize = 64;

/// All histories, bounded in bytes. Cheap to clone, from any thread; the lock is held for a few
/// microseconds.
#[derive(Clone)]
pub struct MemoryHistory(Arc<Mutex<State>>);

struct State {
    max_bytes: usize,
    /// The bytes of the logs with publications.
    bytes: usize,
    /// The bytes of the logs without publications.
    empty_bytes: usize,
    /// In boxes, since a table has many free slots, and is there twice while it grows.
    channels: HashMap<ChannelName, Box<Log>>,
    /// The times at which logs with publications are swept. An entry that differs from its log's `due` is obsolete.
    due: DueTimes,
    /// The same for logs without publications.
    empty_due: DueTimes,
    remembered: RememberedCalls,
    cancelled: CancelledChannels,
}

impl MemoryHistory {
    /// `max_bytes` bounds the channels with publications together. Beyond it, those without new publications for the
    /// longest time lose theirs. Channels without publications have a bound of their own.
    pub fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            max_bytes,
            bytes: 0,
            empty_bytes: 0,
            channels: HashMap::new(),
            due: DueTimes::new(),
            empty_due: DueTimes::new(),
            remembered: RememberedCalls::default(),
            cancelled: CancelledChannels::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of all publications and channels.
    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Passes each publication to `emit`, in the order of the offsets even across threads. Without a `history` the
    /// publications are not stored.
    pub fn publish(
        &self,
        channel: &ChannelName,
        history: Option<&config::History>,
        data: &[Bytes],
        once: Option<&PublishOnce>,
        mut emit: impl FnMut(Delivery),
    ) -> Published {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(first) = once.and_then(|once| state.remembered.find_repeat(channel, once, now))
        {
            return Published { duplicate: true, ..first };
        }
        let has_ended = once
            .and_then(|once| once.unless.as_ref())
            .is_some_and(|end| state.remembered.contains(channel, end, now));
        if has_ended {
            return Published { position: None, duplicate: false, refused: true };
        }
        let data: Vec<_> =
            data.iter().filter(|json| !state.cancelled.covers(channel, json, now)).collect();
        let refused = data.is_empty();
        let position = state.publish(channel, history, &data, now, &mut emit);
        let published = Published { position, duplicate: false, refused };
        if let Some(once) = once {
            state.remembered.remember(channel, once, published, now);
        }
        published
    }

    /// Publishes a task's terminal event once, and records its end in the same step. end_generation.lua does the same.
    pub fn end_generation(
        &self,
        channel: &ChannelName,
        history: Option<&config::History>,
        terminal: &TerminalEvent,
        mut emit: impl FnMut(Delivery),
    ) -> Published {
        let TerminalEvent { task_id, json, once, cancellation } = terminal;
        let now = Instant::now();
        let mut state = self.state();
        if let Some(first) = state.remembered.find_repeat(channel, once, now) {
            return Published { duplicate: true, ..first };
        }
        if let Some(Cancellation { unnamed }) = cancellation {
            state.cancelled.cancel(channel, task_id, unnamed.clone(), now);
        }
        state.record_generation_end(channel, task_id);
        let position = state.publish(channel, history, &[json], now, &mut emit);
        let published = Published { position, duplicate: false, refused: false };
        state.remembered.remember(channel, once, published, now);
        published
    }

    /// A task starts, to which events without a task id may belong.
    pub fn start_task(&self, channel: &ChannelName, task_id: &str) {
        let mut state = self.state();
        state.remembered.forget(channel, || end_key(task_id));
        state.cancelled.start(channel, task_id);
    }

    /// `epoch_ttl` is the lifetime of an epoch that this call starts.
    pub fn read(&self, channel: &ChannelName, from: ReadFrom, epoch_ttl: Duration) -> Page {
        let now = Instant::now();
        let mut state = self.state();
        state.sweep(now);
        state.log(channel, epoch_ttl, now).read(from, now)
    }

    pub fn extent(&self, channel: &ChannelName) -> Option<Extent> {
        let mut state = self.state();
        state.sweep(Instant::now());
        let log = state.channels.get(channel)?;
        Some(Extent {
            now: Position { epoch: log.epoch, offset: log.offset },
            oldest: log.oldest(),
            kept: log.kept.as_ref().map_or(0, |kept| kept.publications.len() as u64),
        })
    }

    /// A task that is recorded twice is removed by one end, and counts from its first start.
    pub fn record_generation_start(
        &self,
        channel: &ChannelName,
        task_id: &str,
        replaced: Option<&str>,
    ) {
        let now = Instant::now();
        let mut state = self.state();
        let log = state.log(channel, GENERATION_TTL, now);
        let offset = log.offset;
        let Kept { running: all, .. } = log.kept();
        let expired = all.iter().take_while(|running| running.expires_at <= now).count();
        all.drain(..expired);
        let replaced = replaced.and_then(|replaced| {
            let index = all.iter().position(|running| *running.task_id == *replaced)?;
            Some(all.remove(index)?.start)
        });
        if all.len() >= MAX_RUNNING {
            all.pop_front();
        }
        all.push_back(Running {
            task_id: task_id.into(),
            start: replaced.unwrap_or(offset),
            expires_at: now + GENERATION_TTL,
        });
    }

    pub fn record_generation_end(&self, channel: &ChannelName, task_id: &str) {
        self.state().record_generation_end(channel, task_id);
    }

    pub fn remove(&self, channel: &ChannelName, position: Position) {
        let mut state = self.state();
        let Some(log) = state.channels.get_mut(channel) else { return };
        let Some(kept) = &mut log.kept else { return };
        let before = kept.bytes;
        kept.publications.retain(|publication| publication.position != Some(position));
        kept.bytes = kept.publications.iter().map(|publication| publication.frame.len()).sum();
        let freed = before - kept.bytes;
        log.free_unused();
        state.bytes -= freed;
    }
}

impl State {
    fn record_generation_end(&mut self, channel: &ChannelName, task_id: &str) {
        if let Some(log) = self.channels.get_mut(channel)
            && let Some(kept) = &mut log.kept
        {
            kept.running.retain(|running| *running.task_id != *task_id);
            log.free_unused();
        }
    }

    /// The channel's log. If there is none, a new log with a new epoch is created.
    fn log(&mut self, channel: &ChannelName, epoch_ttl: Duration, now: Instant) -> &mut Log {
        if !self.channels.contains_key(channel) {
            let deadline = Due::from(now + epoch_ttl);
            let log = Log {
                epoch: new_epoch(),
                offset: 0,
                kept: None,
                deadline,
                due: deadline,
                is_stored: false,
            };
            self.channels.insert(channel.clone(), Box::new(log));
            self.empty_due.push(Reverse((deadline, channel.clone())));
            self.empty_bytes += CHANNEL_BYTES;
        }
        self.channels.get_mut(channel).expect("the log exists or was just inserted")
    }

    /// Publishes, and returns the position of the last publication.
    fn publish(
        &mut self,
        channel: &ChannelName,
        history: Option<&config::History>,
        data: &[&Bytes],
        now: Instant,
        emit: &mut impl FnMut(Delivery),
    ) -> Option<Position> {
        let Some(history) = history else {
            data.iter().for_each(|json| emit(encode_received(channel, json, None)));
            return None;
        };
        let mut position = None;
        for json in data {
            let delivery = self.append(channel, history, json, now);
            position = delivery.position;
            emit(delivery);
        }
        self.sweep(now);
        position
    }

    fn append(
        &mut self,
        channel: &ChannelName,
        history: &config::History,
        json: &[u8],
        now: Instant,
    ) -> Delivery {
        let log = self.log(channel, history.ttl, now);
        log.offset += 1;
        let delivery =
            encode_received(channel, json, Some(Position { epoch: log.epoch, offset: log.offset }));
        let kept = log.kept();
        let before = kept.bytes;
        kept.bytes += delivery.frame.len();
        kept.publications.push_back(delivery.clone());
        while kept.publications.len() > history.size
            && let Some(oldest) = kept.publications.pop_front()
        {
            kept.bytes -= oldest.frame.len();
        }
        let after = kept.bytes;
        let deadline = Due::from(now + history.ttl);
        log.deadline = deadline;
        let was_stored = std::mem::replace(&mut log.is_stored, true);
        let is_due_anew = !was_stored || deadline < log.due;
        if is_due_anew {
            log.due = deadline;
        }
        self.bytes = self.bytes + after - before;
        if !was_stored {
            self.empty_bytes -= CHANNEL_BYTES;
            self.bytes += CHANNEL_BYTES;
        }
        if is_due_anew {
            self.due.push(Reverse((deadline, channel.clone())));
        }
        delivery
    }

    /// Removes what is due and, as long as a bound is exceeded, what is due next.
    fn sweep(&mut self, now: Instant) {
        let epoch_end = Due::from(now + EPOCH_TTL);
        let now = Due::from(now);
        while let Some((due, channel)) = pop_due(&mut self.due, now, self.bytes > self.max_bytes) {
            let Some(log) = self.channels.get_mut(&channel) else { continue };
            if due != log.due || !log.is_stored {
                continue;
            }
            // If the two differ, something was published after the entry was queued.
            if due != log.deadline {
                log.due = log.deadline;
                self.due.push(Reverse((log.due, channel)));
                continue;
            }
            self.bytes -= log.forget_publications() + CHANNEL_BYTES;
            if due > now {
                self.channels.remove(&channel);
                continue;
            }
            log.is_stored = false;
            log.deadline = epoch_end;
            log.due = log.deadline;
            self.empty_due.push(Reverse((log.due, channel)));
            self.empty_bytes += CHANNEL_BYTES;
        }
        let max_empty = self.max_bytes / EMPTY_PART;
        while let Some((due, channel)) =
            pop_due(&mut self.empty_due, now, self.empty_bytes > max_empty)
        {
            let log = self.channels.get(&channel);
            if log.is_some_and(|log| due == log.due && !log.is_stored) {
                self.channels.remove(&channel);
                self.empty_bytes -= CHANNEL_BYTES;
            }
        }
    }
}

type DueTimes = BinaryHeap<Reverse<(Due, ChannelName)>>;

/// Removes the first entry if it is due, or in any case if `is_full`.
fn pop_due(due: &mut DueTimes, now: Due, is_full: bool) -> Option<(Due, ChannelName)> {
    let Reverse((at, _)) = due.peek()?;
    (*at <= now || is_full).then(|| due.pop())?.map(|Reverse(entry)| entry)
}

#[cfg(test)]
mod tests;
