//! Tests of turns, run on both engines.

use std::time::Duration;

use super::*;
use crate::protocol::UserId;
use crate::redis_link::Commands;
use crate::redis_link::test_server::{RedisServer, on_both_engines};
use crate::shutdown::Shutdown;

const SOON: Duration = Duration::from_secs(10);
const ROOM: usize = 10;

/// Two nodes on one engine, and the server that they need.
struct Bench {
    one: SharedLimits,
    two: SharedLimits,
    redis: Option<(RedisServer, Commands)>,
}

impl Bench {
    async fn memory() -> Self {
        let limits = SharedLimits::memory();
        Self { one: limits.clone(), two: limits, redis: None }
    }

    async fn redis() -> Self {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        let other = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        for commands in [&commands, &other] {
            assert!(commands.wait_up(SOON).await);
        }
        let one = SharedLimits::redis(commands.clone(), "tg:");
        Self { one, two: SharedLimits::redis(other, "tg:"), redis: Some((server, commands)) }
    }

    /// A request on the first node.
    fn request(&self) -> TurnRequest {
        TurnRequest::new(&self.one, &channel("a"), &client(1))
    }

    /// A request on the other node.
    fn request_elsewhere(&self) -> TurnRequest {
        TurnRequest::new(&self.two, &channel("a"), &client(2))
    }
}

on_both_engines! {
    the_turn_is_taken_in_order_over_two_nodes in_order;
    a_queue_without_room_refuses full;
    a_client_has_a_share_of_the_queue share;
    who_leaves_makes_room leaves;
    of_simultaneous_requests_one_gets_the_turn simultaneous;
    nothing_is_left_of_turns_that_were_given_back nothing_left;
}

fn client(number: u64) -> SenderKey {
    SenderKey::User(UserId::Integer(number.try_into().unwrap()))
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

/// Drops a request, and waits until what it held is given back.
async fn leave(limits: &SharedLimits, request: TurnRequest) {
    let (channel, holder) = (request.channel.clone(), request.transfer());
    limits.leave_turn(&channel, holder).await.unwrap();
}

async fn in_order(bench: Bench) {
    let (first, second, third) = (bench.request(), bench.request_elsewhere(), bench.request());
    assert_eq!(first.take(ROOM, ROOM).await, Ok(Turn::Taken));
    assert_eq!(first.take(ROOM, ROOM).await, Ok(Turn::Taken), "a repeated request changes nothing");
    for _ in 0..3 {
        assert_eq!(second.take(ROOM, ROOM).await, Ok(Turn::Waiting));
        assert_eq!(third.take(ROOM, ROOM).await, Ok(Turn::Waiting));
    }
    let elsewhere = TurnRequest::new(&bench.two, &channel("b"), &client(2));
    assert_eq!(elsewhere.take(0, ROOM).await, Ok(Turn::Taken), "channels are independent");
    leave(&bench.one, first).await;
    assert_eq!(third.take(ROOM, ROOM).await, Ok(Turn::Waiting), "the second waits longer");
    assert_eq!(
        bench.request().take(0, ROOM).await,
        Ok(Turn::Full),
        "nobody overtakes those that wait"
    );
    assert_eq!(second.take(ROOM, ROOM).await, Ok(Turn::Taken));
    assert_eq!(third.take(ROOM, ROOM).await, Ok(Turn::Waiting));
    leave(&bench.two, second).await;
    assert_eq!(third.take(ROOM, ROOM).await, Ok(Turn::Taken));
}

async fn full(bench: Bench) {
    let (first, second, third) = (bench.request(), bench.request(), bench.request_elsewhere());
    assert_eq!(first.take(0, ROOM).await, Ok(Turn::Taken));
    assert_eq!(second.take(0, ROOM).await, Ok(Turn::Full));
    assert_eq!(second.take(1, ROOM).await, Ok(Turn::Waiting));
    assert_eq!(third.take(1, ROOM).await, Ok(Turn::Full));
    assert_eq!(second.take(1, ROOM).await, Ok(Turn::Waiting), "it keeps its place");
}

/// Over two nodes, of which each has requests of both clients.
async fn share(bench: Bench) {
    let turn = bench.request();
    assert_eq!(turn.take(ROOM, 2).await, Ok(Turn::Taken));
    let own = [bench.request(), bench.request()];
    for request in own.iter().chain(&own) {
        assert_eq!(request.take(ROOM, 2).await, Ok(Turn::Waiting));
    }
    let elsewhere = TurnRequest::new(&bench.two, &channel("a"), &client(1));
    assert_eq!(elsewhere.take(ROOM, 2).await, Ok(Turn::Full));
    let other = bench.request_elsewhere();
    assert_eq!(other.take(ROOM, 2).await, Ok(Turn::Waiting));
    let [left, _kept] = own;
    leave(&bench.one, left).await;
    assert_eq!(elsewhere.take(ROOM, 2).await, Ok(Turn::Waiting));
}

async fn leaves(bench: Bench) {
    let (first, second, third) = (bench.request(), bench.request_elsewhere(), bench.request());
    assert_eq!(first.take(ROOM, ROOM).await, Ok(Turn::Taken));
    assert_eq!(second.take(ROOM, ROOM).await, Ok(Turn::Waiting));
    assert_eq!(third.take(ROOM, ROOM).await, Ok(Turn::Waiting));
    leave(&bench.two, second).await;
    drop(first);
    crate::retry::retry(
        500,
        Duration::from_millis(10),
        |turn| *turn == Turn::Waiting,
        || async {
            match third.take(ROOM, ROOM).await.unwrap() {
                Turn::Taken => Ok(()),
                turn => Err(turn),
            }
        },
    )
    .await
    .expect("a dropped request gives the turn back");
}

async fn simultaneous(bench: Bench) {
    let requests: Vec<_> = (0..20)
        .map(|n| if n % 2 == 0 { bench.request() } else { bench.request_elsewhere() })
        .collect();
    let turns = futures_util::future::join_all(requests.iter().map(|one| one.take(5, ROOM))).await;
    let count = |turn| turns.iter().filter(|one| **one == Ok(turn)).count();
    assert_eq!((count(Turn::Taken), count(Turn::Waiting), count(Turn::Full)), (1, 5, 14));
}

async fn nothing_left(bench: Bench) {
    let (first, second) = (bench.request(), bench.request_elsewhere());
    assert_eq!(first.take(ROOM, ROOM).await, Ok(Turn::Taken));
    assert_eq!(second.take(ROOM, ROOM).await, Ok(Turn::Waiting));
    leave(&bench.two, second).await;
    leave(&bench.one, first).await;
    if let Some((_server, commands)) = &bench.redis {
        let keys: Vec<String> = commands.query(redis::cmd("KEYS").arg("*")).await.unwrap();
        assert_eq!(keys, Vec::<String>::new());
    }
}

/// A node that dies neither keeps the turn nor a place in front of the others.
#[tokio::test]
async fn turns_and_places_of_dead_nodes_expire() {
    let bench = Bench::redis().await;
    let (_server, commands) = bench.redis.as_ref().unwrap();
    let (dead, dead_too, alive) = (bench.request(), bench.request(), bench.request_elsewhere());
    assert_eq!(dead.take(ROOM, ROOM).await, Ok(Turn::Taken));
    assert_eq!(dead_too.take(ROOM, ROOM).await, Ok(Turn::Waiting));
    assert_eq!(alive.take(ROOM, ROOM).await, Ok(Turn::Waiting));
    let keys = ["tg:turn:{a}", "tg:turn:{a}:waiting:leases"];
    for key in keys {
        let left: i64 = commands.query(redis::cmd("PTTL").arg(key)).await.unwrap();
        assert!((1..=60_000).contains(&left), "{key}: {left} ms");
    }
    // As if the time had passed in which they were not renewed.
    for (key, request) in keys.iter().zip([&dead, &dead_too]) {
        let mut expire = redis::cmd("ZADD");
        expire.arg(*key).arg("XX").arg(1).arg(request.holder.to_string());
        let _: i64 = commands.query(&expire).await.unwrap();
    }
    assert_eq!(alive.take(ROOM, ROOM).await, Ok(Turn::Taken));
}
