use super::*;

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

/// The turns of channels that always have something to deliver.
fn order(channels: &[(&str, usize)], turns: usize) -> Vec<String> {
    let mut waiting = Turns::default();
    channels.iter().for_each(|(channel, sockets)| waiting.push(name(channel), *sockets));
    let mut order = Vec::new();
    for _ in 0..turns {
        let channel = waiting.next().expect("a channel");
        let (_, sockets) = channels.iter().find(|(other, _)| *other == channel.as_str()).unwrap();
        waiting.count(*sockets, (*sockets).min(SOCKETS_PER_TURN), 100);
        order.push(channel.to_string());
        waiting.push(channel, *sockets);
    }
    order
}

#[test]
fn a_small_channel_waits_for_one_turn_of_a_large_one() {
    let mut turns = Turns::default();
    turns.push(name("large"), 10_000);
    turns.push(name("other"), 10_000);
    turns.push(name("small"), 1);
    assert_eq!(turns.next(), Some(name("small")));
    turns.count(1, 1, 100);
    assert_eq!(turns.next(), Some(name("large")));
    turns.push(name("large"), 10_000);
    turns.push(name("small"), 1);
    let rest: Vec<_> = std::iter::from_fn(|| turns.next()).collect();
    assert_eq!(rest, ["small", "other", "large"].map(name));
    assert!(turns.is_empty());
}

#[test]
fn each_kind_has_its_part_of_the_visits() {
    let half = SOCKETS_PER_TURN / 2;
    let busy = order(&[("a", half), ("large", 1000), ("b", half), ("other", 1000)], 9);
    assert_eq!(busy, ["a", "b", "large", "a", "b", "other", "a", "b", "large"]);
    let many: Vec<(String, usize)> = (0..200).map(|number| (format!("s{number}"), 1)).collect();
    let mut all: Vec<(&str, usize)> = many.iter().map(|(name, one)| (&**name, *one)).collect();
    all.push(("large", 1000));
    let turns = order(&all, 3 * (SOCKETS_PER_TURN + 1));
    assert_eq!(turns.iter().filter(|channel| *channel == "large").count(), 3);
}

#[test]
fn large_messages_count_for_more() {
    let mut turns = Turns::default();
    turns.push(name("large"), 1000);
    turns.push(name("a"), 1);
    turns.push(name("b"), 1);
    assert_eq!(turns.next(), Some(name("a")));
    turns.count(1, 1, SOCKETS_PER_TURN * BYTES_PER_VISIT);
    assert_eq!(turns.next(), Some(name("large")));
    turns.count(1000, SOCKETS_PER_TURN, 0);
    assert_eq!(turns.next(), Some(name("b")));
}
