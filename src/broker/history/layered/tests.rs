use futures_util::StreamExt as _;

use super::*;
use crate::redis_link::Commands;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

const TTL: Duration = Duration::from_secs(60);

struct Bench {
    server: RedisServer,
    redis: RedisHistory,
}

fn channel() -> ChannelName {
    ChannelName::new("chat_1").unwrap()
}

impl Bench {
    async fn start() -> Self {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(Duration::from_secs(10)).await);
        Self { server, redis: RedisHistory::new(commands, "tg:") }
    }

    /// Imports messages, each with its id and its text.
    async fn import(
        &self,
        first: Option<(&str, i64)>,
        messages: &[(&str, &str)],
        end: Option<ReplyEnd>,
    ) -> ImportOutcome {
        let publication = |(id, text): &(&str, &str)| Imported {
            id: (*id).to_owned(),
            json: Bytes::copy_from_slice(text.as_bytes()),
            end: end.clone(),
        };
        let import = Import {
            channel: channel(),
            rule: config::History { size: 100, ttl: TTL, compact: config::Compact::Off },
            first: first
                .map(|(origin, number)| MessageNumber { origin: origin.to_owned(), number }),
            publications: messages.iter().map(publication).collect(),
        };
        self.redis.import(TTL, &[import]).await.unwrap().remove(0).unwrap()
    }

    async fn register(&self, node: &str, state: ListenerState, valid: &[&str]) -> Registered {
        let valid: Vec<String> = valid.iter().map(ToString::to_string).collect();
        let registration = Registration { node, ttl: TTL, state, origin: node, valid: &valid };
        let mut answers = self.redis.register_listener(&[channel()], registration).await.unwrap();
        answers.remove(0).unwrap()
    }

    /// Lets the registration of `node` be an old one.
    async fn age(&self, node: &str) {
        let mut add = redis::cmd("ZADD");
        add.arg("tg:{chat_1}:nodes").arg("XX").arg(1).arg(node);
        let _: i64 = self.redis.commands().query(&add).await.unwrap();
    }

    /// The texts in the history.
    async fn stored(&self) -> Vec<String> {
        let mut range = redis::cmd("XRANGE");
        range.arg("tg:{chat_1}:stream").arg("-").arg("+");
        let entries: Vec<(String, Vec<String>)> =
            self.redis.commands().query(&range).await.unwrap();
        entries.into_iter().map(|(_, mut fields)| fields.remove(1)).collect()
    }

    async fn epoch(&self) -> Option<String> {
        let mut get = redis::cmd("HGET");
        self.redis.commands().query(get.arg("tg:{chat_1}:meta").arg("epoch")).await.unwrap()
    }
}

fn founded(new_epoch: bool) -> Registered {
    Registered { others: vec![], is_first: true, new_epoch }
}

#[tokio::test]
async fn copies_with_ids_are_appended_once() {
    let bench = Bench::start().await;
    let appended = bench.import(None, &[("1", "a"), ("2", "b")], None).await;
    assert_eq!(appended, ImportOutcome::Appended(2));
    let appended = bench.import(None, &[("2", "b"), ("3", "b")], None).await;
    assert_eq!(appended, ImportOutcome::Appended(1));
    assert_eq!(bench.stored().await, ["a", "b", "b"]);
}

#[tokio::test]
async fn copies_with_numbers_are_appended_once_by_whoever_is_first() {
    let bench = Bench::start().await;
    assert_eq!(bench.register("one", ListenerState::Joining, &[]).await, founded(false));
    let both = [("", "same"), ("", "same")];
    assert_eq!(bench.import(Some(("one", 1)), &both, None).await, ImportOutcome::Appended(2));
    assert_eq!(bench.import(Some(("one", 2)), &both, None).await, ImportOutcome::Appended(1));
    // Messages from before the origin belong to nobody.
    assert_eq!(bench.import(Some(("one", -3)), &both, None).await, ImportOutcome::Appended(0));
    assert_eq!(bench.stored().await, ["same"; 3]);
    let other = bench.import(Some(("two", 4)), &both, None).await;
    assert_eq!(other, ImportOutcome::OtherOrigin);
    assert_eq!(bench.stored().await.len(), 3);
}

/// Clients of all nodes learn of the new epoch, and nobody gets what came before it.
#[tokio::test]
async fn a_number_that_is_missing_ends_the_epoch() {
    let bench = Bench::start().await;
    bench.register("one", ListenerState::Joining, &[]).await;
    bench.import(Some(("one", 1)), &[("", "a")], None).await;
    let before = bench.epoch().await;
    let client = crate::redis_link::client(&bench.server.url()).unwrap();
    let mut pubsub = client.get_async_pubsub().await.unwrap();
    pubsub.subscribe("chat_1").await.unwrap();
    let appended = bench.import(Some(("one", 3)), &[("", "c")], None).await;
    assert_eq!(appended, ImportOutcome::Appended(1));
    let after = bench.epoch().await.unwrap();
    assert_ne!(Some(&after), before.as_ref());
    assert_eq!(bench.stored().await, ["c"]);
    let mut messages = pubsub.on_message();
    for expected in [format!("@{after}:3:"), format!("@{after}:4:c")] {
        let payload: String = messages.next().await.unwrap().get_payload().unwrap();
        assert_eq!(payload, expected);
    }
}

#[tokio::test]
async fn a_node_is_registered_when_nothing_is_missing() {
    use ListenerState::{Joining, Leaving, Listening, Missed, Ready};
    let bench = Bench::start().await;
    let both = ["one", "two"];
    let others = |node: &str| Registered {
        others: vec![node.to_owned()],
        is_first: false,
        new_epoch: false,
    };
    let nothing = Registered { others: vec![], is_first: false, new_epoch: false };
    assert_eq!(bench.register("one", Joining, &both).await, founded(false));
    bench.import(Some(("one", 1)), &[("", "a")], None).await;
    // The second node asks the first one, and does not count before it is ready.
    assert_eq!(bench.register("two", Joining, &both).await, others("one"));
    assert_eq!(bench.register("one", Leaving, &both).await, nothing);
    assert_eq!(bench.register("two", Ready, &both).await, nothing);
    assert_eq!(bench.register("one", Leaving, &both).await, others("two"));
    assert_eq!(bench.register("one", Listening, &both).await, nothing);
    // What one of two has missed, the other has.
    let epoch = bench.epoch().await;
    assert_eq!(bench.register("one", Missed, &both).await, others("two"));
    assert_eq!(bench.register("one", Ready, &both).await, nothing);
    assert_eq!(bench.epoch().await, epoch);
    // A node that has just registered may not be known to the first one yet.
    assert_eq!(bench.register("one", Missed, &["one"]).await, others("two"));
    // Whoever leaves relies only on nodes that it knows, and removes none.
    assert_eq!(bench.register("one", Leaving, &["one"]).await, nothing);
    assert_eq!(bench.register("one", Leaving, &both).await, others("two"));
    // With the second node dead, nobody has it.
    bench.age("two").await;
    assert_eq!(bench.register("one", Missed, &["one"]).await, founded(true));
    assert_ne!(bench.epoch().await, epoch);
    assert!(bench.stored().await.is_empty());
    // A node that was removed is told who the others are.
    assert_eq!(bench.register("two", Listening, &both).await, others("one"));
    bench.age("one").await;
    assert_eq!(bench.register("two", Listening, &["two"]).await, founded(true));
}

#[tokio::test]
async fn a_terminal_event_ends_its_generation_in_the_same_step() {
    let bench = Bench::start().await;
    bench.import(None, &[("0", "before")], None).await;
    let state = async |task: &str| -> Option<String> {
        let mut get = redis::cmd("HGET");
        bench.redis.commands().query(get.arg("tg:{chat_1}:running").arg(task)).await.unwrap()
    };
    let has_ended = async |task: &str| state(task).await.unwrap().starts_with("ended ");
    for task in ["x", "y"] {
        bench.redis.record_generation_start(&channel(), task, None).await.unwrap();
    }
    // An event without a task id may end any of several generations.
    bench.import(None, &[("1", "end")], Some(ReplyEnd::Unnamed)).await;
    assert!(!has_ended("x").await && !has_ended("y").await);
    let named = Some(ReplyEnd::Named("x".to_owned()));
    bench.import(None, &[("2", "end")], named).await;
    assert!(has_ended("x").await && !has_ended("y").await);
}

#[tokio::test]
async fn nodes_know_each_other_and_take_what_is_offered_once() {
    let bench = Bench::start().await;
    let beat = async |node, most| bench.redis.node_heartbeat(node, TTL, most).await.unwrap();
    assert!(beat("one", 0).await.was_unknown);
    assert!(!beat("one", 0).await.was_unknown);
    bench.redis.record_groups("one", &[channel()]).await.unwrap();
    bench.redis.offer_channels(&[channel()]).await.unwrap();
    let second = beat("two", 10).await;
    assert_eq!(second.offered, [channel()]);
    let nodes: Vec<_> = second.nodes.iter().map(|(node, _)| node.as_str()).collect();
    assert_eq!(nodes, ["one", "two"]);
    assert!(beat("three", 10).await.offered.is_empty());
    assert!(bench.redis.claim_node("one", "two", TTL).await.unwrap());
    assert!(!bench.redis.claim_node("one", "three", TTL).await.unwrap());
    assert_eq!(bench.redis.groups_of("one").await.unwrap(), [channel()]);
    bench.redis.remove_node("one").await.unwrap();
    assert!(bench.redis.groups_of("one").await.unwrap().is_empty());
    assert!(beat("one", 0).await.was_unknown);
}
