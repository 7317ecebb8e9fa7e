use super::*;

const RATE: Rate = Rate { count: 10, per: Duration::from_secs(1), burst: 2 };

fn network(ip: &str) -> ClientNetwork {
    ClientNetwork::of(ip.parse().unwrap(), 64)
}

#[test]
fn each_network_has_a_rate_of_its_own() {
    let (rates, now) = (NetworkRates::default(), Duration::from_secs(1));
    let take = |ip: &str, now| rates.take_at(network(ip), RATE, now);
    assert_eq!(take("2001:db8::1", now), Verdict::Allowed);
    assert_eq!(take("2001:db8::2", now), Verdict::Allowed);
    let refused = Verdict::Refused { retry_after: Duration::from_millis(100) };
    assert_eq!(take("2001:db8::3", now), refused, "the network has used its burst");
    assert_eq!(take("2001:db8:0:1::1", now), Verdict::Allowed, "another network");
    assert_eq!(take("2001:db8::3", now + Duration::from_millis(100)), Verdict::Allowed);
}

#[test]
fn the_buckets_are_bounded() {
    let (rates, now) = (NetworkRates::default(), Duration::from_secs(1));
    for number in 0..3 * MAX_NETWORKS as u32 {
        let ip = std::net::Ipv4Addr::from_bits(number);
        assert_eq!(rates.take_at(ClientNetwork::V4(ip), RATE, now), Verdict::Allowed);
    }
    assert!(rates.0.len() <= 2 * MAX_NETWORKS, "{}", rates.0.len());
    // Once they are full again, there is room for others.
    let (late, new) = (now + Duration::from_secs(1), network("203.0.113.1"));
    for _ in 0..2 {
        assert_eq!(rates.take_at(new, RATE, late), Verdict::Allowed);
    }
    assert_ne!(rates.take_at(new, RATE, late), Verdict::Allowed);
}
