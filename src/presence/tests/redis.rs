//! Tests of behaviour that only Redis has: its clock, evicted keys and foreign values.

use super::*;

/// The other keys of `chat_42`.
const MEMBERS: &str = "tg:{chat_42}:presence:members";
const USERS: &str = "tg:{chat_42}:presence:users";

#[tokio::test]
async fn only_one_caller_gets_the_leave_of_an_expired_member() {
    let bench = Bench::redis(LEASE).await;
    let (dead, survivors) = (user(1), [user(2), user(3)]);
    bench.renew(&[&dead, &survivors[0], &survivors[1]]).await;
    bench.expire(&dead).await;
    let renew = async |member: &Member| bench.renew(&[member]).await;
    let list = async || changed_ids(&bench.store.list(&channel(), None, 10).await.0);
    let (one, two, three, four) =
        tokio::join!(renew(&survivors[0]), list(), renew(&survivors[1]), list());
    assert_eq!([one, two, three, four].concat(), [left(&dead)]);
}

#[tokio::test]
async fn a_late_renewal_causes_no_leave() {
    let bench = Bench::redis(LEASE).await;
    let late = user(1);
    bench.renew(&[&late]).await;
    bench.expire(&late).await;
    assert_eq!(bench.renew(&[&late]).await, []);
    // This time another call removes the expired member first.
    bench.expire(&late).await;
    let other = user(2);
    assert_eq!(bench.renew(&[&other]).await, [joined(&other), left(&late)]);
    assert_eq!(bench.renew(&[&late]).await, [joined(&late)]);
}

#[tokio::test]
async fn a_list_removes_all_expired_members() {
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
    assert_eq!(changes.len(), 1 + SWEEP_LIMIT);
    let (changes, page) = bench.store.list(&channel(), None, 10).await;
    assert_eq!(changes.len(), 2500 - SWEEP_LIMIT);
    let page = page.unwrap();
    assert_eq!((page.members, page.total_users), (vec![(alive, 1)], 1));
}

#[tokio::test]
async fn keys_in_redis_expire() {
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
async fn keys_left_by_an_eviction_are_deleted() {
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
async fn foreign_values_are_refused_or_ignored() {
    let bench = Bench::redis(LEASE).await;
    let member = user(1);
    bench.renew(&[&member]).await;
    let _: u8 = bench.run(&["ZADD", MEMBERS, "0", "foreign"]).await;
    let _: u8 = bench.run(&["ZADD", LEASES, "1", "foreign"]).await;
    assert_eq!(bench.page(None, 10).await.members, [(member.clone(), 1)]);
    let () = bench.run(&["SET", USERS, "not a hash"]).await;
    assert_eq!(bench.store.renew(&channel(), &[&user(2)]).await, Err(PresenceError::Refused));
    let (_, page) = bench.store.list(&channel(), None, 10).await;
    assert_eq!(page, Err(PresenceError::Refused));
}

#[tokio::test]
async fn the_keys_of_a_channel_share_a_cluster_slot() {
    let (_server, commands) = RedisServer::start_cluster().await;
    let store = PresenceStore::redis(commands, "tg:");
    let member = user(1);
    assert_eq!(changed_ids(&store.renew(&channel(), &[&member]).await.unwrap()), [joined(&member)]);
    assert_eq!(store.list(&channel(), None, 10).await.1.unwrap().members, [(member.clone(), 1)]);
    assert_eq!(changed_ids(&store.leave(&channel(), &[&member]).await.unwrap()), [left(&member)]);
}
