//! A chaos test: clients of two gateways and a real Redis follow streams, while connections are
//! closed, gateways are killed and replaced, and Redis is restarted with its data and without. Every client
//! receives every stream once and in order, or is told explicitly that it has not.
//!
//! `TIDEGATE_CHAOS_CLIENTS` and `TIDEGATE_CHAOS_ROUNDS` make it larger. Faults are timed by the number of
//! publications, not by a clock.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{Client, DEADLINE, Event, Gateway, Redis, Settings, http, until};

/// The number of clients of one channel.
const DEVICES: usize = 5;

/// The time between two publications of one worker, in milliseconds.
const PACE: std::ops::Range<u64> = 10..70;

/// The number of publications between two faults, for each channel.
const FAULT_EVERY: u64 = 25;

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

struct World {
    redis_url: String,
    gateways: Mutex<[SocketAddr; 2]>,
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

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A worker as the documentation describes it: it appends and publishes in one step, and retries
/// with the same key until Redis has answered.
struct Worker {
    world: Arc<World>,
    channel: String,
    published: u64,
    connection: Option<MultiplexedConnection>,
    dice: Dice,
}

impl Worker {
    async fn run(mut self) {
        let mut stream = 0;
        while !self.world.ending.load(Relaxed) {
            stream += 1;
            let length = self.dice.roll(5..60);
            self.publish(json!({"event": "processing_started", "stream": stream})).await;
            for n in 0..length {
                self.publish(json!({"event": "chunk", "stream": stream, "n": n})).await;
                tokio::time::sleep(Duration::from_millis(self.dice.roll(PACE))).await;
            }
            self.publish(json!({"event": "complete", "stream": stream, "length": length})).await;
            self.world.counts.streams.fetch_add(1, Relaxed);
        }
        // A client that has received this publication has received everything before it.
        stream += 1;
        self.publish(json!({"event": "chunk", "stream": stream, "n": 0})).await;
        self.world.last_stream.lock().unwrap().insert(self.channel.clone(), stream);
    }

    async fn publish(&mut self, json: Value) {
        self.published += 1;
        while self.attempt(&json).await.is_none() {
            self.connection = None;
            tokio::time::sleep(RETRY).await;
        }
        self.world.counts.published.fetch_add(1, Relaxed);
    }

    async fn attempt(&mut self, json: &Value) -> Option<()> {
        if self.connection.is_none() {
            let client = redis::Client::open(&*self.world.redis_url).expect("a URL");
            self.connection = Some(client.get_multiplexed_async_connection().await.ok()?);
        }
        let script = redis::Script::new(include_str!("../../clients/redis/publish.lua"));
        let keys = format!("tg:{{{}}}", self.channel);
        let mut call = script.key(format!("{keys}:stream"));
        call.key(format!("{keys}:meta")).key(format!("{keys}:once:worker"));
        call.arg(&self.channel).arg(1000).arg(300_000);
        call.arg(self.published).arg(60_000).arg(json.to_string());
        let done: Result<redis::Value, _> = call.invoke_async(self.connection.as_mut()?).await;
        done.ok().map(|_| ())
    }
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

fn settings(redis: &Redis) -> Settings {
    Settings::new()
        .redis(&redis.url())
        .section("shutdown", "drain = \"500ms\"\ngrace = \"1s\"")
        .route(
            "path = \"/ws/{name}/\"\nchannel = \"stream_{name}\"\nupstream = \"\"\nauth = [\"anonymous\"]",
        )
}

async fn is_ready(gateway: &Gateway) {
    until("ready gateway", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
}

/// Waits until this many more publications have been made.
async fn publications(world: &World, count: u64) {
    let target = world.counts.published.load(Relaxed) + count;
    until("more publications", async || {
        (world.counts.published.load(Relaxed) >= target).then_some(())
    })
    .await;
}

async fn replace(
    world: &World,
    gateways: &mut [Gateway; 2],
    which: usize,
    redis: &Redis,
    signal: Signal,
) {
    gateways[which].signal(signal);
    let ended = gateways[which].wait_exit().await;
    assert_eq!(ended, (signal == Signal::TERM).then_some(0));
    gateways[which] = Gateway::start(settings(redis)).await;
    is_ready(&gateways[which]).await;
    world.gateways.lock().unwrap()[which] = gateways[which].addr();
}

#[tokio::test]
async fn every_stream_arrives_once_and_in_order_or_the_gap_is_reported() {
    let clients = number("TIDEGATE_CHAOS_CLIENTS", 200);
    let rounds = number("TIDEGATE_CHAOS_ROUNDS", 1);
    let channels = clients.div_ceil(DEVICES);
    let mut redis = Redis::start_durable().await;
    let mut gateways =
        [Gateway::start(settings(&redis)).await, Gateway::start(settings(&redis)).await];
    for gateway in &gateways {
        is_ready(gateway).await;
    }
    let world = Arc::new(World {
        redis_url: redis.url(),
        gateways: Mutex::new([gateways[0].addr(), gateways[1].addr()]),
        ending: AtomicBool::new(false),
        last_stream: Mutex::default(),
        counts: Counts::default(),
    });
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    eprintln!("seed {seed}");
    let mut tasks = Vec::new();
    for number in 0..channels {
        let channel = format!("stream_{number}");
        let dice = |salt: u64| Dice(seed.wrapping_mul(2 * (number as u64 * 1000 + salt) + 1));
        for device in 0..DEVICES {
            let device = Device {
                world: Arc::clone(&world),
                channel: channel.clone(),
                dice: dice(device as u64),
                position: None,
                next: HashMap::new(),
                newest: 0,
            };
            tasks.push(tokio::spawn(device.run()));
        }
        let worker = Worker {
            world: Arc::clone(&world),
            channel,
            published: 0,
            connection: None,
            dice: dice(999),
        };
        tasks.push(tokio::spawn(worker.run()));
    }
    let pause = FAULT_EVERY * channels as u64;
    for _ in 0..rounds {
        publications(&world, pause).await;
        replace(&world, &mut gateways, 0, &redis, Signal::KILL).await;
        publications(&world, pause).await;
        redis.restart().await;
        publications(&world, pause).await;
        replace(&world, &mut gateways, 1, &redis, Signal::TERM).await;
        publications(&world, pause).await;
        redis.stop();
        redis.lose_data();
        redis.restart().await;
        publications(&world, pause).await;
    }
    world.ending.store(true, Relaxed);
    for task in tasks {
        task.await.expect("a client without errors");
    }
    let Counts { streams, published, chunks, cuts, resumes, lost, repeated, unrecoverable } =
        &world.counts;
    eprintln!(
        "{clients} clients: streams {}, published {}, cuts {}, resumed {}, chunks {}, lost {}, \
         repeated {}, reported unrecoverable {}",
        streams.load(Relaxed),
        published.load(Relaxed),
        cuts.load(Relaxed),
        resumes.load(Relaxed),
        chunks.load(Relaxed),
        lost.load(Relaxed),
        repeated.load(Relaxed),
        unrecoverable.load(Relaxed),
    );
    assert_eq!((lost.load(Relaxed), repeated.load(Relaxed)), (0, 0));
    assert!(resumes.load(Relaxed) > 0 && cuts.load(Relaxed) > 0);
    // Only the loss of data, once a round, may be reported, and at most once to each client.
    let reported = unrecoverable.load(Relaxed);
    assert!(reported > 0 && reported <= (rounds * channels * DEVICES) as u64, "{reported}");
}
