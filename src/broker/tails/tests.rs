use super::*;
use crate::broker::history::encode;

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn tails() -> (Tails, mpsc::UnboundedSender<Change>, mpsc::UnboundedReceiver<Change>) {
    let (to_core, changes) = mpsc::unbounded_channel();
    (Tails::new(to_core.downgrade(), 1024), to_core, changes)
}

#[tokio::test]
async fn a_tail_sees_its_channel_until_it_is_dropped() {
    let (tails, _to_core, mut changes) = tails();
    let mut tail = tails.open(&channel("a"), CancellationToken::new()).unwrap();
    assert!(matches!(changes.try_recv(), Ok(Change::Pin(pinned)) if pinned == channel("a")));
    tails.confirm(&channel("a"));
    tails.deliver(&channel("b"), &encode(b"{}", None));
    tails.deliver(&channel("a"), &encode(b"{\"n\":1}", None));
    tails.report_gap(&channel("a"));
    assert!(matches!(tail.next().await, Some(TailEvent::Live)));
    let Some(TailEvent::Publication(delivery)) = tail.next().await else {
        panic!("no publication")
    };
    assert_eq!(crate::socket::frame::payload(&delivery.frame), b"{\"n\":1}");
    assert!(matches!(tail.next().await, Some(TailEvent::Gap)));
    drop(tail);
    assert!(matches!(changes.try_recv(), Ok(Change::Unpin(unpinned)) if unpinned == channel("a")));
    assert!(tails.0.by_channel.borrow().is_empty());
}

#[tokio::test]
async fn a_tail_that_falls_behind_ends_and_others_do_not() {
    let (tails, _to_core, _changes) = tails();
    let too_slow = CancellationToken::new();
    let mut slow = tails.open(&channel("a"), too_slow.clone()).unwrap();
    let mut quick = tails.open(&channel("a"), CancellationToken::new()).unwrap();
    for _ in 0..MAX_WAITING + 10 {
        tails.deliver(&channel("a"), &encode(b"{}", None));
        assert!(matches!(quick.next().await, Some(TailEvent::Publication(_))));
    }
    assert!(too_slow.is_cancelled());
    for _ in 0..MAX_WAITING {
        assert!(matches!(slow.next().await, Some(TailEvent::Publication(_))));
    }
    assert!(matches!(slow.next().await, Some(TailEvent::End(TailEnd::TooSlow))));
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn unread_bytes_are_bounded() {
    let (tails, _to_core, _changes) = tails();
    let too_slow = CancellationToken::new();
    let _slow = tails.open(&channel("a"), too_slow.clone()).unwrap();
    let large = encode(&vec![b' '; MAX_WAITING_BYTES / 4], None);
    for _ in 0..4 {
        assert!(!too_slow.is_cancelled());
        tails.deliver(&channel("a"), &large);
    }
    assert!(too_slow.is_cancelled());
}

#[tokio::test]
async fn the_number_of_open_tails_is_limited() {
    let (tails, _to_core, _changes) = tails();
    let open = || tails.open(&channel("a"), CancellationToken::new());
    let mut opened: Vec<_> = (0..MAX_TAILS).map(|_| open().unwrap()).collect();
    assert!(open().is_err());
    opened.pop();
    assert!(open().is_ok());
}
