use super::*;
use crate::presence::Member;
use crate::protocol::ConnectionId;

#[test]
fn unpublished_events_are_bounded() {
    let connection_id = ConnectionId::random();
    let member =
        Member { connection_id, user_id: None, username: None, connected_at: 0, events: true };
    let changes = vec![Change { joined: true, member }; 700];
    let channel = ChannelName::new("chat_42").unwrap();
    let announcements = Announcements::default();
    for _ in 0..100 {
        announcements.add(&channel, &changes);
    }
    let mut events = 0;
    while let Some(announcement) = announcements.pop() {
        events += announcement.events.len();
    }
    assert_eq!(events, 28 * 700);
    announcements.add(&channel, &changes);
    assert!(announcements.pop().is_some(), "there is room again");
}
