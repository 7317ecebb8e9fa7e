use super::*;
use crate::redis_link::Commands;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

const EXPIRY: Duration = Duration::from_secs(60);

struct Bench {
    server: RedisServer,
    commands: Commands,
    names: MailboxNames,
}

impl Bench {
    async fn start() -> Self {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(Duration::from_secs(10)).await);
        Self { server, commands, names: MailboxNames::random("asgi", 1) }
    }

    async fn connect(&self) -> Mailbox {
        let client = crate::redis_link::client(&self.server.url()).unwrap();
        Mailbox::connect(&client, &Health::default(), &self.names, EXPIRY).await.unwrap()
    }

    async fn send(&self, messages: &[(&str, f64)]) {
        let mut add = redis::cmd("ZADD");
        add.arg(self.names.mailbox());
        for (text, score) in messages {
            add.arg(score).arg(text);
        }
        let _: i64 = self.commands.query(&add).await.unwrap();
    }
}

fn texts(messages: Result<Vec<MailboxMessage>, RedisFailure>) -> Vec<String> {
    let text = |message: MailboxMessage| String::from_utf8(message.payload).unwrap();
    messages.unwrap().into_iter().map(text).collect()
}

#[tokio::test]
async fn messages_come_in_order_and_new_ones_are_reported() {
    let bench = Bench::start().await;
    let mut mailbox = bench.connect().await;
    assert!(mailbox.is_tracking());
    assert!(texts(mailbox.take().await).is_empty());
    bench.send(&[("b", 2.5), ("a", 1.25)]).await;
    mailbox.changed(EXPIRY).await;
    let taken = mailbox.take().await.unwrap();
    assert_eq!(taken.iter().map(|message| message.score).collect::<Vec<_>>(), [1.25, 2.5]);
    bench.send(&[("c", 3.0)]).await;
    assert_eq!(texts(mailbox.take().await), ["c"]);
    assert!(texts(mailbox.take().await).is_empty());
}

/// As after the death of a connection, or of the process.
#[tokio::test]
async fn what_was_taken_and_not_confirmed_is_taken_again() {
    let bench = Bench::start().await;
    let mut first = bench.connect().await;
    bench.send(&[("b", 2.0), ("a", 1.0)]).await;
    assert_eq!(texts(first.take().await), ["a", "b"]);
    bench.send(&[("c", 3.0)]).await;
    let mut second = bench.connect().await;
    assert_eq!(texts(second.take().await), ["a", "b"]);
    // A late command of the old connection confirms nothing that is not its own.
    assert_eq!(texts(first.take().await), ["a", "b"]);
    assert_eq!(texts(second.take().await), ["a", "b"]);
    assert_eq!(texts(second.take().await), ["c"]);
    assert!(texts(second.take().await).is_empty());
}

#[test]
fn a_message_without_a_score_is_left_out() {
    let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
    let message = |text: &str, score| MailboxMessage { payload: text.into(), score };
    let flat = Value::Array(vec![bulk("a"), bulk("1.5"), bulk("b"), bulk("no number")]);
    assert_eq!(read_messages(flat), [message("a", 1.5)]);
    let nested = Value::Array(vec![
        Value::Array(vec![bulk("a"), Value::Double(1.0)]),
        Value::Array(vec![bulk("b"), Value::Double(2.0)]),
    ]);
    assert_eq!(read_messages(nested), [message("a", 1.0), message("b", 2.0)]);
    assert_eq!(read_messages(Value::Nil), []);
}
