//! The workers of the chaos tests.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use super::{Dice, PACE, RETRY, World};

/// A worker as the documentation describes it: it appends and publishes in one step, and retries
/// with the same key until Redis has answered.
pub struct Worker {
    world: Arc<World>,
    channel: String,
    published: u64,
    connection: Option<MultiplexedConnection>,
    /// Where a node of a cluster has sent it.
    redirected: Option<String>,
    dice: Dice,
}

impl Worker {
    pub fn new(world: Arc<World>, channel: String, dice: Dice) -> Self {
        Self { world, channel, published: 0, connection: None, redirected: None, dice }
    }

    pub async fn run(mut self) {
        let mut stream = 0;
        while !self.world.ending.load(Relaxed) {
            stream += 1;
            let length = self.dice.roll(5..60);
            self.publish(json!({"event": "processing_started", "stream": stream})).await;
            for n in 0..length {
                self.publish(json!({"event": "chunk", "stream": stream, "n": n})).await;
                tokio::time::sleep(Duration::from_millis(self.dice.roll(PACE))).await;
            }
            self.publish(json!({"event": "complete", "stream": stream, "length": length})).await;
            self.world.counts.streams.fetch_add(1, Relaxed);
        }
        // A client that has received this publication has received everything before it.
        stream += 1;
        self.publish(json!({"event": "chunk", "stream": stream, "n": 0})).await;
        self.world.last_stream.lock().unwrap().insert(self.channel.clone(), stream);
    }

    async fn publish(&mut self, json: Value) {
        self.published += 1;
        while self.attempt(&json).await.is_none() {
            self.connection = None;
            tokio::time::sleep(RETRY).await;
        }
        self.world.counts.published.fetch_add(1, Relaxed);
    }

    async fn attempt(&mut self, json: &Value) -> Option<()> {
        let world = Arc::clone(&self.world);
        let _publishing = world.publishing.read().await;
        if self.connection.is_none() {
            let any = self.dice.roll(0..world.redis_urls.len() as u64) as usize;
            let url = self.redirected.take().unwrap_or_else(|| world.redis_urls[any].clone());
            let client = redis::Client::open(url).expect("a URL");
            self.connection = Some(client.get_multiplexed_async_connection().await.ok()?);
        }
        let keys = format!("tg:{{{}}}", self.channel);
        let mut call = world.script.key(format!("{keys}:stream"));
        call.key(format!("{keys}:meta")).key(format!("{keys}:once:worker"));
        call.arg(&self.channel).arg(1000).arg(300_000);
        call.arg(self.published).arg(60_000).arg(json.to_string());
        let done: Result<redis::Value, _> = call.invoke_async(self.connection.as_mut()?).await;
        let to_node = |(address, _slot): (&str, u16)| format!("redis://{address}");
        done.inspect_err(|error| self.redirected = error.redirect_node().map(to_node)).ok()?;
        Some(())
    }
}
