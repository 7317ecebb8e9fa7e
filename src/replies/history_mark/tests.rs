use std::time::Duration;

use super::*;
use crate::broker::{Core, MemoryHistory, Publisher, ReadFrom};
use crate::config::{Config, SharedConfig};
use crate::protocol::ChannelName;

/// A channel with a history on a node without clients.
struct Bench {
    publisher: Publisher,
    channel: ChannelName,
    _core: Core,
}

impl Bench {
    fn new() -> Self {
        let text = "[[route]]\npath = \"/{id}/\"\nchannel = \"chat_{id}\"\nauth = [\"anonymous\"]\n\
                    [route.history]\nsize = 10\n";
        let config = Config::from_toml(text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let (core, _) = Core::new(1, 1 << 20);
        let (config, memory) = (SharedConfig::new(config), MemoryHistory::new(1 << 20));
        let publisher = Publisher::memory(core.intake(), config, memory, 1 << 20);
        Self { publisher, channel: ChannelName::new("chat_1").unwrap(), _core: core }
    }

    fn mark(&self) -> HistoryMark {
        let task = Task { channel: self.channel.clone(), id: "1".into() };
        HistoryMark::new(&self.publisher.history(), task)
    }

    async fn publish(&self) {
        self.publisher.publish(&self.channel, "{}".into(), None).await.unwrap();
    }

    /// The offset after which a client that connects now receives the channel.
    async fn start(&self) -> u64 {
        let page = self.publisher.history().read(&self.channel, ReadFrom::Running).await.unwrap();
        page.after.unwrap_or(page.now.offset)
    }

    async fn wait_for_start(&self, offset: u64) {
        let is_there = async {
            while self.start().await != offset {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), is_there).await.expect("in time");
    }
}

#[tokio::test]
async fn a_mark_is_removed_when_it_is_dropped() {
    let bench = Bench::new();
    bench.publish().await;
    let mark = bench.mark();
    mark.set().await;
    bench.publish().await;
    assert_eq!(bench.start().await, 1);
    drop(mark);
    bench.wait_for_start(2).await;
}

#[tokio::test]
async fn a_mark_that_the_upstream_names_keeps_its_start() {
    let bench = Bench::new();
    for is_set in [true, false] {
        let before = bench.start().await;
        let mark = bench.mark();
        mark.set().await;
        bench.publish().await;
        let task = Task { channel: bench.channel.clone(), id: "named".into() };
        let named = mark.named(task);
        if is_set {
            named.set().await;
        }
        assert_eq!(bench.start().await, before);
        drop(named);
        // Under neither id.
        bench.wait_for_start(before + 1).await;
    }
}

#[tokio::test]
async fn a_mark_that_was_left_stays_until_it_is_adopted_and_removed() {
    let bench = Bench::new();
    let mark = bench.mark();
    mark.set().await;
    mark.leave_set();
    bench.publish().await;
    drop(bench.mark());
    tokio::task::yield_now().await;
    assert_eq!(bench.start().await, 0, "a mark that was never set removes nothing");
    let task = bench.mark().task().clone();
    HistoryMark::adopt(&bench.publisher.history(), task).remove().await;
    assert_eq!(bench.start().await, 1);
}
