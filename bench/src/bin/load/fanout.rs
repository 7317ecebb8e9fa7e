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
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// The state that all connections and publishers of the thread share.
struct Deliveries {
    /// How many deliveries one call makes.
    per_call: u64,
    calls: Cell<u64>,
    arrived: Cell<u64>,
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
        next: Cell::new(per_call),
        reached: Notify::new(),
        broken: Cell::new(false),
    });
    for _ in 0..connections {
        let connection = Connection::open(server, "fanout").await?;
        tokio::task::spawn_local(count(connection, deliveries.clone()));
    }
    let peer = Peer { http: Some(publish_call(&options)), ..Peer::default() };
    let calls = Calls::new(&peer, Via::Http, &["chat_fanout".to_owned()], bytes, burst)?;
    let mut publishers = Vec::new();
    for _ in 0..options.under_way.max(1) {
        publishers.push(Publisher::connect(&peer, calls.clone()).await?);
    }
    publish(&mut publishers, &deliveries, WARM_UP).await?;
    let (started, cpu, first) = (Instant::now(), cpu_seconds(pid)?, deliveries.arrived.get());
    publish(&mut publishers, &deliveries, Duration::from_secs(options.seconds)).await?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(pid)? - cpu);
    let delivered = (deliveries.arrived.get() - first) as f64;
    Ok(json!({
        "connections": connections,
        "burst": burst,
        "under_way": publishers.len(),
        "deliveries": delivered,
        "server_cpu_seconds": cpu,
        "deliveries_per_second": (delivered / seconds).round(),
        "deliveries_per_core_second": (delivered / cpu).round(),
    }))
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
