use super::*;

#[test]
fn rates_are_computed_from_offsets() {
    let lists = |offset: u64, epoch: &str| Lists {
        channels: vec![Channel {
            channel: "c".to_owned(),
            connections: 1,
            epoch: Some(epoch.to_owned()),
            offset: Some(offset),
            publications: None,
        }],
        ..Lists::default()
    };
    let mut now = lists(30, "a");
    now.set_rates(&lists(10, "a"), 2.0);
    assert_eq!(now.channels[0].publications, Some(10.0));
    now.set_rates(&lists(10, "b"), 2.0);
    assert_eq!(now.channels[0].publications, None);
}
