use super::super::State;
use super::*;

fn begin(canaries: &ShardCanaries, shard: &str, tag: &str) -> Canary {
    canaries.begin(&shard.into(), tag, &Health::default()).expect("a valid name")
}

#[test]
fn one_shard_that_works_is_enough_and_the_first_other_is_named() {
    let canaries = ShardCanaries::new("tg:", "node");
    assert!(canaries.check().unwrap_err().contains("no shard"));
    let (one, other) = (begin(&canaries, "a:1", "5"), begin(&canaries, "b:1", "7"));
    assert_eq!((one.channel(), other.channel()), ("tg:{5}:canary:node", "tg:{7}:canary:node"));
    one.set_state(State::Lost);
    other.set_state(State::PublishFailed);
    assert!(canaries.check().unwrap_err().starts_with("a:1: a publication"));
    other.set_state(State::Received);
    assert_eq!(canaries.check(), Ok(()));
    canaries.disconnected(&"b:1".into());
    assert!(canaries.check().is_err());
    // In another slot what is known of the shard stays.
    let moved = begin(&canaries, "a:1", "6");
    assert_eq!(moved.state(), State::Lost);
    moved.set_state(State::Received);
    assert_eq!(canaries.check(), Ok(()));
}
