//! One gateway node with its session parts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;

use super::{KEPT, TIMEOUT};
use crate::broker::{Broker, Core, MemoryHistory, Publisher, ThreadPublisher};
use crate::config::{Config, Environment, SharedConfig};
use crate::control::{Control, Threads};
use crate::generations::{Generations, RunningTasks};
use crate::limits::{AddressLimits, ConnectionCounts, LeaseSet, RefusalDelays, SharedLimits};
use crate::presence::PresenceStore;
use crate::protocol::{ChannelName, ConnectionId, RequestId, SenderKey, TraceContext};
use crate::redis_link::Commands;
use crate::redis_link::test_server::RedisServer;
use crate::replies::{Replies, ReplyServices, ThreadConfig};
use crate::session::{
    Client, CredentialKind, NewClient, Presence, Services, SessionRegistry, UpstreamMode,
    drive_sessions,
};
use crate::shutdown::Shutdown;
use crate::tokens::{Authenticator, Identity, TokenStore};
use crate::upstream::{SharedUpstreams, Upstreams};

/// One gateway node, and a channel of its own for one run.
pub struct Node {
    pub services: Rc<Services>,
    publisher: Publisher,
    config: Config,
    pub counts: ConnectionCounts,
    channel: ChannelName,
    /// The number of each publication, by epoch and offset.
    pub published: RefCell<HashMap<(String, u64), u64>>,
    /// The number of the last publication.
    pub number: Cell<u64>,
    pub redis: Option<Commands>,
}

impl Node {
    pub async fn start(redis: Option<&RedisServer>) -> Rc<Self> {
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
                assert!(commands.wait_up(TIMEOUT).await);
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
            publisher: ThreadPublisher::new(&publisher, &broker),
            generations: Generations::memory(RunningTasks::default(), shared.clone()),
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
            addresses: AddressLimits::default(),
            refusals: RefusalDelays::default(),
            shutdown,
            started: Instant::now(),
        };
        let services = Rc::new(services);
        tokio::task::spawn_local(drive_sessions(Rc::clone(&services)));
        Rc::new(Self {
            publisher,
            services,
            config,
            counts: ConnectionCounts::default(),
            channel: ChannelName::new(&format!("chat_{run}")).unwrap(),
            published: RefCell::default(),
            number: Cell::new(0),
            redis: commands,
        })
    }

    /// Publishes the next number, in a publication of about this size.
    pub async fn publish(&self, bytes: usize) {
        let number = self.number.get() + 1;
        self.number.set(number);
        let json = format!("{{\"n\":{number},\"filler\":\"{}\"}}", "x".repeat(bytes));
        let json = Bytes::from(json);
        let published = self.publisher.publish(&self.channel, json, None).await;
        let position = published.unwrap().position.unwrap();
        let position = (position.epoch.to_string(), position.offset);
        assert_eq!(self.published.borrow_mut().insert(position, number), None);
    }

    /// Makes Redis end the subscription.
    pub async fn cut_subscription(&self) {
        if let Some(commands) = &self.redis {
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("TYPE").arg("PUBSUB");
            let _: i64 = commands.query(&kill).await.unwrap();
        }
    }

    /// Removes the channel's publications from Redis, and its epoch with them if `everything`.
    pub async fn evict(&self, everything: bool) {
        if let Some(commands) = &self.redis {
            let mut evict = redis::cmd("DEL");
            evict.arg(format!("tg:{{{}}}:stream", self.channel));
            if everything {
                evict.arg(format!("tg:{{{}}}:meta", self.channel));
            }
            let _: i64 = commands.query(&evict).await.unwrap();
        }
    }

    pub fn client(&self) -> Client {
        let route = Arc::clone(&self.config.routes[0]);
        let id = self.channel.as_str().trim_start_matches("chat_");
        Client::from(NewClient {
            params: route.path.matches(&format!("/{id}/")).unwrap(),
            route,
            upstream: UpstreamMode::None,
            channel: Some(self.channel.clone()),
            identity: Identity::anonymous(),
            credentials: CredentialKind::Anonymous,
            connection_id: ConnectionId::random(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            origin: None,
            sender: SenderKey::new(None, [127, 0, 0, 1].into(), 64),
            request_id: RequestId::new(None, &TraceContext::default()),
            trace: TraceContext::default(),
            forwarded: None,
        })
    }
}
