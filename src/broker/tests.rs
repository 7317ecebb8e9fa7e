//! Tests of the broker's parts, combined as the gateway combines them, on memory and on a real Redis.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, DuplexStream, ReadBuf};
use tokio::task::LocalSet;

use super::*;
use crate::config::{Config, RedisUrl, SendQueue, SharedConfig};
use crate::protocol::{CloseReason, Position};
use crate::redis_link::Commands;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;
use crate::socket::{ByteStream, ConnectionEnd, Socket};

const MAX: usize = 64 * 1024;

/// Channels called `kept_…` keep a history of [`KEPT`].
fn config() -> SharedConfig {
    let text = format!(
        "[[route]]\npath = \"/{{id}}/\"\nchannel = \"kept_{{id}}\"\nauth = [\"anonymous\"]\n\
         history = {{ size = {KEPT}, ttl = \"60s\", compact = \"off\" }}\n"
    );
    SharedConfig::new(Config::from_toml(&text).unwrap_or_else(|mistakes| panic!("{mistakes}")))
}

const KEPT: usize = 100;

struct Node {
    broker: Rc<Broker>,
    publisher: Publisher,
    live: Arc<AtomicBool>,
    commands: Option<Commands>,
}

impl Node {
    fn memory() -> Self {
        Self::observed(None, |_, _, _| true)
    }

    fn redis(url: &RedisUrl) -> Self {
        Self::observed(Some(url), |_, _, _| true)
    }

    fn observed(
        redis: Option<&RedisUrl>,
        observer: impl Fn(&ChannelName, &[u8], Option<Position>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let (mut core, handles) = Core::new(1, MAX);
        core.set_observer(observer);
        match redis {
            None => Self::on_memory(core, handles),
            Some(url) => Self::on_redis(core, handles, url),
        }
    }

    fn on_memory(core: Core, handles: Vec<WorkerHandle>) -> Self {
        let publisher =
            Publisher::memory(core.intake(), config(), MemoryHistory::new(1 << 20), MAX);
        let live = core.live();
        tokio::task::spawn_local(core.run_memory(publisher.history()));
        Self::with_broker(handles, publisher, live, None)
    }

    fn on_redis(core: Core, handles: Vec<WorkerHandle>, url: &RedisUrl) -> Self {
        let shutdown = Shutdown::new();
        let commands = Commands::start(url, "test", &shutdown).unwrap();
        let publisher = Publisher::redis(commands.clone(), "tg:", config(), MAX);
        let live = core.live();
        tokio::task::spawn_local(core.run_redis(url, None, publisher.history(), shutdown).unwrap());
        Self::with_broker(handles, publisher, live, Some(commands))
    }

    fn with_broker(
        handles: Vec<WorkerHandle>,
        publisher: Publisher,
        live: Arc<AtomicBool>,
        commands: Option<Commands>,
    ) -> Self {
        let (broker, deliveries) = Broker::new(handles.into_iter().next().unwrap());
        tokio::task::spawn_local(deliveries);
        Self { broker, publisher, live, commands }
    }

    async fn up(&self) {
        until(|| self.broker.is_live()).await;
        if let Some(commands) = &self.commands {
            until(|| commands.is_up()).await;
        }
    }

    async fn join(&self, channel: &str) -> Member {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let queue = SendQueue { messages: 1000, bytes: 1 << 20 };
        let socket = Rc::new(Socket::new(ByteStream::Memory(ours), 1000, queue));
        let channel = ChannelName::new(channel).unwrap();
        let subscription = self.broker.subscribe(&channel, &socket).await.unwrap();
        Member { socket, peer: theirs, subscription: Some(subscription) }
    }

    async fn publish(&self, channel: &str, json: &str) {
        let channel = ChannelName::new(channel).unwrap();
        let json = Bytes::copy_from_slice(json.as_bytes());
        assert!(self.publisher.publish(&channel, json, None).await.is_ok());
    }
}

struct Member {
    socket: Rc<Socket>,
    peer: DuplexStream,
    subscription: Option<Subscription>,
}

impl Member {
    async fn next(&mut self) -> String {
        let mut head = [0; 2];
        self.peer.read_exact(&mut head).await.unwrap();
        assert_eq!(head[0], 0x81);
        let mut payload = vec![0; usize::from(head[1])];
        self.peer.read_exact(&mut payload).await.unwrap();
        String::from_utf8(payload).unwrap()
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    let deadline = Duration::from_secs(30);
    tokio::time::timeout(deadline, LocalSet::new().run_until(test)).await.expect("in time")
}

/// Runs on both engines.
async fn publications_reach_their_channel_in_order(node: Node) {
    node.up().await;
    let mut a = node.join("chat_1").await;
    let mut b = node.join("chat_1").await;
    let mut other = node.join("chat_2").await;
    for n in 0..200 {
        node.publish("chat_1", &n.to_string()).await;
    }
    node.publish("chat_2", "other").await;
    for member in [&mut a, &mut b] {
        for n in 0..200 {
            assert_eq!(member.next().await, n.to_string());
        }
    }
    assert_eq!(other.next().await, "other");
    // A socket can leave and join again before the engine has confirmed the leave.
    b.subscription.take();
    a.subscription.take();
    let mut again = node.join("chat_1").await;
    node.publish("chat_1", "again").await;
    assert_eq!(again.next().await, "again");
    let too_large = Bytes::from(vec![b'x'; MAX + 1]);
    let channel = ChannelName::new("chat_1").unwrap();
    assert_eq!(
        node.publisher.publish(&channel, too_large, None).await,
        Err(PublishError::TooLarge)
    );
}

#[tokio::test(flavor = "current_thread")]
async fn memory_delivers_in_order() {
    local(async { publications_reach_their_channel_in_order(Node::memory()).await }).await;
}

/// Sends a publication to the channel of this number as soon as the one before it is delivered, so that one is always
/// waiting.
struct Engine {
    to_thread: tokio::sync::mpsc::Sender<thread::ToThread>,
    next: usize,
    delivered: Arc<AtomicUsize>,
}

impl Engine {
    fn send(&self) {
        let publication = Publication {
            channel: ChannelName::new(&format!("chat_{}", self.next)).unwrap(),
            delivery: Delivery::new(crate::socket::frame::text("hi"), None),
            received: std::time::Instant::now(),
        };
        let batch = thread::ToThread::Batch(vec![publication]);
        assert!(self.to_thread.try_send(batch).is_ok());
    }
}

impl Wake for Engine {
    fn wake(self: Arc<Self>) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        self.send();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn sessions_get_their_turn_while_the_engine_sends_without_a_pause() {
    const CHANNELS: usize = 2000;
    local(async {
        let (core, handles) = Core::new(1, MAX);
        let to_thread = core.threads[0].clone();
        let node = Node::on_memory(core, handles);
        let delivered = Arc::<AtomicUsize>::default();
        let engine =
            |next| Engine { to_thread: to_thread.clone(), next, delivered: Arc::clone(&delivered) };
        let mut members = Vec::new();
        for number in 0..CHANNELS {
            let mut member = node.join(&format!("chat_{number}")).await;
            let waker = Waker::from(Arc::new(engine(number + 1)));
            let (mut cx, mut byte) = (Context::from_waker(&waker), [0]);
            let mut buffer = ReadBuf::new(&mut byte);
            assert!(Pin::new(&mut member.peer).poll_read(&mut cx, &mut buffer).is_pending());
            members.push(member);
        }
        engine(0).send();
        while delivered.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(delivered.load(Ordering::Relaxed) < CHANNELS, "this task had no turn before");
        until(|| delivered.load(Ordering::Relaxed) == CHANNELS).await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn redis_delivers_in_order() {
    let server = RedisServer::start();
    local(async { publications_reach_their_channel_in_order(Node::redis(&server.url())).await })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn two_nodes_on_one_redis_receive_from_each_other() {
    let server = RedisServer::start();
    local(async {
        let (one, two) = (Node::redis(&server.url()), Node::redis(&server.url()));
        one.up().await;
        two.up().await;
        let mut member = two.join("chat_1").await;
        one.publish("chat_1", "across").await;
        assert_eq!(member.next().await, "across");
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn after_an_outage_old_sockets_are_closed_and_new_ones_receive_everything() {
    let mut server = RedisServer::start();
    local(async {
        let node = Node::redis(&server.url());
        node.up().await;
        let member = node.join("chat_1").await;
        server.kill();
        until(|| !node.broker.is_live()).await;
        assert!(member.socket.is_open(), "open sockets stay while Redis is away");
        let (ours, _theirs) = tokio::io::duplex(64);
        let queue = SendQueue { messages: 10, bytes: 1000 };
        let refused = Rc::new(Socket::new(ByteStream::Memory(ours), 1000, queue));
        let channel = ChannelName::new("chat_2").unwrap();
        let subscribed = node.broker.subscribe(&channel, &refused).await;
        assert!(matches!(subscribed, Err(EngineUnavailable)));
        server.restart();
        node.up().await;
        until(|| member.socket.end() == Some(ConnectionEnd::ByGateway(CloseReason::BrokerGap)))
            .await;
        let mut new_member = node.join("chat_1").await;
        // The command connection reconnects by itself.
        let channel = ChannelName::new("chat_1").unwrap();
        while node.publisher.publish(&channel, "after".into(), None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(new_member.next().await, "after");
        assert!(node.live.load(Ordering::Acquire));
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_redis_that_hangs_is_noticed_without_a_publication() {
    let server = RedisServer::start();
    local(async {
        let node = Node::redis(&server.url());
        node.up().await;
        server.pause();
        until(|| !node.broker.is_live()).await;
        server.resume();
        node.up().await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_channel_is_unsubscribed_after_its_last_member() {
    let server = RedisServer::start();
    local(async {
        let node = Node::redis(&server.url());
        node.up().await;
        let commands = node.commands.clone().unwrap();
        let count = async || {
            let mut numsub = ::redis::cmd("PUBSUB");
            numsub.arg("NUMSUB").arg("chat_1");
            commands.query::<(String, i64)>(&numsub).await.unwrap().1
        };
        let member = node.join("chat_1").await;
        assert_eq!(count().await, 1);
        drop(member);
        while count().await != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_channel_stays_subscribed_while_it_is_pinned() {
    let server = RedisServer::start();
    local(async {
        let node = Node::redis(&server.url());
        node.up().await;
        let commands = node.commands.clone().unwrap();
        let until_there_are = async |expected: i64| {
            let mut numsub = ::redis::cmd("PUBSUB");
            numsub.arg("NUMSUB").arg("chat_1");
            while commands.query::<(String, i64)>(&numsub).await.unwrap().1 != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let channel = ChannelName::new("chat_1").unwrap();
        let first_pin = node.broker.pin(&channel);
        until_there_are(1).await;
        let second_pin = node.broker.pin(&channel);
        drop(node.join("chat_1").await);
        drop(first_pin);
        // A later publication on the same path shows that the changes were applied.
        let mut member = node.join("chat_2").await;
        node.publish("chat_2", "seen").await;
        assert_eq!(member.next().await, "seen");
        until_there_are(1).await;
        drop(second_pin);
        until_there_are(0).await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn publications_that_the_observer_stops_are_not_delivered_and_leave_the_history() {
    let server = RedisServer::start();
    local(async {
        for redis in [None, Some(server.url())] {
            let node = Node::observed(redis.as_ref(), |_, json, position| {
                assert!(position.is_some());
                !json.starts_with(b"{\"event\":\"stopped\"")
            });
            node.up().await;
            let mut member = node.join("kept_1").await;
            for name in ["a", "stopped", "b"] {
                node.publish("kept_1", &format!("{{\"event\":\"{name}\"}}")).await;
            }
            for (name, offset) in [("a", 1), ("b", 3)] {
                let (received, json) =
                    (member.next().await, format!("{{\"event\":\"{name}\",\"offset\":{offset}"));
                assert!(received.starts_with(&json), "{received}");
            }
            let channel = ChannelName::new("kept_1").unwrap();
            loop {
                let now = node.publisher.history().read(&channel, ReadFrom::Running).await.unwrap();
                let begin = Position { offset: 0, ..now.now };
                let page = node.publisher.history().read(&channel, ReadFrom::After(begin)).await;
                let publications: Vec<_> = page.unwrap().publications;
                if publications.iter().map(|one| one.position.unwrap().offset).eq([1, 3]) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    })
    .await;
}
