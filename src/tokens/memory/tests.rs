use super::*;

const TTL: Duration = Duration::from_secs(60);

fn bounded(max_tokens: usize, max_bytes: usize) -> MemoryTokens {
    MemoryTokens::with_bounds(TTL, 1, max_tokens, max_bytes)
}

#[test]
fn expired_tokens_are_removed_and_make_room() {
    let store = bounded(2, 1000);
    let start = store.now();
    store.put("a", "1".into(), start).unwrap();
    store.put("b", "2".into(), start).unwrap();
    assert_eq!(store.put("c", "3".into(), start), Err(NotIssued::StoreFull));
    assert_eq!(store.take("a", start + TTL), None);
    store.put("c", "3".into(), start + TTL).unwrap();
    store.put("d", "4".into(), start + TTL).unwrap();
    assert_eq!(store.take("b", start), None);
    assert_eq!(store.take("c", start + TTL).as_deref(), Some("3"));
    assert_eq!(store.take("d", start + TTL).as_deref(), Some("4"));
    assert_eq!((store.records.len(), store.records.bytes()), (0, 0));
}

#[test]
fn used_tokens_make_room_at_once() {
    let store = bounded(1, 4);
    let now = store.now();
    for round in 0..5000 {
        let token = round.to_string();
        store.put(&token, "1234".into(), now).unwrap();
        assert!(store.take(&token, now).is_some());
    }
    assert_eq!(store.put("long", "12345".into(), now), Err(NotIssued::StoreFull));
    assert_eq!(store.records.len(), 0);
}

#[test]
fn used_tokens_between_waiting_ones_leave_nothing_behind() {
    let store = MemoryTokens::new(TTL);
    let now = store.now();
    store.put("first", "1".into(), now).unwrap();
    for round in 0..5000 {
        let token = round.to_string();
        store.put(&token, "1".into(), now).unwrap();
        assert!(store.take(&token, now).is_some());
    }
    assert_eq!(store.records.len(), 1);
    assert!(store.take("first", now).is_some());
}

#[test]
fn one_user_cannot_fill_the_store() {
    let store = bounded(10, 1000);
    let start = store.now();
    let put = |user: &str, token: &str, now| store.put_of(user, 3, token, "1".into(), now);
    for token in ["a", "b", "c"] {
        put("ana", token, start).unwrap();
    }
    for n in 0..100 {
        let refused = Err(NotIssued::TooManyOfUser { retry_after: TTL });
        assert_eq!(put("ana", &format!("more-{n}"), start), refused);
    }
    for n in 0..7 {
        put(&format!("user-{n}"), &format!("token-{n}"), start).unwrap();
    }
    assert_eq!(put("bob", "d", start), Err(NotIssued::StoreFull));
    assert!(store.take("a", start).is_some());
    put("ana", "e", start).unwrap();
    assert_eq!(store.take("b", start + TTL), None);
    put("ana", "f", start + TTL).unwrap();
    assert!(store.take("f", start + TTL).is_some());
}
