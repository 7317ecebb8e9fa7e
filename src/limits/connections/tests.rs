use super::*;

fn network(ip: &str) -> ClientNetwork {
    ClientNetwork::of(ip.parse().unwrap(), 64)
}

#[test]
fn dropped_permits_can_be_acquired_again() {
    let counts = ConnectionCounts::default();
    let [a, b] = ["10.0.0.1", "10.0.0.2"].map(network);
    let first = counts.acquire(2).unwrap();
    let _second = counts.acquire(2).unwrap();
    assert!(counts.acquire(2).is_none());
    drop(first);
    assert!(counts.acquire(2).is_some());
    let of_a = counts.acquire_ip(a, 1).unwrap();
    assert!(counts.acquire_ip(a, 1).is_none());
    assert!(counts.acquire_ip(b, 1).is_some());
    drop(of_a);
    assert!(counts.acquire_ip(a, 1).is_some());
    assert!(counts.0.lock().is_empty());
}

#[test]
fn a_lower_limit_keeps_open_connections() {
    let counts = ConnectionCounts::default();
    let ip = network("10.0.0.1");
    let held = (counts.acquire(1).unwrap(), counts.acquire_ip(ip, 1).unwrap());
    let more = (counts.acquire(2).unwrap(), counts.acquire_ip(ip, 0).unwrap());
    drop(more);
    assert!(counts.acquire(1).is_none() && counts.acquire_ip(ip, 1).is_none());
    drop(held);
    assert!(counts.acquire(1).is_some() && counts.acquire_ip(ip, 1).is_some());
}
