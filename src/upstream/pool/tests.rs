use super::*;

#[test]
fn the_rank_of_a_replica_depends_on_its_url_and_the_key_only() {
    assert_eq!(rank("ws://a", "room"), rank("ws://a", "room"));
    assert_ne!(rank("ws://a", "room"), rank("ws://b", "room"));
    assert_ne!(rank("ws://a", "room"), rank("ws://a", "other"));
}
