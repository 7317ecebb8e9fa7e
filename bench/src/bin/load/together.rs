//! One of several generators that hold clients of the same channel: opens them, waits for the word on its standard
//! input, publishes or only listens, and measures until all of its clients have everything.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::audience::{Audience, Size};
use super::peer::Peer;
use super::process::{Stretch, group_memory};
use super::publisher::{Calls, Publisher, Via};
use super::{Measured, Result};

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    measured: Measured,
    #[command(flatten)]
    size: Size,
    /// Another generator publishes.
    #[arg(long)]
    listen_only: bool,
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    #[arg(long)]
    publications: u64,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let peer = Peer::read(&options.measured.peer)?;
    let pids = &options.measured.pids;
    let audience = Audience::open(&peer, &options.size, Instant::now(), false).await?;
    println!("open");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    let after = group_memory(pids)?;
    let clients = (audience.channels.len() * audience.subscribers) as u64;
    let calls = Calls::new(&peer, Via::Redis, &audience.channels, options.bytes, 1)?;
    let mut publisher = Publisher::connect(&peer, calls).await?;
    let (stretch, started) = (Stretch::begin(&options.measured)?, Instant::now());
    let mut first = 0.0;
    for number in 1..=options.publications {
        if !options.listen_only {
            publisher.publish_to(0).await?;
        }
        audience.reach(number * clients).await?;
        if number == 1 {
            first = started.elapsed().as_secs_f64();
        }
    }
    let used = stretch.end()?;
    audience.verify(&[options.publications])?;
    Ok(json!({
        "connections": clients,
        "bytes_after": after,
        "deliveries": clients * options.publications,
        "first_seconds": first,
        "seconds": used.seconds,
        "server_cpu_seconds": used.server_cpu,
    }))
}
