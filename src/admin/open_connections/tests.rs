use super::*;
use crate::protocol::ClientNetwork;

fn connection(ip: &str) -> Rc<Connection> {
    let address = std::net::SocketAddr::new(ip.parse().unwrap(), 1);
    Rc::new(Connection::new(address, ClientNetwork::of(address.ip(), 64)))
}

#[test]
fn a_new_connection_ends_the_one_that_is_missed_least() {
    let connections = Rc::new(OpenConnections::new(8));
    let add = |ip: &str| {
        let connection = connection(ip);
        let guard = connections.add(&connection).unwrap();
        (connection, guard)
    };
    let (prober, _prober) = add("192.0.2.1");
    let (caller, _caller) = add("192.0.2.9");
    *caller.call.borrow_mut() = connections.begin_call();
    let (with_key, _with_key) = add("192.0.2.9");
    with_key.has_key.set(true);
    let strangers: Vec<_> = (0..5).map(|_| add("192.0.2.9")).collect();
    let mut others = Vec::new();
    for (number, (stranger, _)) in strangers.iter().take(4).enumerate() {
        assert!(!stranger.has_ended(), "{number}");
        others.push(add(&format!("198.51.100.{number}")));
        assert!(stranger.has_ended(), "the oldest of the address with the most ends: {number}");
    }
    assert!(!prober.has_ended() && !with_key.has_ended() && !caller.has_ended());
    assert!(connections.open.borrow().len() <= 8);
}

#[test]
fn calls_leave_room() {
    let connections = Rc::new(OpenConnections::new(8));
    let calls: Vec<_> = (0..7).map(|_| connections.begin_call().unwrap()).collect();
    assert!(connections.begin_call().is_none());
    drop(calls);
    assert!(connections.begin_call().is_some());
}
