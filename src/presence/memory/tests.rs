use super::*;

fn channel() -> ChannelName {
    ChannelName::new("chat_42").unwrap()
}

fn member() -> Member {
    let connection_id = ConnectionId::random();
    Member { connection_id, user_id: None, username: None, connected_at: 0, events: true }
}

#[test]
fn removed_members_leave_nothing_in_memory() {
    let presence = MemoryPresence::new(Duration::from_secs(60));
    let member = member();
    presence.renew(&channel(), &[&member]).unwrap();
    presence.leave(&channel(), &[&member]);
    presence.leave(&channel(), &[&member]);
    // Listing a channel without members does not create an entry.
    let _ = presence.list(&channel(), None, 10);
    assert!(presence.shards.lock_each().all(|shard| shard.is_empty()));
    assert_eq!(presence.count.load(Ordering::Relaxed), 0);
}

#[test]
fn beyond_the_limit_new_members_are_refused_and_known_ones_renewed() {
    let presence = MemoryPresence::new(Duration::from_secs(60));
    let known = member();
    presence.renew(&channel(), &[&known]).unwrap();
    presence.count.store(MAX_MEMBERS, Ordering::Relaxed);
    assert_eq!(presence.renew(&channel(), &[&member()]), Err(PresenceError::Refused));
    assert_eq!(presence.renew(&channel(), &[&known]), Ok(Vec::new()));
}
