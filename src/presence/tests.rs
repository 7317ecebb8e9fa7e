//! Both engines, alike; and what only Redis can do.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;

use super::*;
use crate::leases::LEASE;
use crate::protocol::{ChannelName, ConnectionId, UserId};
use crate::redis_link::Commands;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

const SOON: Duration = Duration::from_secs(20);
/// The keys of `chat_42`.
const LEASES: &str = "tg:{chat_42}:presence";
const MEMBERS: &str = "tg:{chat_42}:presence:members";
const USERS: &str = "tg:{chat_42}:presence:users";

/// A store and what it stands on.
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
        told(&self.store.renew(&channel(), members).await.unwrap())
    }

    async fn leave(&self, members: &[&Member]) -> Vec<(bool, ConnectionId)> {
        told(&self.store.leave(&channel(), members).await.unwrap())
    }

    async fn page(&self, after: Option<ConnectionId>, limit: usize) -> Page {
        let (changes, page) = self.store.list(&channel(), after, limit).await;
        assert_eq!(changes, []);
        page.unwrap()
    }

    async fn run<T: ::redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let (_, commands) = self.redis.as_ref().unwrap();
        commands.query(::redis::cmd(words[0]).arg(&words[1..])).await.unwrap()
    }

    /// As if the lease had passed without a renewal.
    async fn expire(&self, member: &Member) {
        let id = member.connection_id.to_string();
        let changed: u8 = self.run(&["ZADD", LEASES, "XX", "CH", "1", &id]).await;
        assert_eq!(changed, 1);
    }
}

fn channel() -> ChannelName {
    ChannelName::new("chat_42").unwrap()
}

fn told(changes: &[Change]) -> Vec<(bool, ConnectionId)> {
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
    let text = connection_of(Some(UserId::Text("1".into())));
    assert_eq!(bench.renew(&[&first]).await, [joined(&first)]);
    assert_eq!(bench.renew(&[&second]).await, []);
    assert_eq!(bench.renew(&[&other, &text]).await, [joined(&other), joined(&text)]);
    assert_eq!(bench.renew(&[&first, &second, &other, &text]).await, [], "renewals are no news");

    let page = bench.page(None, 10).await;
    assert_eq!((page.total_connections, page.total_users, page.more), (4, 3, false));
    let listed = |member: &Member| page.members.iter().find(|(listed, _)| listed == member);
    for (member, connections) in [(&first, 2), (&second, 2), (&other, 1), (&text, 1)] {
        assert_eq!(listed(member).map(|(_, connections)| *connections), Some(connections));
    }

    assert_eq!(bench.leave(&[&first]).await, []);
    assert_eq!(bench.leave(&[&first]).await, [], "nobody leaves twice");
    assert_eq!(bench.leave(&[&second, &text]).await, [left(&second), left(&text)]);
    assert_eq!(bench.renew(&[&first]).await, [joined(&first)]);
    assert_eq!(bench.leave(&[&first, &other]).await, [left(&first), left(&other)]);
    let empty = Page { members: vec![], more: false, total_connections: 0, total_users: 0 };
    assert_eq!(bench.page(None, 10).await, empty);
}

async fn anonymous_connections_come_and_go_each_for_itself(bench: Bench) {
    let (one, other, ana) = (anonymous(), anonymous(), user(1));
    assert_eq!(bench.renew(&[&one, &other]).await, [joined(&one), joined(&other)]);
    assert_eq!(bench.renew(&[&ana]).await, [joined(&ana)]);
    let page = bench.page(None, 10).await;
    assert_eq!((page.total_connections, page.total_users), (3, 1));
    assert_eq!(bench.leave(&[&one]).await, [left(&one)]);
    assert_eq!(bench.leave(&[&other]).await, [left(&other)]);
    assert_eq!(bench.page(None, 10).await.members, [(ana, 1)]);
}

async fn without_events_nothing_is_told(bench: Bench) {
    let quiet = Member { events: false, ..user(1) };
    let nobody = Member { events: false, ..anonymous() };
    assert_eq!(bench.renew(&[&quiet, &nobody]).await, []);
    assert_eq!(bench.page(None, 10).await.total_connections, 2);
    assert_eq!(bench.leave(&[&quiet, &nobody]).await, []);
}

async fn channels_are_kept_apart(bench: Bench) {
    let other = ChannelName::new("chat_43").unwrap();
    let (here, there) = (user(1), user(1));
    assert_eq!(bench.renew(&[&here]).await, [joined(&here)]);
    assert_eq!(told(&bench.store.renew(&other, &[&there]).await.unwrap()), [joined(&there)]);
    assert_eq!(bench.leave(&[&there]).await, []);
    assert_eq!(bench.page(None, 10).await.members, [(here, 1)]);
    let (_, page) = bench.store.list(&other, None, 10).await;
    assert_eq!(page.unwrap().members, [(there, 1)]);
}

async fn pages_follow_one_another_without_a_gap(bench: Bench) {
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
    // Who has left since does not lose the place.
    bench.leave(&[&all[9]]).await;
    let page = bench.page(Some(all[9].connection_id), 1).await;
    assert_eq!(page.members[0].0, all[10]);
}

async fn whoever_comes_next_takes_the_expired_out(bench: Bench) {
    let (dead, also_dead, alive) = (user(1), user(2), user(2));
    assert_eq!(bench.renew(&[&dead, &also_dead]).await, [joined(&dead), joined(&also_dead)]);
    // Of user 2 another connection lives on.
    let mut gone = Vec::new();
    until("an expired lease", async || {
        gone.extend(bench.renew(&[&alive]).await);
        !gone.is_empty()
    })
    .await;
    until("everybody expired", async || {
        gone.extend(bench.renew(&[&alive]).await);
        bench.page(None, 10).await.total_connections == 1
    })
    .await;
    assert_eq!(gone, [left(&dead)]);
    assert_eq!(bench.page(None, 10).await.members, [(alive, 1)]);
}

async fn a_list_shows_nobody_who_has_expired(bench: Bench) {
    let dead = user(1);
    assert_eq!(bench.renew(&[&dead]).await, [joined(&dead)]);
    let mut gone = Vec::new();
    until("nobody listed", async || {
        let (changes, page) = bench.store.list(&channel(), None, 10).await;
        gone.extend(told(&changes));
        page.unwrap().members.is_empty()
    })
    .await;
    assert_eq!(gone, [left(&dead)]);
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
    anonymous_connections_come_and_go_each_for_itself: super::LEASE,
    without_events_nothing_is_told: super::LEASE,
    channels_are_kept_apart: super::LEASE,
    pages_follow_one_another_without_a_gap: super::LEASE,
    whoever_comes_next_takes_the_expired_out: std::time::Duration::from_secs(1),
    a_list_shows_nobody_who_has_expired: std::time::Duration::from_secs(1),
}

#[tokio::test]
async fn of_many_nodes_one_is_told_of_a_dead_member() {
    let bench = Bench::redis(LEASE).await;
    let (dead, survivors) = (user(1), [user(2), user(3)]);
    bench.renew(&[&dead, &survivors[0], &survivors[1]]).await;
    bench.expire(&dead).await;
    let renew = async |member: &Member| bench.renew(&[member]).await;
    let list = async || told(&bench.store.list(&channel(), None, 10).await.0);
    let (one, two, three, four) =
        tokio::join!(renew(&survivors[0]), list(), renew(&survivors[1]), list());
    assert_eq!([one, two, three, four].concat(), [left(&dead)]);
}

#[tokio::test]
async fn who_is_late_and_still_there_is_not_told_to_have_left() {
    let bench = Bench::redis(LEASE).await;
    let late = user(1);
    bench.renew(&[&late]).await;
    bench.expire(&late).await;
    assert_eq!(bench.renew(&[&late]).await, []);
    // Somebody was faster this time.
    bench.expire(&late).await;
    let other = user(2);
    assert_eq!(bench.renew(&[&other]).await, [joined(&other), left(&late)]);
    assert_eq!(bench.renew(&[&late]).await, [joined(&late)]);
}

#[tokio::test]
async fn a_long_list_of_dead_members_is_worked_off() {
    let bench = Bench::redis(LEASE).await;
    let dead: Vec<Member> = (0..2500).map(user).collect();
    for members in dead.chunks(500) {
        bench.renew(&members.iter().collect::<Vec<_>>()).await;
    }
    let ids: Vec<String> = dead.iter().map(|member| member.connection_id.to_string()).collect();
    let mut expire = vec!["ZADD", LEASES, "XX"];
    ids.iter().for_each(|id| expire.extend(["1", id]));
    let _: u64 = bench.run(&expire).await;
    let alive = user(-1);
    let changes = bench.renew(&[&alive]).await;
    assert_eq!(changes.len(), 1 + SWEEP);
    let (changes, page) = bench.store.list(&channel(), None, 10).await;
    assert_eq!(changes.len(), 2500 - SWEEP);
    let page = page.unwrap();
    assert_eq!((page.members, page.total_users), (vec![(alive, 1)], 1));
}

#[tokio::test]
async fn what_redis_keeps_expires() {
    let bench = Bench::redis(LEASE).await;
    bench.renew(&[&user(1), &anonymous()]).await;
    let (leases, members, users): (i64, i64, i64) = (
        bench.run(&["PTTL", LEASES]).await,
        bench.run(&["PTTL", MEMBERS]).await,
        bench.run(&["PTTL", USERS]).await,
    );
    for left in [leases, members, users] {
        assert!((60_000..=120_000).contains(&left), "{left}");
    }
    let keys: Vec<String> = bench.run(&["KEYS", "*"]).await;
    assert_eq!(keys.len(), 3, "{keys:?}");
}

#[tokio::test]
async fn what_an_eviction_left_is_thrown_away() {
    for evicted in [LEASES, MEMBERS, USERS] {
        let bench = Bench::redis(LEASE).await;
        let (one, other) = (user(1), user(2));
        bench.renew(&[&one, &other]).await;
        let _: u8 = bench.run(&["DEL", evicted]).await;
        assert_eq!(bench.renew(&[&one]).await, [joined(&one)], "{evicted}");
        assert_eq!(bench.renew(&[&other]).await, [joined(&other)], "{evicted}");
        let page = bench.page(None, 10).await;
        assert_eq!((page.total_connections, page.total_users), (2, 2), "{evicted}");
        assert_eq!(bench.leave(&[&one, &other]).await.len(), 2, "{evicted}");
    }
}

#[tokio::test]
async fn rubbish_of_others_is_refused_or_nobody() {
    let bench = Bench::redis(LEASE).await;
    let member = user(1);
    bench.renew(&[&member]).await;
    let _: u8 = bench.run(&["ZADD", MEMBERS, "0", "rubbish"]).await;
    let _: u8 = bench.run(&["ZADD", LEASES, "1", "rubbish"]).await;
    assert_eq!(bench.page(None, 10).await.members, [(member.clone(), 1)]);
    let () = bench.run(&["SET", USERS, "no hash"]).await;
    assert_eq!(bench.store.renew(&channel(), &[&user(2)]).await, Err(Failure::Refused));
    let (_, page) = bench.store.list(&channel(), None, 10).await;
    assert_eq!(page, Err(Failure::Refused));
}

#[tokio::test]
async fn the_keys_of_a_channel_share_a_cluster_slot() {
    let (_server, commands) = RedisServer::start_cluster().await;
    let store = PresenceStore::redis(commands, "tg:");
    let member = user(1);
    assert_eq!(told(&store.renew(&channel(), &[&member]).await.unwrap()), [joined(&member)]);
    assert_eq!(store.list(&channel(), None, 10).await.1.unwrap().members, [(member.clone(), 1)]);
    assert_eq!(told(&store.leave(&channel(), &[&member]).await.unwrap()), [left(&member)]);
}

/// The announcements so far, as text.
fn announced(members: &Members) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(Announcement { channel, events }) = members.next_announcement() {
        let text = |event: &bytes::Bytes| String::from_utf8(event.to_vec()).unwrap();
        all.extend(events.iter().map(|event| format!("{channel} {}", text(event))));
    }
    all
}

const JOIN: &str = r#"chat_42 {"event":"join","user_id":1,"username":"user 1"}"#;
const LEAVE: &str = r#"chat_42 {"event":"leave","user_id":1,"username":"user 1"}"#;

async fn members_of_a_thread_are_told_and_announced(bench: Bench) {
    let members = Rc::new(Members::new(bench.store.clone()));
    LocalSet::new()
        .run_until(async {
            let running = members.clone();
            tokio::task::spawn_local(async move { running.run().await });
            let count = async || bench.page(None, 10).await.total_connections;
            let (one, two, three) = (user(1), user(1), user(1));
            members.enter(&channel(), one.clone());
            until("a member", async || count().await == 1).await;
            members.enter(&channel(), two.clone());
            until("two members", async || count().await == 2).await;
            members.leave(one.connection_id);
            until("one left", async || count().await == 1).await;
            // Leaves and is back before anybody was told.
            members.leave(two.connection_id);
            members.enter(&channel(), three.clone());
            let only_three = [(three.clone(), 1)];
            until("another one", async || bench.page(None, 10).await.members == only_three).await;
            assert_eq!(announced(&members), [JOIN]);
            members.leave(three.connection_id);
            members.leave(three.connection_id);
            until("nobody", async || count().await == 0).await;
            until("the last announcement", async || {
                let all = announced(&members);
                all == [LEAVE] || {
                    assert_eq!(all, [""; 0]);
                    false
                }
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn members_in_memory_are_told_and_announced() {
    members_of_a_thread_are_told_and_announced(Bench::memory(LEASE)).await;
}

#[tokio::test]
async fn members_in_redis_are_told_and_announced() {
    members_of_a_thread_are_told_and_announced(Bench::redis(LEASE).await).await;
}

#[tokio::test]
async fn a_redis_that_was_emptied_is_healed_by_the_next_renewal() {
    let bench = Bench::redis(LEASE).await;
    let members = Members::new(bench.store.clone());
    let all: Vec<Member> = (0..600).map(|n| Member { connected_at: 7, ..user(n) }).collect();
    all.iter().for_each(|member| members.enter(&channel(), member.clone()));
    assert!(members.renew_all().await);
    assert_eq!(bench.page(None, 1000).await.total_users, 600);
    let () = bench.run(&["FLUSHALL"]).await;
    members.leave(all[0].connection_id);
    assert_eq!(bench.page(None, 1000).await.members, []);
    assert!(members.renew_all().await);
    assert!(members.flush().await);
    let page = bench.page(None, 1000).await;
    assert_eq!((page.total_connections, page.total_users), (599, 599));
    assert!(page.members.iter().all(|(member, _)| all.contains(member)));
}

#[tokio::test]
async fn who_came_and_went_while_redis_was_away_is_told_when_it_is_back() {
    let mut bench = Bench::redis(LEASE).await;
    let members = Members::new(bench.store.clone());
    let (stays, leaves, comes) = (user(1), user(2), user(3));
    members.enter(&channel(), stays.clone());
    members.enter(&channel(), leaves.clone());
    assert!(members.renew_all().await);
    let (server, commands) = bench.redis.as_mut().unwrap();
    server.pause();
    members.enter(&channel(), comes.clone());
    members.leave(leaves.connection_id);
    assert!(!members.renew_all().await);
    assert!(!members.flush().await);
    server.resume();
    assert!(commands.wait_up(SOON).await);
    until("all told", async || members.renew_all().await && members.flush().await).await;
    let mut expected = [(stays, 1), (comes, 1)];
    expected.sort_by_key(|(member, _)| member.connection_id);
    assert_eq!(bench.page(None, 10).await.members, expected);
}

#[tokio::test]
async fn a_channel_that_is_refused_holds_up_no_other() {
    let bench = Bench::redis(LEASE).await;
    let _: u8 = bench.run(&["SADD", "tg:{broken}:presence", "no sorted set"]).await;
    let members = Members::new(bench.store.clone());
    let fine = user(1);
    members.enter(&ChannelName::new("broken").unwrap(), user(1));
    members.enter(&channel(), fine.clone());
    assert!(members.renew_all().await);
    assert_eq!(bench.page(None, 10).await.members, [(fine, 1)]);
}
