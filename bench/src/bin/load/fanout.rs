//! Measures deliveries per second of the server's CPU time, with one channel and many sockets.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::connection::Connection;
use super::process::cpu_seconds;
use super::publisher::Publisher;
use super::{Result, Target};

/// A round that takes longer than this has lost a delivery.
const ROUND_DEADLINE: Duration = Duration::from_secs(10);

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
    /// The size of a publication in bytes.
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// The state that all connections of the thread share.
#[derive(Default)]
struct Deliveries {
    arrived: Cell<u64>,
    expected: Cell<u64>,
    complete: Notify,
    broken: Cell<bool>,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let Target { server, pid, connections } = options.target;
    let deliveries = Rc::new(Deliveries::default());
    for _ in 0..connections {
        let connection = Connection::open(server, "fanout").await?;
        tokio::task::spawn_local(count(connection, deliveries.clone()));
    }
    let (bytes, burst) = (options.bytes, options.burst.max(1));
    let mut publisher =
        Publisher::connect(options.admin, &options.api_key, "chat_fanout", bytes, burst).await?;
    let round = (connections * burst) as u64;
    // Warm up, so that buffers have grown and the allocator has its pages.
    for _ in 0..10 {
        deliver(&mut publisher, &deliveries, round).await?;
    }
    let (started, cpu, first) = (Instant::now(), cpu_seconds(pid)?, deliveries.arrived.get());
    while started.elapsed() < Duration::from_secs(options.seconds) {
        deliver(&mut publisher, &deliveries, round).await?;
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(pid)? - cpu);
    let delivered = (deliveries.arrived.get() - first) as f64;
    Ok(json!({
        "connections": connections,
        "burst": burst,
        "deliveries": delivered,
        "server_cpu_seconds": cpu,
        "deliveries_per_second": (delivered / seconds).round(),
        "deliveries_per_core_second": (delivered / cpu).round(),
    }))
}

/// Makes one call of the API and waits for all its deliveries.
async fn deliver(publisher: &mut Publisher, deliveries: &Deliveries, round: u64) -> Result<()> {
    deliveries.expected.set(deliveries.expected.get() + round);
    publisher.publish().await?;
    let complete = async {
        while deliveries.arrived.get() < deliveries.expected.get() && !deliveries.broken.get() {
            deliveries.complete.notified().await;
        }
    };
    let all = tokio::time::timeout(ROUND_DEADLINE, complete).await;
    if all.is_err() || deliveries.broken.get() {
        let (arrived, expected) = (deliveries.arrived.get(), deliveries.expected.get());
        return Err(format!("{arrived} of {expected} deliveries arrived").into());
    }
    Ok(())
}

async fn count(mut connection: Connection, deliveries: Rc<Deliveries>) {
    while let Ok(frames) = connection.frames().await {
        deliveries.arrived.set(deliveries.arrived.get() + frames);
        if deliveries.arrived.get() >= deliveries.expected.get() {
            deliveries.complete.notify_one();
        }
    }
    deliveries.broken.set(true);
    deliveries.complete.notify_one();
}
