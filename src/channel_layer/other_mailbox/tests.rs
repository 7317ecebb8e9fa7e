use std::time::Duration;

use super::*;
use crate::channel_layer::Mailbox;
use crate::redis_link::test_server::RedisServer;
use crate::redis_link::{Commands, Health};
use crate::shutdown::Shutdown;

const CAPACITY: usize = 5;

struct Bench {
    server: RedisServer,
    commands: Commands,
    names: MailboxNames,
    position: MailboxPosition,
}

impl Bench {
    async fn start() -> Self {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(Duration::from_secs(10)).await);
        let (names, position) = (MailboxNames::random("asgi", 1), MailboxPosition::default());
        Self { server, commands, names, position }
    }

    /// The node itself, which takes messages.
    async fn node(&self) -> Mailbox {
        let client = crate::redis_link::client(&self.server.url()).unwrap();
        let expiry = Duration::from_secs(60);
        Mailbox::connect(&client, &Health::default(), &self.names, expiry).await.unwrap()
    }

    async fn send(&self, messages: &[(&str, f64)]) {
        let mut add = redis::cmd("ZADD");
        add.arg(self.names.mailbox());
        for (text, score) in messages {
            add.arg(score).arg(text);
        }
        let _: i64 = self.commands.query(&add).await.unwrap();
    }

    /// Reads on, and returns the messages and whether the mailbox is full.
    async fn read(&mut self) -> (Vec<String>, bool) {
        let script = Script::new(READ_ON);
        let call = call(&script, &self.names, &self.position, CAPACITY);
        let Unconfirmed { messages, position, is_full } =
            read(self.commands.invoke(&call).await.unwrap(), CAPACITY);
        self.position = position;
        let text = |message: MailboxMessage| String::from_utf8(message.payload).unwrap();
        (messages.into_iter().map(text).collect(), is_full)
    }

    async fn read_texts(&mut self) -> Vec<String> {
        self.read().await.0
    }
}

#[tokio::test]
async fn a_read_goes_on_where_the_last_one_ended() {
    let mut bench = Bench::start().await;
    assert!(bench.read_texts().await.is_empty());
    bench.send(&[("b", 2.0), ("a", 1.0)]).await;
    assert_eq!(bench.read_texts().await, ["a", "b"]);
    assert!(bench.read_texts().await.is_empty());
    bench.send(&[("c", 3.0)]).await;
    assert_eq!(bench.read_texts().await, ["c"]);
    // A sender's clock is behind.
    bench.send(&[("late", 1.5)]).await;
    assert_eq!(bench.read_texts().await, ["a", "late", "b", "c"]);
    assert_eq!(bench.read().await, (vec![], false));
    bench.send(&[("d", 4.0)]).await;
    assert_eq!(bench.read().await, (vec!["d".to_owned()], true));
}

#[tokio::test]
async fn what_the_node_has_taken_is_read_until_it_confirms_it() {
    let mut bench = Bench::start().await;
    let mut node = bench.node().await;
    bench.send(&[("a", 1.0), ("b", 2.0)]).await;
    assert_eq!(bench.read_texts().await, ["a", "b"]);
    assert_eq!(node.take().await.unwrap().len(), 2);
    bench.send(&[("c", 3.0)]).await;
    assert_eq!(bench.read_texts().await, ["a", "b", "c"]);
    // It dies: what it had taken does not change any more.
    assert!(bench.read_texts().await.is_empty());
    bench.send(&[("d", 4.0)]).await;
    assert_eq!(bench.read_texts().await, ["d"]);
    assert_eq!(node.take().await.unwrap().len(), 2);
    assert_eq!(bench.read_texts().await, ["c", "d"]);
    assert!(node.take().await.unwrap().is_empty());
    assert!(bench.read_texts().await.is_empty());
}

#[tokio::test]
async fn a_longer_mailbox_is_read_in_pieces() {
    let mut bench = Bench::start().await;
    let names: Vec<String> = (0..12).map(|number| format!("{number:02}")).collect();
    let messages: Vec<_> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
    bench.send(&messages).await;
    for piece in names.chunks(CAPACITY) {
        assert_eq!(bench.read().await, (piece.to_vec(), true));
    }
    assert_eq!(bench.read().await, (vec![], true));
}

/// The name of a batch is kept as a message without content, and may look like a number.
#[tokio::test]
async fn the_name_of_a_batch_is_no_message() {
    let mut bench = Bench::start().await;
    let mut set = redis::cmd("HSET");
    set.arg(bench.names.taken()).arg("").arg("12345678.1").arg("a").arg("1.5");
    let _: i64 = bench.commands.query(&set).await.unwrap();
    assert_eq!(bench.read_texts().await, ["a"]);
    assert!(bench.read_texts().await.is_empty());
}
