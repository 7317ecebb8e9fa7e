//! Counts what a server writes unasked: the bound of the machine.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::audience::{Audience, Size};
use super::peer::Peer;
use super::process::Stretch;
use super::{Measured, Result};

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    measured: Measured,
    #[command(flatten)]
    size: Size,
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let peer = Peer::read(&options.measured.peer)?;
    let audience = Audience::open(&peer, &options.size, Instant::now(), false).await?;
    tokio::time::sleep(Duration::from_secs_f64(options.warm_up)).await;
    let (stretch, first) = (Stretch::begin(&options.measured)?, audience.arrived.get());
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    let (used, last) = (stretch.end()?, audience.arrived.get());
    let deliveries = (last - first) as f64;
    Ok(json!({
        "deliveries": deliveries,
        "server_cpu_seconds": used.server_cpu,
        "generator_share": used.generator_share,
        "per_second": (deliveries / used.seconds).round(),
        "cpu_us": used.server_cpu / deliveries * 1e6,
    }))
}
