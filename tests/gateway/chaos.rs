//! A chaos test: clients of two gateways and a real Redis follow streams, while connections are
//! closed, gateways are killed and replaced, and Redis is restarted with its data and without. Every client
//! receives every stream once and in order, or is told explicitly that it has not.
//!
//! `TIDEGATE_CHAOS_CLIENTS` and `TIDEGATE_CHAOS_ROUNDS` make it larger. Faults are timed by the number of
//! publications, not by a clock.

mod worker;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinHandle;

use worker::Worker;

use crate::rig::{Client, DEADLINE, Event, Gateway, Redis, Settings, http, until};

/// The number of clients of one channel.
pub const DEVICES: usize = 5;

/// The time between two publications of one worker, in milliseconds.
const PACE: std::ops::Range<u64> = 10..70;

/// The number of publications between two faults, for each channel.
pub const FAULT_EVERY: u64 = 25;

/// How workers append and publish.
pub const PUBLISH: &str = include_str!("../../clients/redis/publish.lua");

/// The pause between two attempts of a worker or a client.
const RETRY: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Counts {
    streams: AtomicU64,
    published: AtomicU64,
    chunks: AtomicU64,
    cuts: AtomicU64,
    resumes: AtomicU64,
    lost: AtomicU64,
    repeated: AtomicU64,
    unrecoverable: AtomicU64,
}

pub struct World {
    /// The URLs of the Redis, or of the nodes of a cluster.
    redis_urls: Vec<String>,
    /// With which workers append and publish.
    script: redis::Script,
    /// Held by workers while they publish.
    pub publishing: tokio::sync::RwLock<()>,
    pub gateways: Mutex<[SocketAddr; 2]>,
    /// Set when workers are to end their stream and stop.
    ending: AtomicBool,
    /// The last stream of each channel whose worker has stopped.
    last_stream: Mutex<HashMap<String, u64>>,
    counts: Counts,
}

/// A xorshift generator, so that a run can be repeated with its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        range.start + self.0 % (range.end - range.start)
    }
}

pub fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A client library that checks what it receives.
struct Device {
    world: Arc<World>,
    channel: String,
    dice: Dice,
    position: Option<(String, u64)>,
    /// The number of the next chunk of each stream whose start was received.
    next: HashMap<u64, u64>,
    newest: u64,
}

impl Device {
    async fn run(mut self) {
        let started = std::time::Instant::now();
        loop {
            let end = self.world.last_stream.lock().unwrap().get(&self.channel).copied();
            if end.is_some_and(|end| self.newest >= end) {
                return;
            }
            assert!(started.elapsed() < 20 * DEADLINE, "{} has no end", self.channel);
            let gateway = self.dice.roll(0..2) as usize;
            let address = self.world.gateways.lock().unwrap()[gateway];
            let name = self.channel.trim_start_matches("stream_");
            let path = match &self.position {
                None => format!("/ws/{name}/"),
                Some((epoch, offset)) => {
                    format!("/ws/{name}/?since={offset}&epoch={epoch}")
                }
            };
            match Client::attempt(address, &path).await {
                Some(client) => self.follow(client).await,
                None => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Reads frames until the connection ends or this client closes it.
    async fn follow(&mut self, mut client: Client) {
        let frames = self.dice.roll(5..80);
        for number in 0..frames {
            // A long time after the last publication there is nothing to wait for.
            let Ok(event) = tokio::time::timeout(10 * RETRY, client.next_without_deadline()).await
            else {
                break;
            };
            match event {
                Event::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).expect("JSON");
                    // A client that is refused gets an `error` before the close.
                    let is_refusal = number == 0 && frame["event"] == "error";
                    if frame["event"] == "going_away" || is_refusal {
                        continue;
                    }
                    if number == 0 { self.connected(&frame) } else { self.publication(&frame) }
                }
                Event::Binary(_) => panic!("nobody sends binary"),
                Event::Closed(..) | Event::Lost => {
                    tokio::time::sleep(RETRY).await;
                    return;
                }
            }
        }
        self.world.counts.cuts.fetch_add(1, Relaxed);
        drop(client);
    }

    fn connected(&mut self, frame: &Value) {
        assert_eq!(frame["event"], "connected");
        let epoch = frame["epoch"].as_str().expect("an epoch").to_owned();
        let reported = (epoch, frame["offset"].as_u64().expect("an offset"));
        match frame["recovered"].as_bool() {
            None => assert_eq!(self.position, None),
            Some(true) => {
                assert_eq!(self.position.as_ref(), Some(&reported));
                self.world.counts.resumes.fetch_add(1, Relaxed);
            }
            Some(false) => {
                self.next.clear();
                self.world.counts.unrecoverable.fetch_add(1, Relaxed);
            }
        }
        self.position = Some(reported);
    }

    fn publication(&mut self, frame: &Value) {
        let offset = frame["offset"].as_u64().expect("an offset");
        let (epoch, last) = self.position.take().expect("connected");
        let counts = &self.world.counts;
        match frame["epoch"].as_str() {
            Some(new) => self.position = Some((new.to_owned(), offset)),
            None => {
                let expected = last + 1;
                counts.lost.fetch_add(offset.saturating_sub(expected), Relaxed);
                counts.repeated.fetch_add(expected.saturating_sub(offset), Relaxed);
                self.position = Some((epoch, offset));
            }
        }
        let stream = frame["stream"].as_u64().expect("a stream");
        self.newest = self.newest.max(stream);
        let n = match frame["event"].as_str() {
            Some("processing_started") => {
                let again = self.next.insert(stream, 0).is_some();
                counts.repeated.fetch_add(u64::from(again), Relaxed);
                return;
            }
            Some("chunk") => frame["n"].as_u64().expect("a number"),
            Some("complete") => frame["length"].as_u64().expect("a length"),
            _ => panic!("{frame}"),
        };
        // A stream that started before this client connected, or before a gap, is followed from here.
        let next = self.next.entry(stream).or_insert(n);
        counts.lost.fetch_add(n.saturating_sub(*next), Relaxed);
        counts.repeated.fetch_add(next.saturating_sub(n), Relaxed);
        *next = n + 1;
        counts.chunks.fetch_add(1, Relaxed);
    }
}

pub fn settings(redis_url: &str) -> Settings {
    Settings::new()
        .redis(redis_url)
        .section("shutdown", "drain = \"500ms\"\ngrace = \"1s\"")
        .route(
            "path = \"/ws/{name}/\"\nchannel = \"stream_{name}\"\nupstream = \"\"\nauth = [\"anonymous\"]",
        )
}

pub async fn is_ready(gateway: &Gateway) {
    until("ready gateway", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
}

/// Waits until this many more publications have been made.
pub async fn publications(world: &World, count: u64) {
    let target = world.counts.published.load(Relaxed) + count;
    until("more publications", async || {
        (world.counts.published.load(Relaxed) >= target).then_some(())
    })
    .await;
}

pub async fn replace(
    world: &World,
    gateways: &mut [Gateway; 2],
    which: usize,
    redis_url: &str,
    signal: Signal,
) {
    gateways[which].signal(signal);
    let ended = gateways[which].wait_exit().await;
    assert_eq!(ended, (signal == Signal::TERM).then_some(0));
    gateways[which] = Gateway::start(settings(redis_url)).await;
    is_ready(&gateways[which]).await;
    world.gateways.lock().unwrap()[which] = gateways[which].addr();
}

/// What a run has shown.
pub struct Outcome {
    pub lost: u64,
    pub repeated: u64,
    pub told: u64,
}

impl World {
    pub fn new(redis_urls: Vec<String>, script: &str, gateways: &[Gateway; 2]) -> Arc<Self> {
        Arc::new(Self {
            redis_urls,
            script: redis::Script::new(script),
            publishing: tokio::sync::RwLock::default(),
            gateways: Mutex::new([gateways[0].addr(), gateways[1].addr()]),
            ending: AtomicBool::new(false),
            last_stream: Mutex::default(),
            counts: Counts::default(),
        })
    }

    /// Starts a worker and clients of each channel.
    pub fn start(self: &Arc<Self>, channels: usize) -> Vec<JoinHandle<()>> {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
        eprintln!("seed {seed}");
        let mut tasks = Vec::new();
        for number in 0..channels {
            let channel = format!("stream_{number}");
            let dice = |salt: u64| Dice(seed.wrapping_mul(2 * (number as u64 * 1000 + salt) + 1));
            for device in 0..DEVICES {
                let device = Device {
                    world: Arc::clone(self),
                    channel: channel.clone(),
                    dice: dice(device as u64),
                    position: None,
                    next: HashMap::new(),
                    newest: 0,
                };
                tasks.push(tokio::spawn(device.run()));
            }
            let worker = Worker::new(Arc::clone(self), channel, dice(999));
            tasks.push(tokio::spawn(worker.run()));
        }
        tasks
    }

    /// Ends the streams, and waits until every client has received them.
    pub async fn finish(&self, tasks: Vec<JoinHandle<()>>) -> Outcome {
        self.ending.store(true, Relaxed);
        for task in tasks {
            task.await.expect("a client without errors");
        }
        let Counts { streams, published, chunks, cuts, resumes, lost, repeated, unrecoverable } =
            &self.counts;
        let outcome = Outcome {
            lost: lost.load(Relaxed),
            repeated: repeated.load(Relaxed),
            told: unrecoverable.load(Relaxed),
        };
        eprintln!(
            "streams {}, published {}, cuts {}, resumed {}, chunks {}, lost {}, repeated {}, \
             reported unrecoverable {}",
            streams.load(Relaxed),
            published.load(Relaxed),
            cuts.load(Relaxed),
            resumes.load(Relaxed),
            chunks.load(Relaxed),
            outcome.lost,
            outcome.repeated,
            outcome.told,
        );
        assert!(resumes.load(Relaxed) > 0 && cuts.load(Relaxed) > 0);
        outcome
    }
}

#[tokio::test]
async fn every_stream_arrives_once_and_in_order_or_the_gap_is_reported() {
    let clients = number("TIDEGATE_CHAOS_CLIENTS", 200);
    let rounds = number("TIDEGATE_CHAOS_ROUNDS", 1);
    let channels = clients.div_ceil(DEVICES);
    let mut redis = Redis::start_durable().await;
    let url = redis.url();
    let mut gateways = [Gateway::start(settings(&url)).await, Gateway::start(settings(&url)).await];
    for gateway in &gateways {
        is_ready(gateway).await;
    }
    let world = World::new(vec![url.clone()], PUBLISH, &gateways);
    let tasks = world.start(channels);
    let pause = FAULT_EVERY * channels as u64;
    for _ in 0..rounds {
        publications(&world, pause).await;
        replace(&world, &mut gateways, 0, &url, Signal::KILL).await;
        publications(&world, pause).await;
        redis.restart().await;
        publications(&world, pause).await;
        replace(&world, &mut gateways, 1, &url, Signal::TERM).await;
        publications(&world, pause).await;
        redis.stop();
        redis.lose_data();
        redis.restart().await;
        publications(&world, pause).await;
    }
    let Outcome { lost, repeated, told } = world.finish(tasks).await;
    assert_eq!((lost, repeated), (0, 0));
    // Only the loss of data, once a round, may be reported, and at most once to each client.
    assert!(told > 0 && told <= (rounds * channels * DEVICES) as u64, "{told}");
}
