//! Random interleavings of publishing, connecting, reading slowly, dropping and coming back, with a
//! history that is being trimmed all the while and, on Redis, a subscription that is cut: whatever
//! happens, each client's publications are a run without gap or repeat, or it was told.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::task::{JoinHandle, LocalSet};

use super::{Arrival, Client, Permits, Presence, Services, SessionRegistry, UpstreamMode, open};
use crate::broker::{Broker, Core, MemoryHistory, Publisher};
use crate::config::{Config, Environment, SharedConfig};
use crate::control::{Control, Threads};
use crate::generations::{Generations, Running};
use crate::limits::{ConnectionCounts, LeaseSet, SharedLimits};
use crate::presence::PresenceStore;
use crate::protocol::{ChannelName, ConnectionId, RequestId, ResumePoint, TraceContext};
use crate::redis_link::Commands;
use crate::redis_link::test_server::RedisServer;
use crate::replies::{Replies, ReplyServices, ThreadConfig};
use crate::shutdown::Shutdown;
use crate::socket::ByteStream;
use crate::tokens::{Authenticator, Identity, TokenStore};
use crate::upstream::{SharedUpstreams, Upstreams};

const CLIENTS: usize = 4;

/// Publications that the channel keeps: few, so that some are trimmed under those who are away.
const KEPT: usize = 40;

/// What the kernel takes for a client that does not read.
const PIPE: usize = 700;

/// As many turns of everybody are followed by a pause in which a lost subscription can come back.
const MANY_TURNS: u8 = 30;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
enum Step {
    Publish {
        count: usize,
        bytes: usize,
    },
    /// Resumes where the client was, if it ever was connected.
    Connect(usize),
    Drop(usize),
    /// Whether the client reads what comes.
    Reads(usize, bool),
    /// Lets everybody run for a while.
    Settle(u8),
    /// Redis cuts the subscription.
    Cut,
    /// The engine loses the channel's history, or a part of it.
    Evict(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..CLIENTS;
    let step = prop_oneof![
        6 => (1..12usize, 1..400usize).prop_map(|(count, bytes)| Step::Publish { count, bytes }),
        5 => client.clone().prop_map(Step::Connect),
        3 => client.clone().prop_map(Step::Drop),
        3 => (client, any::<bool>()).prop_map(|(client, reads)| Step::Reads(client, reads)),
        4 => (1..2 * MANY_TURNS).prop_map(Step::Settle),
        2 => Just(Step::Cut),
        1 => any::<bool>().prop_map(Step::Evict),
    ];
    prop::collection::vec(step, 1..50)
}

/// One node, and a channel of its own for one run.
struct World {
    services: Rc<Services>,
    publisher: Publisher,
    config: Config,
    counts: ConnectionCounts,
    channel: ChannelName,
    /// What was published where.
    published: RefCell<HashMap<(String, u64), u64>>,
    number: Cell<u64>,
    redis: Option<Commands>,
}

impl World {
    async fn start(redis: Option<&RedisServer>) -> Rc<Self> {
        static RUN: AtomicU64 = AtomicU64::new(0);
        let run = RUN.fetch_add(1, Ordering::Relaxed);
        let text = format!(
            "[[route]]\npath = \"/{{id}}/\"\nchannel = \"chat_{{id}}\"\nupstream = \"\"\n\
             auth = [\"anonymous\"]\nsend_queue = {{ messages = 20, bytes = \"4KiB\" }}\n\
             [route.history]\nsize = {KEPT}\n"
        );
        let config = Config::parse(&text, &Environment::empty(), Path::new(".")).unwrap();
        let shutdown = Shutdown::new();
        let shared = SharedConfig::new(config.clone());
        let (core, seats) = Core::new(1, 1 << 20);
        let (publisher, commands) = match redis {
            None => {
                let history = MemoryHistory::new(1 << 20);
                let publisher = Publisher::memory(core.intake(), shared.clone(), history, 1 << 20);
                tokio::task::spawn_local(core.run_memory(publisher.history()));
                (publisher, None)
            }
            Some(server) => {
                let commands = Commands::start(&server.url(), "test", &shutdown).unwrap();
                assert!(commands.wait_up(PATIENCE).await);
                let publisher = Publisher::redis(commands.clone(), "tg:", shared.clone(), 1 << 20);
                let running =
                    core.run_redis(&server.url(), None, publisher.history(), shutdown.clone());
                tokio::task::spawn_local(running.unwrap());
                (publisher, Some(commands))
            }
        };
        let (broker, deliveries) = Broker::new(seats.into_iter().next().unwrap());
        tokio::task::spawn_local(deliveries);
        let upstreams = SharedUpstreams::new(&config.upstreams, &config.engine, &shutdown).unwrap();
        let limits = SharedLimits::memory();
        let store = TokenStore::memory(config.tokens.ttl);
        let authenticator = Authenticator::new(&config.tokens, &config.jwt, store).unwrap();
        let leases = LeaseSet::new(limits.clone());
        let control = Control::memory(Threads::new(1, Arc::new(|_, _| 0)).0);
        let reply_services = ReplyServices {
            broker: Rc::clone(&broker),
            publisher: publisher.clone(),
            generations: Generations::memory(Running::default(), shared.clone()),
            control: control.clone(),
            limits,
            leases: Rc::clone(&leases),
            shutdown: shutdown.clone(),
        };
        let thread_config = ThreadConfig {
            config: shared.load_full(),
            upstreams: Upstreams::new(&upstreams),
            authenticator,
        };
        let services = Services {
            replies: Replies::new(reply_services, thread_config),
            broker,
            history: publisher.history(),
            presence: Presence::new(PresenceStore::memory(), publisher.clone()),
            registry: SessionRegistry::new(&config.routes),
            leases,
            control,
            shutdown,
            started: Instant::now(),
        };
        Rc::new(Self {
            publisher,
            services: Rc::new(services),
            config,
            counts: ConnectionCounts::default(),
            channel: ChannelName::new(&format!("chat_{run}")).unwrap(),
            published: RefCell::default(),
            number: Cell::new(0),
            redis: commands,
        })
    }

    async fn publish(&self, bytes: usize) {
        let number = self.number.get() + 1;
        self.number.set(number);
        let json = format!("{{\"n\":{number},\"filler\":\"{}\"}}", "x".repeat(bytes));
        let json = Bytes::from(json);
        let published = self.publisher.publish(&self.channel, json, None).await;
        let position = published.unwrap().position.unwrap();
        let place = (position.epoch.to_string(), position.offset);
        assert_eq!(self.published.borrow_mut().insert(place, number), None);
    }

    async fn cut(&self) {
        if let Some(commands) = &self.redis {
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("TYPE").arg("PUBSUB");
            let _: i64 = commands.query(&kill).await.unwrap();
        }
    }

    async fn evict(&self, everything: bool) {
        if let Some(commands) = &self.redis {
            let mut evict = redis::cmd("DEL");
            evict.arg(format!("tg:{{{}}}:stream", self.channel));
            if everything {
                evict.arg(format!("tg:{{{}}}:meta", self.channel));
            }
            let _: i64 = commands.query(&evict).await.unwrap();
        }
    }

    fn client(&self) -> Client {
        let route = Arc::clone(&self.config.routes[0]);
        let id = self.channel.as_str().trim_start_matches("chat_");
        Client {
            params: Arc::new(route.path.matches(&format!("/{id}/")).unwrap()),
            route: RefCell::new(route),
            upstream: UpstreamMode::None,
            channel: self.channel.clone(),
            identity: RefCell::new(Identity::anonymous()),
            connection_id: ConnectionId::random(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            origin: None,
            user_id: None,
            request_id: RequestId::new(None, &TraceContext::default()),
            trace: TraceContext::default(),
        }
    }
}

/// A client library: it knows where it is, and checks what it is told.
#[derive(Default)]
struct Device {
    connection: Option<JoinHandle<()>>,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    /// Epoch and offset of the last frame.
    place: RefCell<Option<(String, u64)>>,
    reads: Cell<bool>,
    closed: Cell<bool>,
    /// Frames that were told to be unrecoverable, for the count.
    lost: Cell<usize>,
}

impl Device {
    fn connect(&mut self, world: &Rc<World>) {
        self.disconnect();
        let place = self.state.place.borrow().clone();
        let resume = place
            .as_ref()
            .and_then(|(epoch, offset)| ResumePoint::read(Some(&offset.to_string()), Some(epoch)));
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let permits =
            Permits { process: world.counts.enter(1000).expect("room"), ip: None, lease: None };
        let arrival = Arrival { early: Vec::new(), resume };
        let services = Rc::clone(&world.services);
        let stream = ByteStream::Memory(ours);
        tokio::task::spawn_local(open(services, stream, arrival, world.client(), permits));
        self.state.closed.set(false);
        let reading = read_all(Rc::clone(world), Rc::clone(&self.state), theirs);
        self.connection = Some(tokio::task::spawn_local(reading));
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            let over = connection.is_finished();
            assert!(!over || self.state.closed.get(), "a client found something wrong");
            connection.abort();
        }
    }
}

async fn read_all(world: Rc<World>, state: Rc<State>, mut stream: DuplexStream) {
    let mut first = true;
    loop {
        while !state.reads.get() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match read_frame(&mut stream).await {
            Some((0x81, payload)) => {
                let frame: Value = serde_json::from_slice(&payload).unwrap();
                if std::mem::take(&mut first) {
                    state.connected(&frame);
                } else {
                    state.publication(&world, &frame).await;
                }
            }
            Some((0x89, _)) => {}
            Some((0x88, _)) | None => return state.closed.set(true),
            Some((opcode, _)) => panic!("opcode {opcode:#x}"),
        }
    }
}

impl State {
    fn connected(&self, frame: &Value) {
        assert_eq!(frame["event"], "connected");
        let told = (frame["epoch"].as_str().unwrap().to_owned(), frame["offset"].as_u64().unwrap());
        let mut place = self.place.borrow_mut();
        match (&*place, frame["recovered"].as_bool()) {
            (None, None) => {}
            (Some(before), Some(true)) => assert_eq!(*before, told, "{frame}"),
            (Some(_), Some(false)) => self.lost.set(self.lost.get() + 1),
            _ => panic!("{frame}"),
        }
        *place = Some(told);
    }

    async fn publication(&self, world: &World, frame: &Value) {
        let offset = frame["offset"].as_u64().unwrap();
        let (mut epoch, last) = self.place.borrow().clone().unwrap();
        match frame["epoch"].as_str() {
            Some(new) => {
                assert_eq!(offset, 1);
                epoch = new.to_owned();
            }
            None => assert_eq!(offset, last + 1, "after {epoch}:{last} came {frame}"),
        }
        // The publisher hears of the place a little later than a client may.
        let place = (epoch, offset);
        let number = until(|| world.published.borrow().get(&place).copied()).await;
        assert_eq!(frame["n"], number, "at {place:?}");
        *self.place.borrow_mut() = Some(place);
    }
}

/// First byte and payload of a frame; `None` at the end of the stream.
async fn read_frame(stream: &mut DuplexStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.ok()?;
    let length = match head[1] {
        127 => stream.read_u64().await.ok()? as usize,
        126 => usize::from(stream.read_u16().await.ok()?),
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[0], payload))
}

async fn until<T>(condition: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn run(world: Rc<World>, steps: Vec<Step>) {
    until(|| world.services.broker.is_live().then_some(())).await;
    let mut devices: Vec<Device> = (0..CLIENTS).map(|_| Device::default()).collect();
    devices.iter().for_each(|device| device.state.reads.set(true));
    let mut publishers = Vec::new();
    for step in steps {
        match step {
            Step::Publish { count, bytes } => {
                let world = Rc::clone(&world);
                publishers.push(tokio::task::spawn_local(async move {
                    for _ in 0..count {
                        world.publish(bytes).await;
                    }
                }));
            }
            Step::Connect(client) => devices[client].connect(&world),
            Step::Drop(client) => devices[client].disconnect(),
            Step::Reads(client, reads) => devices[client].state.reads.set(reads),
            Step::Settle(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                if turns > MANY_TURNS && world.redis.is_some() {
                    tokio::time::sleep(Duration::from_millis(turns.into())).await;
                }
            }
            Step::Cut => world.cut().await,
            Step::Evict(everything) => world.evict(everything).await,
        }
    }
    // In the end everybody reads, comes back as often as sent away, and has the newest publication.
    // Who is connected stays so: what was missed behind its back must come by itself.
    for publisher in publishers {
        publisher.await.unwrap();
    }
    devices.iter().for_each(|device| device.state.reads.set(true));
    until(|| world.services.broker.is_live().then_some(())).await;
    let away = devices.iter_mut().filter(|device| device.connection.is_none());
    away.for_each(|device| device.connect(&world));
    world.publish(1).await;
    let newest = world.number.get();
    let newest = world.published.borrow().iter().find(|(_, n)| **n == newest).unwrap().0.clone();
    for device in &mut devices {
        let began = Instant::now();
        while device.state.place.borrow().as_ref() != Some(&newest) {
            let place = device.state.place.borrow().clone();
            assert!(began.elapsed() < PATIENCE, "{place:?} is not {newest:?}");
            let over = device.connection.as_ref().is_some_and(JoinHandle::is_finished);
            assert!(!over || device.state.closed.get(), "a client found something wrong");
            if device.state.closed.get() {
                device.connect(&world);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    devices.iter_mut().for_each(Device::disconnect);
    world.services.shutdown.force();
}

fn check(cases: u32, redis: Option<&RedisServer>) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&steps(), |steps| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = LocalSet::new();
        local.block_on(&runtime, async { run(World::start(redis).await, steps).await });
        Ok(())
    });
    if let Err(wrong) = outcome {
        panic!("{wrong}");
    }
}

#[test]
fn any_interleaving_on_memory() {
    check(200, None);
}

#[test]
fn any_interleaving_on_redis() {
    let server = RedisServer::start();
    check(60, Some(&server));
}
