//! Tells the threads and the tails what became of the subscriptions of channels.

use crate::broker::catch_up::CatchUps;
use crate::broker::channels::Gap;
use crate::broker::thread::ToThread;
use crate::protocol::ChannelName;

impl CatchUps {
    /// Notifies the threads and tails of `channel` that Redis refuses the subscription.
    pub(super) async fn refuse(&self, channel: &ChannelName) {
        self.tails.refuse(channel);
        for (thread, join_id) in self.listeners_of(channel) {
            let refused = ToThread::Refused(channel.clone(), join_id);
            // A thread that has ended has no listeners.
            let _ = self.threads[thread].send(refused).await;
        }
    }

    /// Notifies each thread, and the tails, which of `channels` are subscribed.
    pub(super) async fn confirm(&self, channels: Vec<ChannelName>) {
        let mut confirmed: Vec<Vec<_>> = self.threads.iter().map(|_| Vec::new()).collect();
        for channel in channels {
            self.tails.confirm(&channel);
            for (thread, join_id) in self.listeners_of(&channel) {
                confirmed[thread].push((channel.clone(), join_id));
            }
        }
        for (thread, confirmed) in self.threads.iter().zip(confirmed) {
            if !confirmed.is_empty() {
                // A thread that has ended has no listeners.
                let _ = thread.send(ToThread::Confirmed(confirmed)).await;
            }
        }
    }

    /// Has the clients of the channels disconnected that cannot be caught up. Returns the others, each with the number of
    /// its catch-up.
    pub(super) async fn report_lost(&self, gap: Gap) -> Vec<(ChannelName, u64)> {
        for (thread, channels) in gap.lost {
            // A thread that has ended has no clients.
            let _ = self.threads[thread].send(ToThread::Gap(channels)).await;
        }
        gap.catch_up
    }

    /// The threads that listen to `channel`, each with the id of its join.
    fn listeners_of(&self, channel: &ChannelName) -> Vec<(usize, u64)> {
        let channels = self.channels.lock();
        channels.listeners(channel).iter().map(|l| (l.thread, l.join_id)).collect()
    }
}
