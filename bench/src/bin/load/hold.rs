//! Measures the memory of silent clients of any server, and whether each of them still receives something.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::audience::{Audience, Size};
use super::peer::Peer;
use super::process::{Stretch, group_memory};
use super::publisher::{Calls, Publisher, Via};
use super::{Measured, Result, upstream};

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    measured: Measured,
    #[command(flatten)]
    size: Size,
    #[arg(long, value_enum, default_value = "http")]
    via: Via,
    /// Seconds to wait before the memory is measured.
    #[arg(long, default_value_t = 2.0)]
    settle: f64,
    /// Seconds that the clients stay open after that, while other generators open theirs.
    #[arg(long, default_value_t = 0.0)]
    stay: f64,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let peer = Peer::read(&options.measured.peer)?;
    let pids = &options.measured.pids;
    upstream::serve(&peer).await?;
    let settle = Duration::from_secs_f64(options.settle);
    // A first client and publication, so that what is allocated once is not counted.
    let first = Size { channels: 1, subscribers: 1, prefix: "warm-up".into(), first: 0 };
    drop(Audience::open(&peer, &first, Instant::now(), false).await?);
    tokio::time::sleep(settle).await;
    let (before, stretch) = (group_memory(pids)?, Stretch::begin(&options.measured)?);
    let audience = Audience::open(&peer, &options.size, Instant::now(), false).await?;
    let opened = stretch.end()?;
    tokio::time::sleep(settle).await;
    let after = group_memory(pids)?;
    tokio::time::sleep(Duration::from_secs_f64(options.stay)).await;
    let calls = Calls::new(&peer, options.via, &audience.channels, 100, 1)?;
    let heard = Instant::now();
    audience.wait_until_subscribed(&mut Publisher::connect(&peer, calls).await?).await?;
    let connections = (options.size.channels * options.size.subscribers) as f64;
    Ok(json!({
        "connections": connections,
        "bytes_before": before,
        "bytes_after": after,
        "bytes_per_connection": (after.saturating_sub(before) as f64 / connections).round(),
        "opened_per_second": (connections / opened.seconds).round(),
        "cpu_us": opened.server_cpu / connections * 1e6,
        "beside_cpu_us": opened.beside_cpu / connections * 1e6,
        "generator_share": opened.generator_share,
        "all_heard_after_seconds": heard.elapsed().as_secs_f64(),
    }))
}
