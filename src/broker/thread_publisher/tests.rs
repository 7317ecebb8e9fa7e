//! Publications of a worker thread to its own sockets, between those that come by way of the engine thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::broker::{Core, MemoryHistory, ReadFrom, Subscription, TailEvent};
use crate::config::{Config, SendQueue, SharedConfig};
use crate::socket::{ByteStream, Socket};

const MAX: usize = 64 * 1024;
const TTL: Duration = Duration::from_secs(60);
const TASK: &str = "task";

/// A gateway of two threads, which are tasks of one.
struct Gateway {
    /// It runs only if a test has it polled: what reaches a client before did not take that way.
    core: Option<Core>,
    publisher: Publisher,
    threads: Vec<(Rc<Broker>, ThreadPublisher)>,
    channel: ChannelName,
    count: AtomicUsize,
}

impl Gateway {
    fn new(
        observer: impl Fn(&ChannelName, &[u8], Option<Position>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let toml =
            "[[route]]\npath = \"/{id}/\"\nchannel = \"kept_{id}\"\nauth = [\"anonymous\"]\n";
        let config = Config::from_toml(toml).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let (mut core, handles) = Core::new(2, MAX);
        core.set_observer(observer);
        let (config, memory) = (SharedConfig::new(config), MemoryHistory::new(1 << 20));
        let publisher = Publisher::memory(core.intake(), config, memory, MAX);
        let thread = |handle| {
            let (broker, deliveries) = Broker::new(handle);
            tokio::task::spawn_local(deliveries);
            let own = ThreadPublisher::new(&publisher, &broker);
            (broker, own)
        };
        let threads = handles.into_iter().map(thread).collect();
        let channel = ChannelName::new("kept_1").unwrap();
        Self { core: Some(core), publisher, threads, channel, count: AtomicUsize::new(0) }
    }

    /// Makes subscriptions live. The engine thread's part does its work when the returned future is polled.
    fn start(&mut self) -> impl Future<Output = ()> + use<> {
        self.core.take().unwrap().run_memory(self.publisher.history())
    }

    async fn join(&self, thread: usize) -> Member {
        let (ours, peer) = tokio::io::duplex(1 << 20);
        let queue = SendQueue { messages: 1000, bytes: 1 << 20 };
        let socket = Rc::new(Socket::new(ByteStream::Memory(ours), 1000, queue));
        let subscription = self.threads[thread].0.subscribe(&self.channel, &socket).await.unwrap();
        Member { peer, read: VecDeque::new(), _subscription: subscription }
    }

    /// Publishes the next number from a worker thread, or by way of the engine thread if there is none.
    async fn publish(&self, thread: Option<usize>) -> Published {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let json: Bytes = format!("{{\"n\":{number}}}").into();
        match thread {
            Some(thread) => {
                let number = number as u64;
                let event = ReplyEvent { task_id: TASK, number, ttl: TTL, json: &json };
                self.threads[thread].1.publish_event(&self.channel, event).await.unwrap()
            }
            None => self.publisher.publish(&self.channel, json, None).await.unwrap(),
        }
    }
}

struct Member {
    peer: DuplexStream,
    read: VecDeque<u8>,
    _subscription: Subscription,
}

impl Member {
    /// Reads short frames, and returns their payloads without what the history adds.
    async fn next(&mut self) -> String {
        loop {
            if let Some(&length) = self.read.get(1)
                && self.read.len() >= 2 + usize::from(length)
            {
                let frame: Vec<u8> = self.read.drain(..2 + usize::from(length)).collect();
                assert_eq!(frame[0], 0x81);
                let json = String::from_utf8(frame[2..].to_vec()).unwrap();
                return json.split(",\"offset\"").next().unwrap().to_owned();
            }
            let mut bytes = [0; 4096];
            let length = self.peer.read(&mut bytes).await.unwrap();
            assert!(length > 0, "the connection was closed");
            self.read.extend(&bytes[..length]);
        }
    }

    async fn expect(&mut self, numbers: std::ops::RangeInclusive<usize>) {
        for number in numbers {
            assert_eq!(self.next().await, format!("{{\"n\":{number}"));
        }
    }
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    let deadline = Duration::from_secs(20);
    tokio::time::timeout(deadline, LocalSet::new().run_until(test)).await.expect("in time")
}

#[tokio::test(flavor = "current_thread")]
async fn what_goes_to_the_own_thread_does_not_wait_for_the_engine_thread() {
    local(async {
        let observed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&observed);
        let mut gateway = Gateway::new(move |_, _, _| {
            count.fetch_add(1, Ordering::Relaxed);
            true
        });
        // Never polled.
        let _engine = gateway.start();
        let mut member = gateway.join(0).await;
        for _ in 0..100 {
            gateway.publish(Some(0)).await;
        }
        member.expect(1..=100).await;
        assert_eq!(observed.load(Ordering::Relaxed), 100);
    })
    .await;
}

/// Each thread has a client, or only one of them; what the other publishes goes by way of the engine thread.
#[tokio::test(flavor = "current_thread")]
async fn both_ways_together_keep_the_order() {
    for joined in [&[0][..], &[0, 1]] {
        local(async {
            let mut gateway = Gateway::new(|_, _, _| true);
            tokio::task::spawn_local(gateway.start());
            let mut members = Vec::new();
            for thread in joined {
                members.push(gateway.join(*thread).await);
            }
            let mut state = 1_u32;
            for _ in 0..1000 {
                // A linear congruential generator: each run has the same steps.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                match state >> 29 {
                    0 => drop(gateway.publish(None).await),
                    1 => drop(gateway.publish(Some(1)).await),
                    2 => tokio::task::yield_now().await,
                    _ => drop(gateway.publish(Some(0)).await),
                }
            }
            let last = gateway.count.load(Ordering::Relaxed);
            for member in &mut members {
                member.expect(1..=last).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn tails_get_what_goes_to_the_own_thread() {
    local(async {
        let mut gateway = Gateway::new(|_, _, _| true);
        let tails = gateway.core.as_ref().unwrap().tails();
        tokio::task::spawn_local(gateway.start());
        let mut member = gateway.join(0).await;
        gateway.publish(Some(0)).await;
        let mut tail = tails.open(&gateway.channel, CancellationToken::new()).unwrap();
        assert!(matches!(tail.next().await, Some(TailEvent::Live)));
        gateway.publish(Some(0)).await;
        let Some(TailEvent::Publication(delivery)) = tail.next().await else { panic!() };
        assert_eq!(delivery.position.unwrap().offset, 2);
        drop(tail);
        gateway.publish(Some(0)).await;
        member.expect(1..=3).await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_the_observer_stops_leaves_the_history() {
    local(async {
        let mut gateway = Gateway::new(|_, json, _| json != b"{\"n\":2,\"offset\":2}");
        let _engine = gateway.start();
        let mut member = gateway.join(0).await;
        for _ in 0..3 {
            gateway.publish(Some(0)).await;
        }
        member.expect(1..=1).await;
        member.expect(3..=3).await;
        let history = gateway.publisher.history();
        let now = history.read(&gateway.channel, ReadFrom::Running).await.unwrap().now;
        let begin = ReadFrom::After(Position { offset: 0, ..now });
        let page = history.read(&gateway.channel, begin).await.unwrap();
        let kept = page.publications.iter().map(|one| one.position.unwrap().offset);
        assert!(kept.eq([1, 3]));
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_reply_that_has_ended_gets_no_more_events_on_either_way() {
    local(async {
        let mut gateway = Gateway::new(|_, _, _| true);
        tokio::task::spawn_local(gateway.start());
        let mut member = gateway.join(0).await;
        let end = |json: &'static str| {
            let once = PublishOnce { key: end_key(TASK), number: 1, ttl: TTL, unless: None };
            let json = Bytes::from_static(json.as_bytes());
            TerminalEvent { task_id: TASK.into(), json, once, cancellation: None }
        };
        gateway.publish(Some(0)).await;
        let own = &gateway.threads[0].1;
        assert!(!own.end_generation(&gateway.channel, &end("{\"n\":2}")).await.unwrap().duplicate);
        assert!(own.end_generation(&gateway.channel, &end("{}")).await.unwrap().duplicate);
        let other = &gateway.threads[1].1;
        assert!(other.end_generation(&gateway.channel, &end("{}")).await.unwrap().duplicate);
        assert!(gateway.publish(Some(0)).await.refused);
        assert!(gateway.publish(Some(1)).await.refused);
        let too_large = Bytes::from(vec![b'x'; MAX + 1]);
        let event = ReplyEvent { task_id: "other", number: 1, ttl: TTL, json: &too_large };
        let refused = own.publish_event(&gateway.channel, event).await;
        assert_eq!(refused, Err(PublishError::TooLarge));
        member.expect(1..=2).await;
    })
    .await;
}
