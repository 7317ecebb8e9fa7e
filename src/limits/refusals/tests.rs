use super::*;

const LONGEST: Duration = Duration::from_secs(1);

fn network(ip: &str) -> ClientNetwork {
    ClientNetwork::of(ip.parse().unwrap(), 64)
}

fn millis(delays: &RefusalDelays, address: &str, now: u64) -> u128 {
    delays.count(network(address), LONGEST, Duration::from_secs(now)).as_millis()
}

#[test]
fn the_wait_doubles_up_to_the_longest() {
    let delays = RefusalDelays::default();
    let waits: Vec<_> = (0..7).map(|second| millis(&delays, "192.0.2.1", second)).collect();
    assert_eq!(waits, [62, 125, 250, 500, 1000, 1000, 1000]);
    assert_eq!(millis(&delays, "192.0.2.2", 7), 62, "another address");
    assert_eq!(millis(&delays, "::ffff:192.0.2.1", 8), 1000, "the same address");
    assert_eq!(millis(&delays, "192.0.2.1", 8 + MEMORY.as_secs()), 62, "it is forgotten");
}

#[test]
fn the_addresses_of_one_ipv6_network_count_together() {
    let delays = RefusalDelays::default();
    assert_eq!(millis(&delays, "2001:db8::1", 0), 62);
    assert_eq!(millis(&delays, "2001:db8::2:0:0:1", 1), 125);
    assert_eq!(millis(&delays, "2001:db8:0:1::1", 1), 62);
}

/// A script that takes an open socket for a success, and reconnects after a pause that never grows.
#[test]
fn a_page_that_never_backs_off_makes_fewer_attempts() {
    let pause = Duration::from_millis(250);
    let attempts = |longest: Duration| {
        let (delays, mut now, mut attempts) = (RefusalDelays::default(), Duration::ZERO, 0);
        while now < Duration::from_secs(20) {
            attempts += 1;
            now += delays.count(network("192.0.2.1"), longest, now) + pause;
        }
        attempts
    };
    assert_eq!(attempts(Duration::ZERO), 80);
    assert_eq!(attempts(LONGEST), 19);
}

#[test]
fn addresses_and_waiting_clients_are_bounded() {
    let delays = RefusalDelays::default();
    for number in 0..2 * MAX_ADDRESSES as u32 {
        let address = ClientNetwork::V4(number.into());
        assert!(delays.count(address, LONGEST, Duration::ZERO) < LONGEST);
    }
    assert!(delays.recent.len() <= MAX_ADDRESSES);
    let mut waiting: Vec<_> =
        (0..MAX_WAITING).map(|_| delays.refuse(network("192.0.2.1"), LONGEST).unwrap()).collect();
    assert!(delays.refuse(network("192.0.2.1"), LONGEST).is_none());
    waiting.pop();
    assert!(delays.refuse(network("192.0.2.1"), LONGEST).is_some());
    assert!(delays.refuse(network("192.0.2.1"), Duration::ZERO).is_none());
}
