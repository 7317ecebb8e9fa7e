use super::*;
use std::time::Duration;

fn scrape(at: Instant, text: &str) -> Scrape {
    Scrape { at, metrics: Exposition::parse(text).unwrap() }
}

#[test]
fn rates_are_computed_from_two_scrapes() {
    let start = Instant::now();
    let first = scrape(
        start,
        "tidegate_messages_total{route=\"/a\"} 10\ntidegate_closes_total{route=\"/a\"} 9\n",
    );
    let second = scrape(
        start + Duration::from_secs(2),
        "tidegate_connections{route=\"/a\"} 3\ntidegate_messages_total{route=\"/a\"} 30\n\
             tidegate_closes_total{route=\"/a\"} 4\ntidegate_build_info{version=\"1.2\"} 1\n",
    );
    let summary = Summary::new(&second, Some(&first), None);
    assert_eq!((summary.messages, summary.connections), (10.0, 3.0));
    // The gateway was restarted.
    assert_eq!(summary.closes, 2.0);
    assert_eq!(summary.version, "1.2");
    assert_eq!(summary.routes[0].messages, 10.0);
    assert_eq!((summary.subscribed, summary.in_flight), (None, 0.0));
    assert_eq!(Summary::new(&second, None, None).messages, 0.0);
}
