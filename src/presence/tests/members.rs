//! Tests of the members of a thread, on both engines.

use std::rc::Rc;

use tokio::task::LocalSet;

use super::*;

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

async fn members_of_a_thread_are_stored_and_announced(bench: Bench) {
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
            // The member leaves and is replaced before the engine is called.
            members.leave(two.connection_id);
            members.enter(&channel(), three.clone());
            let only_three = [(three.clone(), 1)];
            until("another one", async || bench.page(None, 10).await.members == only_three).await;
            assert_eq!(announced(&members), [JOIN]);
            members.leave(three.connection_id);
            members.leave(three.connection_id);
            until("no members", async || count().await == 0).await;
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
async fn members_in_memory_are_stored_and_announced() {
    members_of_a_thread_are_stored_and_announced(Bench::memory(LEASE)).await;
}

#[tokio::test]
async fn members_in_redis_are_stored_and_announced() {
    members_of_a_thread_are_stored_and_announced(Bench::redis(LEASE).await).await;
}

#[tokio::test]
async fn the_next_renewal_restores_an_emptied_redis() {
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
async fn joins_and_leaves_during_an_outage_are_stored_after_it() {
    let mut bench = Bench::redis(LEASE).await;
    let members = Members::new(bench.store.clone());
    let (staying, leaving, joining) = (user(1), user(2), user(3));
    members.enter(&channel(), staying.clone());
    members.enter(&channel(), leaving.clone());
    assert!(members.renew_all().await);
    let (server, commands) = bench.redis.as_mut().unwrap();
    server.pause();
    members.enter(&channel(), joining.clone());
    members.leave(leaving.connection_id);
    assert!(!members.renew_all().await);
    assert!(!members.flush().await);
    server.resume();
    assert!(commands.wait_up(SOON).await);
    until("everything stored", async || members.renew_all().await && members.flush().await).await;
    let mut expected = [(staying, 1), (joining, 1)];
    expected.sort_by_key(|(member, _)| member.connection_id);
    assert_eq!(bench.page(None, 10).await.members, expected);
}

#[tokio::test]
async fn a_refused_channel_does_not_delay_others() {
    let bench = Bench::redis(LEASE).await;
    let _: u8 = bench.run(&["SADD", "tg:{broken}:presence", "not a sorted set"]).await;
    let members = Members::new(bench.store.clone());
    let fine = user(1);
    members.enter(&ChannelName::new("broken").unwrap(), user(1));
    members.enter(&channel(), fine.clone());
    assert!(members.renew_all().await);
    assert_eq!(bench.page(None, 10).await.members, [(fine, 1)]);
}
