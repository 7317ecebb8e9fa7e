//! Measures deliveries and their latency with many channels of one connection each, published by Redis or by HTTP.
//!
//! With a rate, publications are due at fixed times, and a latency counts from the time at which its publication was due: a
//! server that falls behind is not spared. Without one, a number of publications are always under way.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::connection::Connection;
use super::process::cpu_seconds;
use super::publisher::Publisher;
use super::{Result, Target};

/// Buffers have grown by then, and the allocator has its pages.
const WARM_UP: Duration = Duration::from_millis(500);
/// Publications that are due within this time are sent together.
const TICK: Duration = Duration::from_millis(1);
/// What is under way at the end has arrived by then, or is lost.
const DRAIN: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// Publish with PUBLISH to this Redis.
    #[arg(long)]
    redis: Option<SocketAddr>,
    /// Publish with POST /v1/publish to this address.
    #[arg(long)]
    admin: Option<SocketAddr>,
    #[arg(long, default_value = "bench")]
    api_key: String,
    /// The number of publications in one call of HTTP.
    #[arg(long, default_value_t = 1)]
    burst: usize,
    /// The number of connections that call HTTP.
    #[arg(long, default_value_t = 16)]
    publishers: usize,
    /// Publications a second; without it, as many as the server delivers.
    #[arg(long)]
    rate: Option<f64>,
    /// Without a rate: how many publications are under way by Redis.
    #[arg(long, default_value_t = 1000)]
    under_way: usize,
    /// The size of a publication in bytes.
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// So many connections have another channel, which gets one publication after the other meanwhile. Needs --admin.
    #[arg(long, default_value_t = 0)]
    beside: usize,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// What all tasks of the thread share.
struct Run {
    /// When the publications that have not arrived were due, for each channel.
    due: Vec<RefCell<VecDeque<Instant>>>,
    sent: Cell<u64>,
    arrived: Cell<u64>,
    /// In microseconds.
    latencies: RefCell<Vec<u32>>,
    changed: Notify,
    broken: Cell<bool>,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let Target { server, pid, connections } = options.target.clone();
    let run = Rc::new(Run {
        due: (0..connections).map(|_| RefCell::default()).collect(),
        sent: Cell::default(),
        arrived: Cell::default(),
        latencies: RefCell::default(),
        changed: Notify::new(),
        broken: Cell::default(),
    });
    for channel in 0..connections {
        let connection = Connection::open(server, &channel.to_string()).await?;
        tokio::task::spawn_local(receive(connection, Rc::clone(&run), channel));
    }
    let beside = Rc::new(Cell::new(0));
    if options.beside > 0 {
        let admin = options.admin.ok_or("--beside needs --admin")?;
        publish_beside(server, admin, &options, Rc::clone(&beside)).await?;
    }
    publish(&options, &run, WARM_UP).await?;
    run.latencies.borrow_mut().clear();
    let (started, cpu, first) = (Instant::now(), cpu_seconds(pid)?, run.arrived.get());
    publish(&options, &run, Duration::from_secs(options.seconds)).await?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(pid)? - cpu);
    let delivered = (run.arrived.get() - first) as f64;
    let mut latencies = run.latencies.take();
    latencies.sort_unstable();
    let quantile = |part: f64| {
        let at = (latencies.len() as f64 * part) as usize;
        latencies.get(at.min(latencies.len().saturating_sub(1))).copied().unwrap_or(0)
    };
    Ok(json!({
        "connections": connections,
        "deliveries": delivered,
        "server_cpu_seconds": cpu,
        "deliveries_per_second": (delivered / seconds).round(),
        "deliveries_per_core_second": (delivered / cpu).round(),
        "cpu_us_per_delivery": cpu * 1e6 / delivered,
        "p50_us": quantile(0.5),
        "p99_us": quantile(0.99),
        "p999_us": quantile(0.999),
        "max_us": quantile(1.0),
        "beside_deliveries": beside.get(),
    }))
}

/// Publishes for this long, and waits until everything has arrived.
async fn publish(options: &Options, run: &Rc<Run>, duration: Duration) -> Result<()> {
    let ends = Instant::now() + duration;
    match (options.redis, options.admin) {
        (Some(redis), _) => by_redis(redis, options, run, ends).await?,
        (None, Some(admin)) => by_http(admin, options, run, ends).await?,
        (None, None) => return Err("give --redis or --admin".into()),
    }
    let arrived = async {
        while run.arrived.get() < run.sent.get() && !run.broken.get() {
            run.changed.notified().await;
        }
    };
    let all = tokio::time::timeout(DRAIN, arrived).await;
    match all.is_err() || run.broken.get() {
        true => Err(format!("{} of {} arrived", run.arrived.get(), run.sent.get()).into()),
        false => Ok(()),
    }
}

async fn by_redis(
    redis: SocketAddr,
    options: &Options,
    run: &Rc<Run>,
    ends: Instant,
) -> Result<()> {
    let stream = TcpStream::connect(redis).await?;
    stream.set_nodelay(true)?;
    let (mut read, mut write) = stream.into_split();
    let discarding = tokio::task::spawn_local(async move {
        let mut answers = vec![0; 64 << 10];
        while read.read(&mut answers).await.is_ok_and(|length| length > 0) {}
    });
    let data = text(options.bytes);
    let (started, mut commands) = (Instant::now(), Vec::new());
    let mut number = 0;
    while Instant::now() < ends && !run.broken.get() {
        let now = Instant::now();
        let room = match options.rate {
            Some(rate) => due_by(started, now, rate).saturating_sub(number),
            None => (options.under_way as u64).saturating_sub(run.sent.get() - run.arrived.get()),
        };
        for _ in 0..room {
            let due = options.rate.map_or(now, |rate| due_at(started, number, rate));
            let channel = format!("chat_{}", run.note(due));
            number += 1;
            let parts = ["PUBLISH", &channel, &data];
            commands.extend_from_slice(b"*3\r\n");
            for part in parts {
                commands.extend_from_slice(format!("${}\r\n{part}\r\n", part.len()).as_bytes());
            }
        }
        write.write_all(&commands).await?;
        commands.clear();
        match options.rate {
            Some(_) => tokio::time::sleep(TICK).await,
            None => run.changed.notified().await,
        }
    }
    discarding.abort();
    Ok(())
}

async fn by_http(admin: SocketAddr, options: &Options, run: &Rc<Run>, ends: Instant) -> Result<()> {
    let next = Cell::new(0);
    let started = Instant::now();
    let calls = (0..options.publishers.max(1)).map(async |_| {
        let mut publisher =
            Publisher::connect(admin, &options.api_key, "", options.bytes, 1).await?;
        while Instant::now() < ends && !run.broken.get() {
            let first = next.get();
            if let Some(rate) = options.rate {
                let now = Instant::now();
                if due_by(started, now, rate) < first + options.burst as u64 {
                    tokio::time::sleep(TICK).await;
                    continue;
                }
            }
            next.set(first + options.burst as u64);
            let due = |at| {
                options.rate.map_or_else(Instant::now, |rate| due_at(started, first + at, rate))
            };
            let channels: Vec<_> =
                (0..options.burst as u64).map(|at| format!("chat_{}", run.note(due(at)))).collect();
            publisher.set_channels(&channels);
            publisher.publish().await?;
        }
        Ok(())
    });
    futures_util::future::try_join_all(calls).await.map(drop)
}

/// Publishes to one channel of many connections, one publication after the other, until the process ends.
async fn publish_beside(
    server: SocketAddr,
    admin: SocketAddr,
    options: &Options,
    delivered: Rc<Cell<u64>>,
) -> Result<()> {
    let reached = Rc::new(Notify::new());
    for _ in 0..options.beside {
        let mut connection = Connection::open(server, "beside").await?;
        let (delivered, reached) = (Rc::clone(&delivered), Rc::clone(&reached));
        tokio::task::spawn_local(async move {
            while let Ok(frames) = connection.frames().await {
                delivered.set(delivered.get() + frames);
                reached.notify_one();
            }
        });
    }
    let count = options.beside as u64;
    let key = options.api_key.clone();
    let mut publisher = Publisher::connect(admin, &key, "chat_beside", options.bytes, 1).await?;
    tokio::task::spawn_local(async move {
        let mut expected = 0;
        while publisher.publish().await.is_ok() {
            expected += count;
            while delivered.get() < expected {
                reached.notified().await;
            }
        }
    });
    Ok(())
}

async fn receive(mut connection: Connection, run: Rc<Run>, channel: usize) {
    while let Ok(frames) = connection.frames().await {
        let now = Instant::now();
        let mut due = run.due[channel].borrow_mut();
        let mut latencies = run.latencies.borrow_mut();
        let count = (frames as usize).min(due.len());
        for due in due.drain(..count) {
            latencies.push(now.saturating_duration_since(due).as_micros() as u32);
        }
        run.arrived.set(run.arrived.get() + frames);
        run.changed.notify_one();
    }
    run.broken.set(true);
    run.changed.notify_one();
}

impl Run {
    /// Notes a publication that is sent now, and returns the number of its channel.
    fn note(&self, due: Instant) -> usize {
        let sent = self.sent.get();
        self.sent.set(sent + 1);
        let channel = (sent % self.due.len() as u64) as usize;
        self.due[channel].borrow_mut().push_back(due);
        channel
    }
}

/// How many publications are due by `now`.
fn due_by(started: Instant, now: Instant, rate: f64) -> u64 {
    (now.duration_since(started).as_secs_f64() * rate) as u64
}

fn due_at(started: Instant, number: u64, rate: f64) -> Instant {
    started + Duration::from_secs_f64(number as f64 / rate)
}

/// A publication of about this size.
pub fn text(bytes: usize) -> String {
    let frame = json!({"event": "chunk", "chunk": ""}).to_string().len();
    json!({"event": "chunk", "chunk": "*".repeat(bytes.saturating_sub(frame))}).to_string()
}
