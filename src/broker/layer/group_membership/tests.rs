use bytes::Bytes;

use super::*;

fn channel() -> ChannelName {
    ChannelName::new("chat_1").unwrap()
}

fn message(text: &str, score: Option<f64>) -> HeldMessage {
    let json = Bytes::copy_from_slice(text.as_bytes());
    HeldMessage { score, imported: Imported { id: String::new(), json, end: None } }
}

fn texts(ready: &ReadyMessages) -> Vec<&str> {
    ready.messages.iter().map(|one| std::str::from_utf8(&one.json).unwrap()).collect()
}

/// A member of the group of [`channel`] whose messages are held.
fn joined() -> GroupMembership {
    let mut groups = GroupMembership::default();
    groups.join(&[channel()]);
    groups.record_subscribed(&[channel()]);
    groups
}

#[test]
fn messages_wait_until_their_numbers_are_known() {
    let mut groups = joined();
    for text in ["a", "b", "c"] {
        if text == "c" {
            groups.record_marker(&channel(), 7);
        }
        assert!(groups.add(&channel(), message(text, None)).is_none());
    }
    assert!(groups.has_waiting());
    // Answers to other markers say nothing.
    let last = MessageNumber { origin: "one".to_owned(), number: 40 };
    groups.align(&channel(), 6, last.clone());
    assert!(groups.take_ready().is_empty());
    groups.align(&channel(), 7, last);
    assert!(!groups.has_waiting());
    let ready = groups.take_ready();
    assert_eq!(texts(&ready[0].1), ["a", "b", "c"]);
    // The second message was the last one before the marker, so it is number 40.
    assert_eq!(ready[0].1.first.as_ref().unwrap().number, 39);
    let next = groups.add(&channel(), message("d", None)).unwrap();
    assert_eq!((texts(&next), next.first.as_ref().unwrap().number), (vec!["d"], 42));
    assert_eq!(groups.last_number(&channel()).unwrap().number, 42);
}

#[test]
fn the_first_node_counts_from_its_first_message() {
    let mut groups = joined();
    groups.add(&channel(), message("a", None));
    groups.number_from(&channel(), "one");
    let ready = groups.take_ready();
    let first = MessageNumber { origin: "one".to_owned(), number: 1 };
    assert_eq!(ready[0].1.first, Some(first));
    assert_eq!(groups.last_number(&channel()).unwrap().number, 1);
}

#[test]
fn a_marker_counts_only_where_no_message_can_be_missing() {
    let mut groups = GroupMembership::default();
    groups.join(&[channel()]);
    let last = MessageNumber { origin: "one".to_owned(), number: 1 };
    groups.record_marker(&channel(), 1);
    groups.align(&channel(), 1, last.clone());
    assert!(groups.add(&channel(), message("a", None)).is_none());
    groups.record_subscribed(&[channel()]);
    groups.record_marker(&channel(), 2);
    // What came over the lost connection does not follow what comes now.
    groups.interrupt();
    groups.align(&channel(), 2, last);
    assert!(groups.add(&channel(), message("b", None)).is_none());
    groups.number_from(&channel(), "two");
    assert_eq!(texts(&groups.take_ready()[0].1), ["b"]);
}

#[test]
fn messages_of_another_node_come_before_newer_ones() {
    let mut groups = joined();
    groups.add(&channel(), message("c", Some(3.0)));
    let earlier = [("b", 2.0), ("a", 1.0)].map(|(text, score)| message(text, Some(score)));
    groups.release(&channel(), earlier.into());
    let ready = groups.take_ready();
    assert_eq!((texts(&ready[0].1), &ready[0].1.first), (vec!["a", "b", "c"], &None));
}

#[test]
fn messages_that_were_refused_are_held_again_in_order() {
    let mut groups = joined();
    groups.number_from(&channel(), "one");
    let refused = groups.add(&channel(), message("a", None)).unwrap().messages;
    groups.put_back(&channel(), refused);
    assert!(groups.add(&channel(), message("b", None)).is_none());
    groups.number_from(&channel(), "two");
    assert_eq!(texts(&groups.take_ready()[0].1), ["a", "b"]);
}

#[test]
fn a_channel_that_is_left_waits_for_nothing() {
    let mut groups = joined();
    groups.add(&channel(), message("a", None));
    groups.remove(&[channel()]);
    assert!(!groups.has_waiting());
    assert!(groups.add(&channel(), message("b", None)).is_none());
    assert!(groups.take_ready().is_empty());
}

#[test]
fn held_messages_without_numbers_are_bounded() {
    let mut groups = joined();
    groups.record_marker(&channel(), 1);
    for _ in 0..=MAX_UNNUMBERED {
        groups.add(&channel(), message("a", None));
    }
    // The marker no longer says how many messages came before it.
    groups.align(&channel(), 1, MessageNumber { origin: "one".to_owned(), number: 1 });
    assert!(groups.take_ready().is_empty());
    groups.number_from(&channel(), "one");
    assert_eq!(groups.take_ready()[0].1.messages.len(), 1);
}
