use super::*;

/// Each channel with clients has an entry and, on most nodes, a listener or a few.
#[test]
fn the_entry_of_a_channel_is_small() {
    let sizes = (size_of::<Entry>(), size_of::<Listener>());
    eprintln!("entry and listener: {sizes:?} bytes, at most (64, 16)");
    assert!(sizes.0 <= 64 && sizes.1 <= 16, "{sizes:?}");
}

#[test]
fn a_thread_listens_to_a_channel_once() {
    let (channel, mut channels) = (ChannelName::new("c").unwrap(), Channels::default());
    for (thread, join_id) in [(0, 1), (1, 1), (0, 2)] {
        channels.apply(Change::Join { channel: channel.clone(), thread, join_id });
    }
    let listeners = |channels: &Channels| {
        let listeners = channels.listeners(&channel).iter();
        listeners.map(|listener| (listener.thread, listener.join_id)).collect::<Vec<_>>()
    };
    assert_eq!(listeners(&channels), [(1, 1), (0, 2)]);
    channels.apply(Change::Leave { channel: channel.clone(), thread: 1 });
    assert_eq!(listeners(&channels), [(0, 2)]);
    channels.apply(Change::Leave { channel: channel.clone(), thread: 0 });
    assert!(!channels.is_wanted(&channel) && channels.by_name.is_empty());
}
