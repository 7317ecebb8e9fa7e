//! Measures round trips to an echo server behind the measured proxy, per second of the proxy's CPU time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::connection::{Connection, text_frame};
use super::process::cpu_seconds;
use super::{Result, Target};

const WARM_UP: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// The size in bytes of each message.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let Target { server, pid, connections } = options.target;
    let frame: Rc<[u8]> = text_frame(&vec![b'*'; options.bytes]).into();
    let answered = Rc::new(Cell::new(0_u64));
    // None talks before all are open, because each would have to wait for the others' messages.
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open_silent(server).await?);
    }
    let clients: Vec<_> = open
        .into_iter()
        .map(|connection| {
            tokio::task::spawn_local(talk(connection, frame.clone(), answered.clone()))
        })
        .collect();
    tokio::time::sleep(WARM_UP).await;
    let (started, cpu, first) = (Instant::now(), cpu_seconds(pid)?, answered.get());
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(pid)? - cpu);
    let trips = (answered.get() - first) as f64;
    if clients.iter().any(|client| client.is_finished()) {
        return Err("the server ended a connection".into());
    }
    Ok(json!({
        "connections": connections,
        "bytes": options.bytes,
        "round_trips": trips,
        "server_cpu_seconds": cpu,
        "round_trips_per_second": (trips / seconds).round(),
        "round_trips_per_core_second": (trips / cpu).round(),
    }))
}

/// Sends messages on one connection, one in flight at a time.
async fn talk(mut connection: Connection, frame: Rc<[u8]>, answered: Rc<Cell<u64>>) {
    while connection.write(&frame).await.is_ok() {
        match connection.frames().await {
            Ok(frames) => answered.set(answered.get() + frames),
            Err(_) => return,
        }
    }
}
