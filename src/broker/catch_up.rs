//! Reads from a channel's history what this node missed of it, and hands it to the threads as if it had
//! come live.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Publication;
use super::channels::Channels;
use super::core::Observer;
use super::history::{History, Page, ReadFrom};
use super::tails::Tails;
use super::thread::ToThread;
use crate::protocol::ChannelName;
use crate::socket::frame;
use crate::telemetry;

/// For how long an engine that does not answer is asked again; after it, the clients are sent away to
/// resume by themselves.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// Starts catch-ups. Cheap to clone, on the engine thread.
#[derive(Clone)]
pub(super) struct CatchUps {
    pub channels: Rc<RefCell<Channels>>,
    pub threads: Rc<[mpsc::Sender<ToThread>]>,
    pub history: History,
    pub observer: Observer,
    pub tails: Tails,
}

impl CatchUps {
    /// `number` is the catch-up's own, from the books.
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

    /// Returns whether nothing is missing.
    async fn run(&self, channel: &ChannelName, number: u64) -> bool {
        let began = Instant::now();
        loop {
            let Some(after) = self.channels.borrow().reads_after(channel, number) else {
                return true;
            };
            match self.history.read(channel, ReadFrom::After(after)).await {
                Ok(Page { after: None, now, .. }) => {
                    if now.epoch == after.epoch {
                        let _or_another_node_does = self.history.rotate_epoch(channel, after).await;
                    }
                    return false;
                }
                Ok(page) => {
                    let last = page.publications.last().and_then(|last| last.position);
                    // At the end, some may have been taken out behind the last that is there.
                    let position = if page.complete { page.now } else { last.unwrap_or(after) };
                    let moved = position != after;
                    let to_end = page.complete;
                    self.hand_on(channel, page).await;
                    let done =
                        self.channels.borrow_mut().caught_up(channel, number, position, to_end);
                    if done {
                        return true;
                    }
                    if moved {
                        continue;
                    }
                }
                Err(_) => {}
            }
            if began.elapsed() > PATIENCE {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether the observer lets it pass, which tails see then; what it does not is taken out of the
    /// history.
    pub fn observe(&self, publication: &Publication) -> bool {
        let Publication { channel, delivery, .. } = publication;
        let passes = (self.observer)(channel, frame::payload(&delivery.frame), delivery.position);
        if passes {
            self.tails.deliver(channel, delivery);
        } else if let Some(position) = delivery.position {
            let (history, channel) = (self.history.clone(), channel.clone());
            tokio::task::spawn_local(async move {
                let _or_it_is_delivered_late = history.remove(&channel, position).await;
            });
        }
        passes
    }

    async fn hand_on(&self, channel: &ChannelName, page: Page) {
        if page.publications.is_empty() {
            return;
        }
        let received = Instant::now();
        let publication = |delivery| Publication { channel: channel.clone(), delivery, received };
        let batch = page.publications.into_iter().map(publication);
        let batch: Vec<_> = batch.filter(|publication| self.observe(publication)).collect();
        for thread in self.threads_of(channel) {
            let _thread_ended = self.threads[thread].send(ToThread::Batch(batch.clone())).await;
        }
    }

    async fn give_up(&self, channel: &ChannelName, number: u64) {
        for thread in self.threads_of(channel) {
            let gap = ToThread::Gap(vec![channel.clone()]);
            let _thread_ended = self.threads[thread].send(gap).await;
        }
        self.tails.report_gap(channel);
        self.channels.borrow_mut().give_up(channel, number);
    }

    fn threads_of(&self, channel: &ChannelName) -> Vec<usize> {
        self.channels.borrow().listeners(channel).iter().map(|listener| listener.thread).collect()
    }
}
