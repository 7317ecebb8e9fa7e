use super::*;
use crate::broker::history::Imported;

fn channel() -> ChannelName {
    ChannelName::new("chat_1").unwrap()
}

fn message(channel: &ChannelName, time: f64, text: &'static str) -> Addressed {
    let imported = Imported { id: text.to_owned(), end: None, json: text.into() };
    (channel.clone(), HeldMessage { score: Some(time), imported })
}

fn texts(messages: &[Addressed]) -> Vec<&str> {
    messages.iter().map(|(_, held)| std::str::from_utf8(&held.imported.json).unwrap()).collect()
}

/// What is added to this node's `own` messages.
fn merged(
    members: &mut EarlierMembers,
    own: &[(f64, &'static str)],
    earlier: &[(f64, &'static str)],
    is_all: bool,
) -> Vec<String> {
    let all = |messages: &[(f64, &'static str)]| -> Vec<_> {
        messages.iter().map(|(time, text)| message(&channel(), *time, text)).collect()
    };
    let mut own = all(own);
    members.merge(&mut own, all(earlier), is_all);
    texts(&own).into_iter().map(str::to_owned).collect()
}

#[test]
fn what_was_sent_before_comes_before() {
    let mut members = EarlierMembers::default();
    members.add("dead", &channel(), Instant::now());
    assert_eq!(merged(&mut members, &[(2.0, "b")], &[(1.0, "a"), (2.0, "b")], true), ["a", "b"]);
    // This node may get the newest one too, with what it takes next.
    assert_eq!(merged(&mut members, &[(3.0, "c")], &[(4.0, "d"), (5.0, "e")], true), ["c"]);
    assert_eq!(members.pause(READ_INTERVAL * 9), Duration::ZERO);
    assert_eq!(merged(&mut members, &[(4.0, "d")], &[], false), ["d"]);
    assert_eq!(merged(&mut members, &[(6.0, "f")], &[], false), ["e", "f"]);
    // If it does not come then, it never will.
    assert!(merged(&mut members, &[], &[(7.0, "g")], true).is_empty());
    assert!(merged(&mut members, &[], &[], false).is_empty(), "there may be more");
    assert_eq!(merged(&mut members, &[], &[], true), ["g"]);
    assert_eq!(members.pause(READ_INTERVAL * 9), READ_INTERVAL);
    // What the other node has taken meanwhile is read again.
    assert_eq!(merged(&mut members, &[(8.0, "h")], &[(6.0, "f"), (7.0, "g")], true), ["h"]);
}

#[test]
fn messages_of_other_channels_do_not_release_it() {
    let mut members = EarlierMembers::default();
    members.add("dead", &channel(), Instant::now());
    let other = ChannelName::new("chat_2").unwrap();
    let mut own = vec![message(&other, 9.0, "other")];
    members.merge(&mut own, vec![message(&channel(), 1.0, "a")], true);
    assert_eq!(texts(&own), ["other"]);
    let mut own = vec![message(&other, 10.0, "another")];
    members.merge(&mut own, Vec::new(), true);
    assert_eq!(texts(&own), ["a", "another"]);
}

#[test]
fn mailboxes_are_read_before_messages_of_their_channels_and_now_and_then() {
    let (mut members, start) = (EarlierMembers::default(), Instant::now());
    let nodes = |due: Vec<(String, MailboxPosition)>| -> Vec<String> {
        due.into_iter().map(|(node, _)| node).collect()
    };
    assert!(members.is_idle());
    members.add("dead", &channel(), start);
    let other = ChannelName::new("chat_2").unwrap();
    assert!(nodes(members.due(&[message(&other, 1.0, "a")], start)).is_empty());
    assert_eq!(nodes(members.due(&[message(&channel(), 1.0, "a")], start)), ["dead"]);
    assert_eq!(nodes(members.due(&[], start + READ_INTERVAL)), ["dead"]);
    members.record("dead", MailboxPosition::default(), start + READ_INTERVAL, true);
    assert!(nodes(members.due(&[], start + READ_INTERVAL)).is_empty());
    // The last read begins when the slowest sender has sent.
    let end = start + MAX_SENDER_PAUSE;
    members.record("dead", MailboxPosition::default(), end, true);
    assert_eq!(nodes(members.due(&[], end + READ_INTERVAL)), ["dead"]);
    members.record("dead", MailboxPosition::default(), end + READ_INTERVAL, true);
    assert!(nodes(members.due(&[], end + 2 * READ_INTERVAL)).is_empty());
    assert!(members.is_idle());
}

#[test]
fn what_may_not_have_been_appended_is_read_again() {
    let (mut members, now) = (EarlierMembers::default(), Instant::now());
    let position =
        |members: &mut EarlierMembers| members.due(&[], now + READ_INTERVAL)[0].1.clone();
    let (first, second) = (MailboxPosition::at(1), MailboxPosition::at(2));
    members.add("dead", &channel(), now);
    members.begin_at("dead", first.clone());
    assert_eq!(position(&mut members), first);
    // A read for another channel does not skip messages of this one.
    members.begin_at("dead", second.clone());
    assert_eq!(position(&mut members), first);
    assert!(merged(&mut members, &[], &[(1.0, "a")], true).is_empty());
    members.rewind();
    members.begin_at("dead", second);
    assert_eq!(position(&mut members), MailboxPosition::default());
    assert_eq!(merged(&mut members, &[(2.0, "b")], &[(1.0, "a")], true), ["a", "b"]);
}

#[test]
fn an_overflow_is_reported_when_the_node_is_dead() {
    let (mut members, now) = (EarlierMembers::default(), Instant::now());
    members.record_overflow("unknown", &channel());
    for node in ["dead", "alive"] {
        members.add(node, &channel(), now);
        members.record_overflow(node, &channel());
    }
    assert!(members.take_overflowed(|_| true).is_empty());
    // It takes messages again.
    members.record("alive", MailboxPosition::default(), now, true);
    assert!(members.take_overflowed(|node| node == "dead").is_empty());
    members.record("dead", MailboxPosition::default(), now + 2 * MAX_SENDER_PAUSE, false);
    assert!(!members.due(&[], now + 2 * MAX_SENDER_PAUSE).is_empty(), "it is not forgotten");
    assert_eq!(members.take_overflowed(|_| false), [channel()]);
    assert!(members.take_overflowed(|_| false).is_empty());
}
