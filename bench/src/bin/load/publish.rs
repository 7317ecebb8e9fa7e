//! Measures deliveries per second: any number of channels and clients, and a fixed number of publications under way.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::audience::{Audience, Size};
use super::peer::Peer;
use super::process::Stretch;
use super::publisher::{Calls, Publisher, Via};
use super::{Measured, Result, upstream};

/// The most PUBLISH commands in one write.
const PIPELINE: u64 = 64;

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    measured: Measured,
    #[command(flatten)]
    size: Size,
    #[arg(long, value_enum, default_value = "http")]
    via: Via,
    /// The size of a publication in bytes.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// The publications in one call.
    #[arg(long, default_value_t = 1)]
    burst: u64,
    /// Calls under way: by HTTP on as many connections, by Redis on one. The next is made when the clients have
    /// received an earlier one.
    #[arg(long, default_value_t = 16)]
    under_way: u64,
    /// Silent clients beside the others, on channels of their own.
    #[arg(long, default_value_t = 0)]
    idle: usize,
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

struct Run {
    audience: Rc<Audience>,
    calls: Rc<Calls>,
    burst: u64,
    under_way: u64,
    /// How many calls have been made, and how many publications each channel has.
    made: Cell<u64>,
    published: RefCell<Vec<u64>>,
}

async fn measure(options: Options) -> Result<Value> {
    let peer = Peer::read(&options.measured.peer)?;
    upstream::serve(&peer).await?;
    let beside =
        Size { channels: options.idle, subscribers: 1, prefix: "idle".into(), first: 50_000 };
    let silent = Audience::open(&peer, &beside, Instant::now(), false).await?;
    let audience = Audience::open(&peer, &options.size, Instant::now(), false).await?;
    // A probe is one publication.
    let probe = Calls::new(&peer, options.via, &audience.channels, options.bytes, 1)?;
    audience.wait_until_subscribed(&mut Publisher::connect(&peer, probe).await?).await?;
    let run = Run {
        calls: Calls::new(
            &peer,
            options.via,
            &audience.channels,
            options.bytes,
            options.burst as usize,
        )?,
        burst: options.burst,
        under_way: options.under_way.max(1),
        made: Cell::new(0),
        published: RefCell::new(vec![0; audience.channels.len()]),
        audience,
    };
    let connections = if options.via == Via::Http { run.under_way } else { 1 };
    let mut publishers = Vec::new();
    for _ in 0..connections {
        publishers.push(Publisher::connect(&peer, run.calls.clone()).await?);
    }
    run.publish(&mut publishers, options.warm_up).await?;
    let (stretch, first) = (Stretch::begin(&options.measured)?, run.audience.arrived.get());
    run.publish(&mut publishers, options.seconds).await?;
    let (used, last) = (stretch.end()?, run.audience.arrived.get());
    run.audience.reach(run.expected(run.made.get())).await?;
    run.audience.verify(&run.published.borrow())?;
    drop(silent);
    let deliveries = (last - first) as f64;
    Ok(json!({
        "channels": run.audience.channels.len(),
        "subscribers": run.audience.subscribers,
        "bytes": options.bytes,
        "deliveries": deliveries,
        "seconds": used.seconds,
        "server_cpu_seconds": used.server_cpu,
        "generator_share": used.generator_share,
        "per_second": (deliveries / used.seconds).round(),
        "cpu_us": used.server_cpu / deliveries * 1e6,
        "beside_cpu_us": used.beside_cpu / deliveries * 1e6,
    }))
}

impl Run {
    /// How many deliveries this many calls make.
    fn expected(&self, calls: u64) -> u64 {
        calls * self.burst * self.audience.subscribers as u64
    }

    /// Returns the channel of the next call, and counts it.
    fn next(&self) -> usize {
        let made = self.made.replace(self.made.get() + 1);
        let mut published = self.published.borrow_mut();
        let channel = (made % published.len() as u64) as usize;
        published[channel] += self.burst;
        channel
    }

    async fn publish(&self, publishers: &mut [Publisher], seconds: f64) -> Result<()> {
        let ends = Instant::now() + Duration::from_secs_f64(seconds);
        if self.calls.via == Via::Redis {
            return self.pipeline(&mut publishers[0], ends).await;
        }
        let loops = publishers.iter_mut().map(async |publisher| {
            while Instant::now() < ends {
                let channel = self.next();
                let expected = self.expected(self.made.get());
                publisher.publish_to(channel).await?;
                self.audience.reach(expected).await?;
            }
            Ok(())
        });
        futures_util::future::try_join_all(loops).await.map(drop)
    }

    /// Writes as many commands as may be under way, and waits for the clients.
    async fn pipeline(&self, publisher: &mut Publisher, ends: Instant) -> Result<()> {
        // To one client a channel, waiting for each single delivery would cost the generator more than the server.
        let step = if self.audience.subscribers == 1 { self.under_way.div_ceil(8) } else { 1 };
        let per_call = self.expected(1);
        let mut commands = Vec::new();
        while Instant::now() < ends {
            let under_way =
                (self.expected(self.made.get()) - self.audience.arrived.get()).div_ceil(per_call);
            let free = self.under_way.saturating_sub(under_way).min(PIPELINE);
            if free == 0 {
                self.audience.reach(self.expected(self.made.get() + step - self.under_way)).await?;
                continue;
            }
            commands.clear();
            for _ in 0..free {
                commands.extend(&self.calls.channels[self.next()].1);
            }
            publisher.write(&commands).await?;
            // The clients' tasks run meanwhile.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
