//! Measures deliveries per second of the server's CPU time, with one channel and many sockets.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::connection::Connection;
use super::peer::{HttpCall, Peer};
use super::process::cpu_seconds;
use super::publisher::{Calls, Publisher, Via};
use super::{Result, Target};

/// A call whose publications take longer than this to reach all has lost a delivery.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Buffers have grown by then, and the allocator has its pages.
const WARM_UP: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// The address for POST /v1/publish.
    #[arg(long)]
    admin: SocketAddr,
    #[arg(long, default_value = "bench")]
    api_key: String,
    /// The number of publications in one call.
    #[arg(long, default_value_t = 1)]
    burst: usize,
    /// How many calls are under way: the next is made when all connections have what an earlier one published.
    #[arg(long, default_value_t = 1)]
    under_way: usize,
    /// The size of a publication in bytes.
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// Publishes rows of a table of scores, which have something to compress, instead of one letter many times.
    #[arg(long)]
    rows: bool,
    /// The connections offer permessage-deflate.
    #[arg(long)]
    compress: bool,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// The state that all connections and publishers of the thread share.
struct Deliveries {
    /// How many deliveries one call makes.
    per_call: u64,
    calls: Cell<u64>,
    arrived: Cell<u64>,
    /// The bytes that were read.
    bytes: Cell<u64>,
    /// How many deliveries have arrived when the next call has reached all.
    next: Cell<u64>,
    reached: Notify,
    broken: Cell<bool>,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let Target { server, pid, connections } = options.target;
    let (bytes, burst) = (options.bytes, options.burst.max(1));
    let per_call = (connections * burst) as u64;
    let deliveries = Rc::new(Deliveries {
        per_call,
        calls: Cell::new(0),
        arrived: Cell::new(0),
        bytes: Cell::new(0),
        next: Cell::new(per_call),
        reached: Notify::new(),
        broken: Cell::new(false),
    });
    for _ in 0..connections {
        let connection = match options.compress {
            true => Connection::open_compressed(server, "fanout").await?,
            false => Connection::open(server, "fanout").await?,
        };
        tokio::task::spawn_local(count(connection, deliveries.clone()));
    }
    let peer = Peer { http: Some(publish_call(&options)), ..Peer::default() };
    let channels = ["chat_fanout".to_owned()];
    let calls = match options.rows {
        true => Calls::of(&peer, Via::Http, &channels, &rows(bytes), burst)?,
        false => Calls::new(&peer, Via::Http, &channels, bytes, burst)?,
    };
    let mut publishers = Vec::new();
    for _ in 0..options.under_way.max(1) {
        publishers.push(Publisher::connect(&peer, calls.clone()).await?);
    }
    publish(&mut publishers, &deliveries, WARM_UP).await?;
    let (started, cpu, first) = (Instant::now(), cpu_seconds(pid)?, deliveries.arrived.get());
    let first_bytes = deliveries.bytes.get();
    publish(&mut publishers, &deliveries, Duration::from_secs(options.seconds)).await?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(pid)? - cpu);
    let delivered = (deliveries.arrived.get() - first) as f64;
    Ok(json!({
        "connections": connections,
        "burst": burst,
        "under_way": publishers.len(),
        "deliveries": delivered,
        "bytes_per_delivery": ((deliveries.bytes.get() - first_bytes) as f64 / delivered).round(),
        "server_cpu_seconds": cpu,
        "deliveries_per_second": (delivered / seconds).round(),
        "deliveries_per_core_second": (delivered / cpu).round(),
    }))
}

/// A JSON object of about this many bytes: rows with names and numbers that differ from row to row.
fn rows(bytes: usize) -> String {
    const NAMES: [&str; 8] =
        ["Lisbon", "Porto", "Braga", "Coimbra", "Faro", "Evora", "Aveiro", "Setubal"];
    let (mut text, mut state) = (r#"{"event":"scores","rows":["#.to_owned(), 12_345_u32);
    while text.len() + 2 < bytes || text.ends_with('[') {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (home, away) = (NAMES[(state >> 28) as usize % 8], NAMES[(state >> 24) as usize % 8]);
        let (id, odds) = (state >> 12 & 0xffff, f64::from(state >> 20 & 0x3ff) / 100.0);
        let comma = if text.ends_with('[') { "" } else { "," };
        text += &format!(
            r#"{comma}{{"id":{id},"home":"{home}","away":"{away}","score":[{},{}],"odds":{odds}}}"#,
            state >> 9 & 7,
            state >> 6 & 7
        );
    }
    text + "]}"
}

/// `POST /v1/publish`, of the gateway and the baseline.
fn publish_call(options: &Options) -> HttpCall {
    let each = r#"{"channel":"{channel}","data":{data}}"#;
    HttpCall {
        address: options.admin,
        path: "/v1/publish".into(),
        headers: vec![("Authorization".into(), format!("Bearer {}", options.api_key))],
        body: each.into(),
        batch: Some([r#"{"publications":["#, each, ",", "]}"].map(str::to_owned)),
        batch_path: None,
    }
}

/// Lets each publisher make one call after the other for this long.
async fn publish(
    publishers: &mut [Publisher],
    deliveries: &Deliveries,
    duration: Duration,
) -> Result<()> {
    let ends = Instant::now() + duration;
    let calls = publishers.iter_mut().map(async |publisher| {
        while Instant::now() < ends {
            deliveries.call(publisher).await?;
        }
        Ok(())
    });
    futures_util::future::try_join_all(calls).await.map(drop)
}

impl Deliveries {
    /// Makes one call of the API and waits for all its deliveries.
    async fn call(&self, publisher: &mut Publisher) -> Result<()> {
        self.calls.set(self.calls.get() + 1);
        let expected = self.calls.get() * self.per_call;
        publisher.publish_to(0).await?;
        let complete = async {
            while self.arrived.get() < expected && !self.broken.get() {
                self.reached.notified().await;
            }
        };
        let all = tokio::time::timeout(CALL_DEADLINE, complete).await;
        if all.is_err() || self.broken.get() {
            let arrived = self.arrived.get();
            return Err(format!("{arrived} of {expected} deliveries arrived").into());
        }
        Ok(())
    }
}

async fn count(mut connection: Connection, deliveries: Rc<Deliveries>) {
    while let Ok(frames) = connection.frames().await {
        deliveries.bytes.set(deliveries.bytes.get() + connection.take_received());
        let arrived = deliveries.arrived.get() + frames;
        deliveries.arrived.set(arrived);
        if arrived >= deliveries.next.get() {
            deliveries.next.set((arrived / deliveries.per_call + 1) * deliveries.per_call);
            deliveries.reached.notify_waiters();
        }
    }
    deliveries.broken.set(true);
    deliveries.reached.notify_waiters();
}
