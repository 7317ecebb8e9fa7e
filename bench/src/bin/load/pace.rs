//! Measures the latency at a fixed rate. Each publication has the time at which it should have been sent, so that a
//! stall counts for all publications that it delays, not only for the one that met it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::audience::{Audience, Size};
use super::peer::{MARK, Peer, TIME_DIGITS};
use super::process::Stretch;
use super::publisher::{Calls, Publisher, Via, http, redis};
use super::{Measured, Result, upstream};

/// The connections that HTTP calls are made on in turns.
const CONNECTIONS: usize = 64;
/// The publisher waits at most this long for a server that takes nothing.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    measured: Measured,
    #[command(flatten)]
    size: Size,
    #[arg(long, value_enum, default_value = "redis")]
    via: Via,
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Publications per second, spread evenly over the channels.
    #[arg(long, default_value_t = 10_000.0)]
    rate: f64,
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let peer = Peer::read(&options.measured.peer)?;
    upstream::serve(&peer).await?;
    let origin = Instant::now();
    let audience = Audience::open(&peer, &options.size, origin, true).await?;
    let calls = Calls::new(&peer, options.via, &audience.channels, options.bytes, 1)?;
    audience.wait_until_subscribed(&mut Publisher::connect(&peer, calls.clone()).await?).await?;

    let calls = Rc::try_unwrap(calls).map_err(|_| "the calls are still in use")?;
    let address =
        if options.via == Via::Http { http(&peer)?.address } else { redis(&peer)?.address };
    let pacer = Pacer::connect(address, calls, options.rate, origin)?;
    let total = options.warm_up + options.seconds;
    let publishing =
        tokio::task::spawn_blocking(move || pacer.run(total).map_err(|error| error.to_string()));
    tokio::time::sleep(Duration::from_secs_f64(options.warm_up)).await;
    let (stretch, first) = (Stretch::begin(&options.measured)?, audience.arrived.get());
    drop(audience.take_latencies());
    let paced = publishing.await??;
    let (used, last) = (stretch.end()?, audience.arrived.get());
    let expected = paced.published.iter().sum::<u64>() * audience.subscribers as u64;
    audience.reach(expected).await?;
    audience.verify(&paced.published)?;
    drop(paced.streams);
    let latencies = audience.take_latencies();
    let deliveries = (last - first) as f64;
    Ok(json!({
        "rate": options.rate,
        "channels": audience.channels.len(),
        "subscribers": audience.subscribers,
        "bytes": options.bytes,
        "deliveries": deliveries,
        "server_cpu_seconds": used.server_cpu,
        "generator_share": used.generator_share,
        "per_second": (deliveries / used.seconds).round(),
        "cpu_us": used.server_cpu / deliveries * 1e6,
        "beside_cpu_us": used.beside_cpu / deliveries * 1e6,
        "p50_us": percentile(&latencies, 0.5),
        "p99_us": percentile(&latencies, 0.99),
        "p999_us": percentile(&latencies, 0.999),
        "max_us": percentile(&latencies, 1.0),
        "late_p99_us": percentile(&paced.late, 0.99),
    }))
}

/// Returns a value of a sorted list.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let value = sorted.get((sorted.len() as f64 * part) as usize).or(sorted.get(last));
    value.map_or(0.0, |value| value.round())
}

/// The thread that publishes on time. It has its own, because the timers of the other one are coarse.
struct Pacer {
    streams: Vec<TcpStream>,
    calls: Calls,
    rate: f64,
    origin: Instant,
}

struct Paced {
    /// Publications per channel.
    published: Vec<u64>,
    /// How much later than intended each was written, in microseconds, sorted.
    late: Vec<f64>,
    /// A connection that is closed with an unread answer would take its last request back.
    streams: Vec<TcpStream>,
}

impl Pacer {
    fn connect(
        address: std::net::SocketAddr,
        calls: Calls,
        rate: f64,
        origin: Instant,
    ) -> Result<Self> {
        let count = if calls.via == Via::Http { CONNECTIONS } else { 1 };
        let mut streams = Vec::new();
        for _ in 0..count {
            let mut stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            if calls.via == Via::Redis {
                stream.write_all(b"CLIENT REPLY OFF\r\n")?;
            }
            stream.set_nonblocking(calls.via == Via::Http)?;
            streams.push(stream);
        }
        Ok(Self { streams, calls, rate, origin })
    }

    fn run(mut self, seconds: f64) -> Result<Paced> {
        let (start, total) = (Instant::now(), (seconds * self.rate) as u64);
        let mut published = vec![0; self.calls.channels.len()];
        let mut late = Vec::with_capacity(total as usize);
        for number in 0..total {
            let intended = start + Duration::from_secs_f64(number as f64 / self.rate);
            let wait = intended.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
            let channel = (number % published.len() as u64) as usize;
            let call = &mut self.calls.channels[channel].1;
            stamp(call, (intended - self.origin).as_nanos() as u64)?;
            let next = (number % self.streams.len() as u64) as usize;
            write(&mut self.streams[next], call, self.calls.via)?;
            published[channel] += 1;
            late.push(intended.elapsed().as_nanos() as f64 / 1000.0);
        }
        late.sort_unstable_by(f64::total_cmp);
        Ok(Paced { published, late, streams: self.streams })
    }
}

/// Writes the time behind the mark.
fn stamp(call: &mut [u8], time: u64) -> Result<()> {
    let at = memchr::memchr(MARK, call).ok_or("a publication without a mark")? + 1;
    call[at..at + TIME_DIGITS].copy_from_slice(format!("{time:016x}").as_bytes());
    Ok(())
}

fn write(stream: &mut TcpStream, mut bytes: &[u8], via: Via) -> Result<()> {
    if via == Via::Redis {
        return Ok(stream.write_all(bytes)?);
    }
    // Earlier answers are read, but not waited for. One that is no success shows as a lost delivery.
    let mut answers = [0; 4096];
    let until = Instant::now() + WRITE_DEADLINE;
    loop {
        match stream.read(&mut answers) {
            Ok(0) => return Err("the server ended the publishing connection".into()),
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        match stream.write(bytes) {
            Ok(length) if length == bytes.len() => return Ok(()),
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() > until {
            return Err("the server takes no more publications".into());
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}
