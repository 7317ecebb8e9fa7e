//! Measures a storm of reconnects: all clients of a node that has died connect to another one at once.
//!
//! Without a node that dies, all clients connect at once. A client that is not answered waits as a browser would: the kernel
//! repeats its SYN. One that is refused tries again after a pause.

use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::connection::Connection;
use super::handshake::{Clients, percentiles};
use super::process::cpu_seconds;
use super::redis_commands::RedisCommands;
use super::{Result, Target};

/// The pause of a client that was refused, and how often it tries.
const PAUSE: Duration = Duration::from_millis(100);
const ATTEMPTS: usize = 300;

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    clients: Clients,
    /// The address of the node that the clients are connected to before. It is killed.
    #[arg(long, requires = "dying_pid")]
    dying: Option<SocketAddr>,
    /// The id of its process.
    #[arg(long, requires = "dying")]
    dying_pid: Option<u32>,
}

/// A client that is back.
struct Back {
    /// From when its first connection was lost, or all were told to connect.
    took: Duration,
    at: Instant,
    attempts: usize,
    _connection: Connection,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let Target { server, pid, connections } = options.target;
    drop(Connection::open(server, "warm-up").await);
    let (start, started) = watch::channel(false);
    let mut clients = Vec::with_capacity(connections);
    for (number, path) in options.clients.paths(connections)?.into_iter().enumerate() {
        let path: Rc<str> = path.into();
        let before = match options.dying {
            Some(dying) => Some(Connection::open(dying, &format!("before-{number}")).await?),
            None => None,
        };
        let started = started.clone();
        clients.push(tokio::task::spawn_local(reconnect(before, started, server, path)));
    }
    // Everything that the clients of the first node have caused is over.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let commands = RedisCommands::read(options.clients.redis).await?;
    let (began, cpu) = (Instant::now(), cpu_seconds(pid)?);
    match options.dying_pid {
        Some(dying) => {
            Command::new("kill").args(["-KILL", &dying.to_string()]).status()?;
        }
        None => {
            start.send_replace(true);
        }
    }
    let mut back = Vec::with_capacity(connections);
    for client in clients {
        back.push(client.await??);
    }
    let cpu = cpu_seconds(pid)? - cpu;
    let last = back.iter().map(|client| client.at).max().unwrap_or(began);
    let commands = RedisCommands::read(options.clients.redis).await?.since(&commands);
    let mut latencies: Vec<_> = back.iter().map(|client| client.took).collect();
    let repeated = back.iter().filter(|client| client.attempts > 1).count();
    Ok(json!({
        "connections": back.len(),
        "all_back_ms": (last - began).as_millis(),
        "latency_ms": percentiles(&mut latencies),
        "clients_refused_at_first": repeated,
        "server_cpu_seconds": cpu,
        "cpu_us_per_handshake": (cpu / connections as f64 * 1e7).round() / 10.0,
        "redis_commands_per_handshake": commands.per(connections as f64),
    }))
}

/// Waits until the first connection is lost, or until all start, and connects to `server`.
async fn reconnect(
    before: Option<Connection>,
    mut started: watch::Receiver<bool>,
    server: SocketAddr,
    path: Rc<str>,
) -> std::result::Result<Back, String> {
    match before {
        // It ends with an error when the node dies.
        Some(mut first) => while first.frames().await.is_ok() {},
        None => {
            started.wait_for(|started| *started).await.map_err(|error| error.to_string())?;
        }
    }
    let began = Instant::now();
    let mut failed = String::new();
    for attempts in 1..=ATTEMPTS {
        match Connection::open_admitted(server, &path).await {
            Ok(connection) => {
                let at = Instant::now();
                return Ok(Back { took: at - began, at, attempts, _connection: connection });
            }
            Err(error) => failed = error.to_string(),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(failed)
}
