use super::*;

#[test]
fn a_reply_is_detached_when_its_guard_is_dropped() {
    let attached = AttachedReplies::default();
    let connection = ConnectionId::random();
    let (one, two) = (CancellationToken::new(), CancellationToken::new());
    let first = attached.attach_open(connection, one.clone());
    let second = attached.attach_open(connection, two.clone());
    drop(first);
    attached.cancel_all(connection);
    assert!(!one.is_cancelled() && two.is_cancelled());
    drop(second);
    assert!(attached.0.borrow().is_empty());
}

#[test]
fn the_last_guard_of_a_connection_removes_its_entry() {
    let attached = AttachedReplies::default();
    drop(attached.attach_open(ConnectionId::random(), CancellationToken::new()));
    assert!(attached.0.borrow().is_empty());
}
