use super::*;

const SETTINGS: config::History =
    config::History { size: 10, ttl: Duration::from_secs(60), compact: config::Compact::Off };

/// Each channel that a client has joined has a log, also if nothing is ever published to it.
#[test]
fn a_log_without_publications_is_small() {
    let size = size_of::<Log>();
    eprintln!("log: {size} bytes, at most 48");
    assert!(size <= 48, "{size}");
    let (history, channel) = (MemoryHistory::new(1 << 20), ChannelName::new("c").unwrap());
    let is_kept = || history.state().channels[&channel].kept.is_some();
    history.read(&channel, ReadFrom::Running, EPOCH_TTL);
    assert!(!is_kept());
    history.record_generation_start(&channel, "t", None);
    assert!(is_kept());
    history.record_generation_end(&channel, "t");
    assert!(!is_kept());
    let data = [Bytes::from("{}")];
    let published = history.publish(&channel, Some(&SETTINGS), &data, None, |_| {});
    assert!(is_kept() && history.bytes() > CHANNEL_BYTES);
    history.remove(&channel, published.position.unwrap());
    assert!(!is_kept());
    assert_eq!(history.bytes(), CHANNEL_BYTES);
}
