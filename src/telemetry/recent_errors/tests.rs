use super::*;

fn occurrence(connection: ConnectionId, user: Option<&UserId>) -> Occurrence<'_> {
    let (scope, code) = (ErrorScope::Answer, "busy");
    Occurrence { scope, code, connection: Some(connection), user, channel: Some("a"), task: None }
}

#[test]
fn whoever_causes_many_errors_displaces_its_own() {
    let quiet = ConnectionId::random();
    record(occurrence(quiet, None));
    let (loud, user) = (ConnectionId::random(), UserId::Integer(7));
    for _ in 0..1000 {
        record(occurrence(loud, None));
        record(occurrence(ConnectionId::random(), Some(&user)));
    }
    assert_eq!(find(|error| error.connection == Some(quiet)).len(), 1);
    let of_loud = find(|error| error.connection == Some(loud));
    assert_eq!(of_loud.len(), MAX_OF_ONE);
    assert!(of_loud.is_sorted_by(|later, earlier| later.number > earlier.number));
    assert_eq!(find(|error| error.user.as_ref() == Some(&user)).len(), MAX_OF_ONE);
}

#[test]
fn the_memory_is_bounded() {
    let first = ConnectionId::random();
    record(occurrence(first, None));
    let long = UserId::Text("u".repeat(MAX_USER_BYTES + 1).into());
    for _ in 0..MAX_ERRORS {
        record(occurrence(ConnectionId::random(), None));
    }
    record(Occurrence { scope: ErrorScope::Close, ..occurrence(first, Some(&long)) });
    assert_eq!(find(|_| true).len(), MAX_ERRORS);
    let of_first = find(|error| error.connection == Some(first));
    assert_eq!(of_first.len(), 1, "the older one is gone");
    assert_eq!(of_first[0].user, None, "too long to be kept");
}
