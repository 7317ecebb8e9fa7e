//! A TCP proxy in front of a Redis: an address that can lead new connections to another server, or nowhere, and that
//! can drop what goes one way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Redis;

/// One way through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    FromServer,
}

pub struct TcpProxy {
    port: u16,
    /// Where new connections lead; `None` = they are closed.
    to: Arc<Mutex<Option<String>>>,
    /// The number of cuts; connections end when it grows.
    cuts: watch::Sender<u64>,
    faults: watch::Sender<Faults>,
}

/// What the proxy does to open connections and to new ones.
#[derive(Debug, Default, Clone, Copy)]
struct Faults {
    dropped: Option<Direction>,
    /// How long each read is kept before it is passed on.
    delay: Duration,
}

async fn pass(
    direction: Direction,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    faults: watch::Receiver<Faults>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        let Faults { dropped, delay } = *faults.borrow();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if dropped == Some(direction) {
            // A connection from which something was lost never gets anything again that way: TCP keeps the order.
            return std::future::pending().await;
        }
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

impl TcpProxy {
    pub async fn start(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            to: Arc::new(Mutex::new(Some(redis.address()))),
            cuts: watch::Sender::new(0),
            faults: watch::Sender::new(Faults::default()),
        };
        let (to, cuts) = (Arc::clone(&proxy.to), proxy.cuts.clone());
        let faults = proxy.faults.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let Some(to) = to.lock().unwrap().clone() else { continue };
                let (mut cut, faults) = (cuts.subscribe(), faults.subscribe());
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(to).await?;
                    let (from_client, to_client) = client.split();
                    let (from_server, to_server) = server.split();
                    let there = pass(Direction::ToServer, from_client, to_server, faults.clone());
                    let back = pass(Direction::FromServer, from_server, to_client, faults);
                    tokio::select! {
                        passed = async { tokio::try_join!(there, back) } => passed.map(drop),
                        _ = cut.changed() => Ok(()),
                    }
                });
            }
        });
        proxy
    }

    /// Leads new connections to `redis`. Open ones stay where they are.
    pub fn switch_to(&self, redis: &Redis) {
        *self.to.lock().unwrap() = Some(redis.address());
    }

    /// Ends all connections and accepts none.
    pub fn cut(&self) {
        *self.to.lock().unwrap() = None;
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Drops what goes in `direction` from now on, on open connections and on new ones, and closes nothing.
    pub fn drop_silently(&self, direction: Option<Direction>) {
        self.faults.send_modify(|faults| faults.dropped = direction);
    }

    /// Keeps everything for `delay` from now on, as a slow server or a long way does.
    pub fn delay(&self, delay: Duration) {
        self.faults.send_modify(|faults| faults.delay = delay);
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}
