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
    TerminalEvent, encode_received, new_epoch,
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
        let key = once.map(|once| state.remembered.key(channel, &once.key));
        if let (Some(once), Some(key)) = (once, key) {
            if let Some(first) = state.remembered.find_repeat(key, once.number, now) {
                return Published { duplicate: true, ..first };
            }
            if let Some(unless) = &once.unless {
                let unless = state.remembered.key(channel, unless);
                if state.remembered.contains(unless, now) {
                    return Published { position: None, duplicate: false, refused: true };
                }
            }
        }
        let published = state.publish_uncancelled(channel, history, data, now, &mut emit);
        if let (Some(once), Some(key)) = (once, key) {
            state.remembered.remember(key, once, published, now);
        }
        published
    }

    /// Publishes an event of a task that has not ended, if `may_publish` says so while no other thread can publish.
    /// Nothing of the call is remembered: one that comes back without having published can be repeated.
    pub fn publish_event_if(
        &self,
        may_publish: impl FnOnce() -> bool,
        channel: &ChannelName,
        history: Option<&config::History>,
        task_id: &str,
        json: &Bytes,
        emit: &mut dyn FnMut(Delivery),
    ) -> Option<Published> {
        let now = Instant::now();
        let mut state = self.state();
        if !may_publish() {
            return None;
        }
        let end = state.remembered.end_key(channel, task_id);
        if state.remembered.contains(end, now) {
            return Some(Published { position: None, duplicate: false, refused: true });
        }
        let data = std::slice::from_ref(json);
        Some(state.publish_uncancelled(channel, history, data, now, emit))
    }

    /// Publishes a task's terminal event once, and records its end in the same step. end_generation.lua does the same.
    pub fn end_generation(
        &self,
        channel: &ChannelName,
        history: Option<&config::History>,
        terminal: &TerminalEvent,
        mut emit: impl FnMut(Delivery),
    ) -> Published {
        self.state().end_generation(channel, history, terminal, &mut emit)
    }

    /// The same, if `may_publish` says so while no other thread can publish.
    pub fn end_generation_if(
        &self,
        may_publish: impl FnOnce() -> bool,
        channel: &ChannelName,
        history: Option<&config::History>,
        terminal: &TerminalEvent,
        emit: &mut dyn FnMut(Delivery),
    ) -> Option<Published> {
        let mut state = self.state();
        may_publish().then(|| state.end_generation(channel, history, terminal, emit))
    }

    /// A task starts, to which events without a task id may belong.
    pub fn start_task(&self, channel: &ChannelName, task_id: &str) {
        let mut state = self.state();
        let end = state.remembered.end_key(channel, task_id);
        state.remembered.forget(end);
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
    fn end_generation(
        &mut self,
        channel: &ChannelName,
        history: Option<&config::History>,
        terminal: &TerminalEvent,
        emit: &mut dyn FnMut(Delivery),
    ) -> Published {
        let TerminalEvent { task_id, json, once, cancellation } = terminal;
        let now = Instant::now();
        let key = self.remembered.key(channel, &once.key);
        if let Some(first) = self.remembered.find_repeat(key, once.number, now) {
            return Published { duplicate: true, ..first };
        }
        if let Some(Cancellation { unnamed }) = cancellation {
            self.cancelled.cancel(channel, task_id, unnamed.clone(), now);
        }
        self.record_generation_end(channel, task_id);
        let position = self.publish(channel, history, std::iter::once(json), now, emit);
        let published = Published { position, duplicate: false, refused: false };
        self.remembered.remember(key, once, published, now);
        published
    }

    /// Publishes what does not belong to a cancelled task.
    fn publish_uncancelled(
        &mut self,
        channel: &ChannelName,
        history: Option<&config::History>,
        data: &[Bytes],
        now: Instant,
        emit: &mut dyn FnMut(Delivery),
    ) -> Published {
        if !self.cancelled.has_any(channel) {
            let position = self.publish(channel, history, data.iter(), now, emit);
            return Published { position, duplicate: false, refused: data.is_empty() };
        }
        let data: Vec<_> =
            data.iter().filter(|json| !self.cancelled.covers(channel, json, now)).collect();
        let refused = data.is_empty();
        let position = self.publish(channel, history, data.into_iter(), now, emit);
        Published { position, duplicate: false, refused }
    }

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
    fn publish<'a>(
        &mut self,
        channel: &ChannelName,
        history: Option<&config::History>,
        data: impl Iterator<Item = &'a Bytes>,
        now: Instant,
        emit: &mut dyn FnMut(Delivery),
    ) -> Option<Position> {
        let Some(history) = history else {
            data.for_each(|json| emit(encode_received(channel, json, None)));
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
