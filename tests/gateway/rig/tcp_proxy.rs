//! A TCP proxy in front of a Redis: an address that can lead new connections to another server, or nowhere.

use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Redis;

pub struct TcpProxy {
    port: u16,
    /// Where new connections lead; `None` = they are closed.
    to: Arc<Mutex<Option<String>>>,
    /// The number of cuts; connections end when it grows.
    cuts: watch::Sender<u64>,
}

impl TcpProxy {
    pub async fn start(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            to: Arc::new(Mutex::new(Some(redis.address()))),
            cuts: watch::Sender::new(0),
        };
        let (to, cuts) = (Arc::clone(&proxy.to), proxy.cuts.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let Some(to) = to.lock().unwrap().clone() else { continue };
                let mut cut = cuts.subscribe();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(to).await?;
                    tokio::select! {
                        copied = tokio::io::copy_bidirectional(&mut client, &mut server) => {
                            copied.map(drop)
                        }
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

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}
