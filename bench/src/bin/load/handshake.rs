//! Measures the server's CPU time for a handshake: many clients connect, as fast as the server takes them.
//!
//! The connections stay open until the time is taken, so that closing them is not part of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::connection::Connection;
use super::process::cpu_seconds;
use super::redis_commands::RedisCommands;
use super::{Result, Target};

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    pub clients: Clients,
    /// How many handshakes are under way at the same time.
    #[arg(long, default_value_t = 64)]
    under_way: usize,
}

/// Who connects, and what is counted beside the server.
#[derive(clap::Args, Clone)]
pub struct Clients {
    /// A file with a credential for each handshake, one on a line. If there are fewer, they are used again.
    #[arg(long)]
    pub credentials: Option<PathBuf>,
    /// The query parameter that carries the credential: `connection_token`, or `token` for JWTs.
    #[arg(long, default_value = "connection_token")]
    pub parameter: String,
    /// The Redis of the server, whose commands are counted.
    #[arg(long)]
    pub redis: Option<SocketAddr>,
}

impl Clients {
    /// The path of each of `count` clients, which have a channel each.
    pub fn paths(&self, count: usize) -> Result<Vec<String>> {
        let credentials = match &self.credentials {
            Some(file) => fs::read_to_string(file)?,
            None => String::new(),
        };
        let lines: Vec<&str> = credentials.lines().collect();
        let path = |number: usize| match lines.is_empty() {
            true => format!("/ws/chat/handshake-{number}/"),
            false => {
                let credential = lines[number % lines.len()];
                format!("/ws/chat/handshake-{number}/?{}={credential}", self.parameter)
            }
        };
        Ok((0..count).map(path).collect())
    }
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let Target { server, pid, connections } = options.target;
    let paths: Rc<Vec<String>> = options.clients.paths(connections)?.into();
    // What the process does once is not counted, nor is a connection to Redis that it opens on demand.
    drop(Connection::open(server, "warm-up").await);
    let commands = RedisCommands::read(options.clients.redis).await?;
    let (started, cpu) = (Instant::now(), cpu_seconds(pid)?);
    let next = Rc::new(Cell::new(0));
    let open = Rc::new(RefCell::new(Vec::with_capacity(connections)));
    let mut lanes = Vec::new();
    for _ in 0..options.under_way {
        let (paths, next, open) = (Rc::clone(&paths), Rc::clone(&next), Rc::clone(&open));
        lanes.push(tokio::task::spawn_local(async move {
            let mut latencies = Vec::new();
            while let Some(path) = paths.get(next.replace(next.get() + 1)) {
                let began = Instant::now();
                let connection = Connection::open_admitted(server, path).await;
                latencies.push(began.elapsed());
                open.borrow_mut().push(connection.map_err(|error| error.to_string())?);
            }
            Ok::<_, String>(latencies)
        }));
    }
    let mut latencies = Vec::with_capacity(connections);
    for lane in lanes {
        latencies.extend(lane.await??);
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(pid)? - cpu);
    let commands = RedisCommands::read(options.clients.redis).await?.since(&commands);
    let count = connections as f64;
    Ok(json!({
        "handshakes": connections,
        "under_way": options.under_way,
        "server_cpu_seconds": cpu,
        "cpu_us_per_handshake": (cpu / count * 1e7).round() / 10.0,
        "handshakes_per_second": (count / seconds).round(),
        "handshakes_per_core_second": (count / cpu).round(),
        "latency_ms": percentiles(&mut latencies),
        "redis_commands_per_handshake": commands.per(count),
        "open": open.borrow().len(),
    }))
}

/// The percentiles of durations, in milliseconds.
pub fn percentiles(durations: &mut [Duration]) -> BTreeMap<&'static str, f64> {
    durations.sort_unstable();
    let at = |share: f64| {
        let last = durations.len().saturating_sub(1);
        let found = durations.get((last as f64 * share).round() as usize).copied();
        (found.unwrap_or_default().as_secs_f64() * 1e6).round() / 1e3
    };
    BTreeMap::from([("p50", at(0.5)), ("p90", at(0.9)), ("p99", at(0.99)), ("max", at(1.0))])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::percentiles;

    #[test]
    fn percentiles_are_taken_of_the_sorted_durations() {
        let mut durations: Vec<_> = (0..=100).rev().map(Duration::from_millis).collect();
        let found = percentiles(&mut durations);
        assert_eq!((found["p50"], found["p99"], found["max"]), (50.0, 99.0, 100.0));
        assert_eq!(percentiles(&mut [])["max"], 0.0);
    }
}
