//! All subscribers of a measurement: opens them, counts what arrives, and finds out whether each has everything.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Result;
use super::peer::{Peer, channel_name};
use super::publisher::Publisher;
use super::subscriber::Subscriber;

/// If nothing has arrived for this long, what is missing is lost.
const DEADLINE: Duration = Duration::from_secs(10);
const PROBE_PAUSE: Duration = Duration::from_millis(300);
/// How many handshakes are under way at the same time.
const OPENING: usize = 32;

#[derive(clap::Args, Clone)]
pub struct Size {
    #[arg(long, default_value_t = 1)]
    pub channels: usize,
    /// The clients on each channel.
    #[arg(long, default_value_t = 1)]
    pub subscribers: usize,
    /// The beginning of the channels' names.
    #[arg(long, default_value = "bench")]
    pub prefix: String,
    /// The number of the first client. It determines the address that it connects from.
    #[arg(long, default_value_t = 0)]
    pub first: usize,
}

pub struct Audience {
    pub channels: Vec<String>,
    /// The clients on each channel.
    pub subscribers: usize,
    pub arrived: Cell<u64>,
    /// The number of deliveries at which whoever waits is woken.
    wake_at: Cell<u64>,
    reached: Notify,
    broken: Cell<bool>,
    /// Marks per client.
    counts: RefCell<Vec<u64>>,
    /// The latencies in nanoseconds, if times are read; and the origin of the times.
    latencies: RefCell<Vec<u64>>,
    origin: Instant,
}

impl Audience {
    /// Opens all clients. With `timed`, the time in each publication is compared with that of its arrival.
    pub async fn open(peer: &Peer, size: &Size, origin: Instant, timed: bool) -> Result<Rc<Self>> {
        let channels: Vec<_> = (0..size.channels).map(|n| channel_name(&size.prefix, n)).collect();
        let total = size.channels * size.subscribers;
        let audience = Rc::new(Self {
            channels,
            subscribers: size.subscribers,
            arrived: Cell::new(0),
            wake_at: Cell::new(u64::MAX),
            reached: Notify::new(),
            broken: Cell::new(false),
            counts: RefCell::new(vec![0; total]),
            latencies: RefCell::default(),
            origin,
        });
        let (next, credentials) = (Cell::new(0), peer.credentials()?);
        let openers = (0..OPENING).map(async |_| {
            while next.get() < total {
                let number = next.replace(next.get() + 1);
                let channel = &audience.channels[number % size.channels];
                let credential = credentials.get(size.first + number).map_or("", String::as_str);
                let opened =
                    Subscriber::open(peer, size.first + number, channel, credential).await?;
                tokio::task::spawn_local(audience.clone().receive(opened, number, timed));
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        });
        futures_util::future::try_join_all(openers).await?;
        Ok(audience)
    }

    async fn receive(self: Rc<Self>, mut subscriber: Subscriber, number: usize, timed: bool) {
        let mut store = |time: u64| {
            let now = self.origin.elapsed().as_nanos() as u64;
            self.latencies.borrow_mut().push(now.saturating_sub(time));
        };
        loop {
            let news = match timed {
                true => subscriber.read(&mut store).await,
                false => subscriber.count().await,
            };
            let Ok(news) = news else { break };
            if news.marks == 0 {
                continue;
            }
            self.counts.borrow_mut()[number] += news.marks;
            let arrived = self.arrived.get() + news.marks;
            self.arrived.set(arrived);
            if arrived >= self.wake_at.get() {
                self.wake_at.set(u64::MAX);
                self.reached.notify_waiters();
            }
        }
        self.broken.set(true);
        self.reached.notify_waiters();
    }

    /// Publishes until each client has received something, then waits until nothing arrives any more and begins to
    /// count anew.
    pub async fn wait_until_subscribed(&self, publisher: &mut Publisher) -> Result<()> {
        let until = Instant::now() + DEADLINE * 3;
        loop {
            let missing: Vec<usize> = {
                let counts = self.counts.borrow();
                (0..self.channels.len())
                    .filter(|channel| {
                        counts
                            .iter()
                            .skip(*channel)
                            .step_by(self.channels.len())
                            .any(|count| *count == 0)
                    })
                    .collect()
            };
            if missing.is_empty() {
                break;
            }
            if Instant::now() > until || self.broken.get() {
                return Err(format!(
                    "{} channels have clients that receive nothing",
                    missing.len()
                )
                .into());
            }
            for channel in missing {
                publisher.publish(&self.channels[channel]).await?;
            }
            self.settle().await;
        }
        self.counts.borrow_mut().fill(0);
        self.latencies.borrow_mut().clear();
        self.arrived.set(0);
        Ok(())
    }

    /// Waits until nothing has arrived for a moment.
    async fn settle(&self) {
        loop {
            let before = self.arrived.get();
            tokio::time::sleep(PROBE_PAUSE).await;
            if self.arrived.get() == before {
                return;
            }
        }
    }

    /// Waits until this many deliveries have arrived. Fails if none arrives for a while.
    pub async fn reach(&self, expected: u64) -> Result<()> {
        while self.arrived.get() < expected {
            if self.broken.get() {
                return Err("the server ended a connection".into());
            }
            let before = self.arrived.get();
            self.wake_at.set(self.wake_at.get().min(expected));
            let in_time = tokio::time::timeout(DEADLINE, self.reached.notified()).await.is_ok();
            if !in_time && self.arrived.get() == before {
                return Err(format!("{before} of {expected} deliveries arrived").into());
            }
        }
        Ok(())
    }

    /// Checks that each client has received what was published to its channel, all of it and once.
    pub fn verify(&self, published: &[u64]) -> Result<()> {
        let counts = self.counts.borrow();
        let wrong = counts.iter().enumerate();
        let wrong = wrong.filter(|(number, count)| **count != published[number % published.len()]);
        match wrong.count() {
            0 => Ok(()),
            wrong => {
                Err(format!("{wrong} clients have lost publications, or got them twice").into())
            }
        }
    }

    /// Returns the latencies so far in microseconds, sorted, and forgets them.
    pub fn take_latencies(&self) -> Vec<f64> {
        let mut latencies = self.latencies.take();
        latencies.sort_unstable();
        latencies.into_iter().map(|nanoseconds| nanoseconds as f64 / 1000.0).collect()
    }
}
