use super::*;

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

#[test]
fn only_new_channels_count_and_each_address_has_its_own_rate() {
    let rate = Some(Rate { count: 2, per: Duration::from_secs(3600), burst: 2 });
    let channels = NewChannels::default();
    let [one, two] =
        ["192.0.2.1", "192.0.2.2"].map(|ip| ClientNetwork::of(ip.parse().unwrap(), 64));
    for name in ["a", "b", "a", "b", "a"] {
        assert_eq!(channels.join(&channel(name), one, rate), Verdict::Allowed, "{name}");
    }
    for _ in 0..2 {
        let refused = channels.join(&channel("c"), one, rate);
        assert!(matches!(refused, Verdict::Refused { .. }), "a refused channel stays new");
    }
    assert_eq!(channels.join(&channel("c"), two, rate), Verdict::Allowed);
    assert_eq!(channels.join(&channel("c"), one, rate), Verdict::Allowed, "another made it");
    assert_eq!(channels.join(&channel("d"), one, None), Verdict::Allowed);
}
