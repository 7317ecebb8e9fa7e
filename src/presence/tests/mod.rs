//! Tests of the presence store, run on both engines.

mod members;
mod redis;

use std::time::Duration;

use super::*;
use crate::leases::LEASE;
use crate::protocol::{ChannelName, ConnectionId, UserId};
use crate::redis_link::Commands;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

const SOON: Duration = Duration::from_secs(20);
/// The leases of `chat_42`.
const LEASES: &str = "tg:{chat_42}:presence";

/// A store on one engine, with the server that it needs.
struct Bench {
    store: PresenceStore,
    redis: Option<(RedisServer, Commands)>,
}

impl Bench {
    fn memory(lease: Duration) -> Self {
        Self { store: PresenceStore::memory_with(lease), redis: None }
    }

    async fn redis(lease: Duration) -> Self {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(SOON).await);
        let store = PresenceStore::redis_with(commands.clone(), "tg:", lease);
        Self { store, redis: Some((server, commands)) }
    }

    async fn renew(&self, members: &[&Member]) -> Vec<(bool, ConnectionId)> {
        changed_ids(&self.store.renew(&channel(), members).await.unwrap())
    }

    async fn leave(&self, members: &[&Member]) -> Vec<(bool, ConnectionId)> {
        changed_ids(&self.store.leave(&channel(), members).await.unwrap())
    }

    async fn page(&self, after: Option<ConnectionId>, limit: usize) -> Page {
        let (changes, page) = self.store.list(&channel(), after, limit).await;
        assert_eq!(changes, []);
        page.unwrap()
    }

    async fn run<T: ::redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let (_, commands) = self.redis.as_ref().unwrap();
        commands.query(::redis::cmd(command[0]).arg(&command[1..])).await.unwrap()
    }

    /// Makes the lease of `member` expire at once.
    async fn expire(&self, member: &Member) {
        let id = member.connection_id.to_string();
        let changed: u8 = self.run(&["ZADD", LEASES, "XX", "CH", "1", &id]).await;
        assert_eq!(changed, 1);
    }
}

fn channel() -> ChannelName {
    ChannelName::new("chat_42").unwrap()
}

fn changed_ids(changes: &[Change]) -> Vec<(bool, ConnectionId)> {
    changes.iter().map(|change| (change.joined, change.member.connection_id)).collect()
}

fn joined(member: &Member) -> (bool, ConnectionId) {
    (true, member.connection_id)
}

fn left(member: &Member) -> (bool, ConnectionId) {
    (false, member.connection_id)
}

fn connection_of(user_id: Option<UserId>) -> Member {
    let username = user_id.as_ref().map(|id| format!("user {id}").into());
    let connection_id = ConnectionId::random();
    Member { connection_id, user_id, username, connected_at: 1_764_000_000, events: true }
}

fn user(id: i64) -> Member {
    connection_of(Some(UserId::Integer(id)))
}

fn anonymous() -> Member {
    connection_of(None)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, wait).await.is_ok(), "not in time: {what}");
}

async fn a_user_joins_with_the_first_and_leaves_with_the_last_connection(bench: Bench) {
    let (first, second, other) = (user(1), user(1), user(2));
    // Credentials write the id of user 1 as text as well; "01" is another user.
    let [text, namesake] = ["1", "01"].map(|id| connection_of(Some(UserId::Text(id.into()))));
    assert_eq!(bench.renew(&[&first]).await, [joined(&first)]);
    assert_eq!(bench.renew(&[&second]).await, []);
    assert_eq!(bench.renew(&[&other, &text, &namesake]).await, [joined(&other), joined(&namesake)]);
    let all = [&first, &second, &other, &text, &namesake];
    assert_eq!(bench.renew(&all).await, [], "renewals are not changes");

    let page = bench.page(None, 10).await;
    assert_eq!((page.total_connections, page.total_users, page.more), (5, 3, false));
    let listed = |member: &Member| page.members.iter().find(|(listed, _)| listed == member);
    for (member, connections) in
        [(&first, 3), (&second, 3), (&text, 3), (&other, 1), (&namesake, 1)]
    {
        assert_eq!(listed(member).map(|(_, connections)| *connections), Some(connections));
    }

    assert_eq!(bench.leave(&[&first]).await, []);
    assert_eq!(bench.leave(&[&first]).await, [], "a member leaves only once");
    assert_eq!(bench.leave(&[&second, &namesake]).await, [left(&namesake)]);
    assert_eq!(bench.leave(&[&text]).await, [left(&text)]);
    assert_eq!(bench.renew(&[&first]).await, [joined(&first)]);
    assert_eq!(bench.leave(&[&first, &other]).await, [left(&first), left(&other)]);
    let empty = Page { members: vec![], more: false, total_connections: 0, total_users: 0 };
    assert_eq!(bench.page(None, 10).await, empty);
}

async fn each_anonymous_connection_joins_and_leaves_by_itself(bench: Bench) {
    let (one, other, ana) = (anonymous(), anonymous(), user(1));
    assert_eq!(bench.renew(&[&one, &other]).await, [joined(&one), joined(&other)]);
    assert_eq!(bench.renew(&[&ana]).await, [joined(&ana)]);
    let page = bench.page(None, 10).await;
    assert_eq!((page.total_connections, page.total_users), (3, 1));
    assert_eq!(bench.leave(&[&one]).await, [left(&one)]);
    assert_eq!(bench.leave(&[&other]).await, [left(&other)]);
    assert_eq!(bench.page(None, 10).await.members, [(ana, 1)]);
}

async fn without_events_nothing_is_announced(bench: Bench) {
    let quiet = Member { events: false, ..user(1) };
    let quiet_anonymous = Member { events: false, ..anonymous() };
    assert_eq!(bench.renew(&[&quiet, &quiet_anonymous]).await, []);
    assert_eq!(bench.page(None, 10).await.total_connections, 2);
    assert_eq!(bench.leave(&[&quiet, &quiet_anonymous]).await, []);
}

async fn channels_are_independent(bench: Bench) {
    let other = ChannelName::new("chat_43").unwrap();
    let (here, there) = (user(1), user(1));
    assert_eq!(bench.renew(&[&here]).await, [joined(&here)]);
    assert_eq!(changed_ids(&bench.store.renew(&other, &[&there]).await.unwrap()), [joined(&there)]);
    assert_eq!(bench.leave(&[&there]).await, []);
    assert_eq!(bench.page(None, 10).await.members, [(here, 1)]);
    let (_, page) = bench.store.list(&other, None, 10).await;
    assert_eq!(page.unwrap().members, [(there, 1)]);
}

async fn pages_follow_each_other_without_a_gap(bench: Bench) {
    let mut all: Vec<Member> = (0..25).map(|n| user(n / 2)).collect();
    bench.renew(&all.iter().collect::<Vec<_>>()).await;
    all.sort_by_key(|member| member.connection_id);
    let (mut after, mut seen) = (None, Vec::new());
    for (length, more) in [(10, true), (10, true), (5, false)] {
        let page = bench.page(after, 10).await;
        assert_eq!((page.members.len(), page.more), (length, more));
        assert_eq!((page.total_connections, page.total_users), (25, 13));
        after = page.members.last().map(|(member, _)| member.connection_id);
        seen.extend(page.members.into_iter().map(|(member, _)| member));
    }
    assert_eq!(seen, all);
    assert_eq!(bench.page(after, 10).await.members, []);
    // A page can start after a member that has left.
    bench.leave(&[&all[9]]).await;
    let page = bench.page(Some(all[9].connection_id), 1).await;
    assert_eq!(page.members[0].0, all[10]);
}

async fn the_next_call_removes_expired_members(bench: Bench) {
    let (dead, also_dead, alive) = (user(1), user(2), user(2));
    assert_eq!(bench.renew(&[&dead, &also_dead]).await, [joined(&dead), joined(&also_dead)]);
    // User 2 keeps another connection.
    let mut left_ids = Vec::new();
    until("an expired lease", async || {
        left_ids.extend(bench.renew(&[&alive]).await);
        !left_ids.is_empty()
    })
    .await;
    until("all leases expired", async || {
        left_ids.extend(bench.renew(&[&alive]).await);
        bench.page(None, 10).await.total_connections == 1
    })
    .await;
    assert_eq!(left_ids, [left(&dead)]);
    assert_eq!(bench.page(None, 10).await.members, [(alive, 1)]);
}

async fn a_list_contains_no_expired_member(bench: Bench) {
    let dead = user(1);
    assert_eq!(bench.renew(&[&dead]).await, [joined(&dead)]);
    let mut left_ids = Vec::new();
    until("an empty list", async || {
        let (changes, page) = bench.store.list(&channel(), None, 10).await;
        left_ids.extend(changed_ids(&changes));
        page.unwrap().members.is_empty()
    })
    .await;
    assert_eq!(left_ids, [left(&dead)]);
}

macro_rules! on_both_engines {
    ($($test:ident: $lease:expr),* $(,)?) => {
        mod on_memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Bench::memory($lease)).await;
            })*
        }

        mod on_redis {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Bench::redis($lease).await).await;
            })*
        }
    };
}

on_both_engines! {
    a_user_joins_with_the_first_and_leaves_with_the_last_connection: super::LEASE,
    each_anonymous_connection_joins_and_leaves_by_itself: super::LEASE,
    without_events_nothing_is_announced: super::LEASE,
    channels_are_independent: super::LEASE,
    pages_follow_each_other_without_a_gap: super::LEASE,
    the_next_call_removes_expired_members: std::time::Duration::from_secs(1),
    a_list_contains_no_expired_member: std::time::Duration::from_secs(1),
}
