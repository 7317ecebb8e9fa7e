//! Reads the publications that this node missed from a channel's history, and delivers them to the threads as if
//! they had arrived live.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Publication;
use super::channels::SharedChannels;
use super::history::{History, Page, ReadFrom};
use super::tails::Tails;
use super::thread::ToThread;
use crate::protocol::{ChannelName, Position, ReplyEnd};
use crate::socket::frame;
use crate::telemetry;

/// How long a read is retried while the engine does not answer. After that the clients are disconnected, so that
/// each resumes by itself.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// The pause between two reads.
const PAUSE: Duration = Duration::from_millis(100);

/// Gets every publication before it is delivered: its channel, its data, and its position where it has one.
/// Returns whether to deliver it; if not, it is removed from the history.
pub type Observer = Arc<dyn Fn(&ChannelName, &[u8], Option<Position>) -> bool + Send + Sync>;

/// Tells which reply a publication of a channel ends; `None` if it is not a terminal event.
pub type EndReader = Rc<dyn Fn(&ChannelName, &[u8]) -> Option<ReplyEnd>>;

/// Starts catch-ups. Cheap to clone, on the engine thread.
#[derive(Clone)]
pub(super) struct CatchUps {
    pub channels: SharedChannels,
    pub threads: Rc<[mpsc::Sender<ToThread>]>,
    pub history: History,
    pub observer: Observer,
    pub tails: Tails,
}

impl CatchUps {
    /// Starts the catch-up to which [`Channels`](super::channels::Channels) gave this `number`.
    pub fn start(&self, channel: ChannelName, number: u64) {
        let catch_ups = self.clone();
        tokio::task::spawn_local(async move {
            let caught_up = catch_ups.run(&channel, number).await;
            telemetry::delivery::caught_up(&channel, caught_up);
            if !caught_up {
                catch_ups.give_up(&channel, number).await;
            }
        });
    }

    /// Returns whether everything that was missed has been delivered, or is no longer needed.
    async fn run(&self, channel: &ChannelName, number: u64) -> bool {
        let began = Instant::now();
        loop {
            let Some(after) = self.channels.lock().next_read(channel, number) else {
                return true;
            };
            match self.history.read(channel, ReadFrom::After(after)).await {
                Ok(Page { after: None, now, .. }) => {
                    if now.epoch == after.epoch {
                        // On failure, another node that received these publications may still succeed.
                        let _ = self.history.rotate_epoch(channel, after).await;
                    }
                    return false;
                }
                Ok(page) => {
                    let last = page.publications.last().and_then(|last| last.position);
                    // Publications at the end of the history may have been removed.
                    let position = if page.complete { page.now } else { last.unwrap_or(after) };
                    let moved = position != after;
                    let to_end = page.complete;
                    self.deliver(channel, page).await;
                    let done = self.channels.lock().record_read(channel, number, position, to_end);
                    if done {
                        return true;
                    }
                    if moved {
                        continue;
                    }
                }
                Err(_) => {}
            }
            if began.elapsed() > GIVE_UP_AFTER {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Passes a publication to the observer. If it is to be delivered, delivers it to the tails; if not, removes
    /// it from the history. Returns whether it is to be delivered.
    pub fn observe(&self, publication: &Publication) -> bool {
        let Publication { channel, delivery, .. } = publication;
        let is_delivered =
            (self.observer)(channel, frame::payload(&delivery.frame), delivery.position);
        if is_delivered {
            self.tails.deliver(channel, delivery);
        } else if let Some(position) = delivery.position {
            let (history, channel) = (self.history.clone(), channel.clone());
            tokio::task::spawn_local(async move {
                // If this fails, clients that resume get the publication all the same.
                let _ = history.remove(&channel, position).await;
            });
        }
        is_delivered
    }

    async fn deliver(&self, channel: &ChannelName, page: Page) {
        if page.publications.is_empty() {
            return;
        }
        let received = Instant::now();
        let publication = |delivery| Publication { channel: channel.clone(), delivery, received };
        let batch = page.publications.into_iter().map(publication);
        let mut batch: Vec<_> = batch.filter(|publication| self.observe(publication)).collect();
        let threads = self.threads_of(channel);
        if threads.len() > 1 {
            batch.iter_mut().for_each(|publication| publication.delivery.share_compressed());
        }
        for thread in threads {
            // A thread that has ended has no clients.
            let _ = self.threads[thread].send(ToThread::Batch(batch.clone())).await;
        }
    }

    async fn give_up(&self, channel: &ChannelName, number: u64) {
        for thread in self.threads_of(channel) {
            let gap = ToThread::Gap(vec![channel.clone()]);
            // A thread that has ended has no clients.
            let _ = self.threads[thread].send(gap).await;
        }
        self.tails.report_gap(channel);
        self.channels.lock().give_up(channel, number);
    }

    fn threads_of(&self, channel: &ChannelName) -> Vec<usize> {
        self.channels.lock().listeners(channel).iter().map(|listener| listener.thread).collect()
    }
}
