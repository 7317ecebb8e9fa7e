//! Publications as workers of all kinds send them.

use super::*;
use crate::protocol::{Epoch, PathPattern};
use crate::telemetry::replies::ReplyTiming;
use crate::telemetry::route::RouteMetrics;

/// A route to channels called `chat_…`, with these settings.
fn config(settings: &str) -> SharedConfig {
    let text = format!(
        "[[route]]\npath = \"/{{id}}/\"\nchannel = \"chat_{{id}}\"\nauth = [\"anonymous\"]\n\
         generations = {{ {settings} }}\n"
    );
    SharedConfig::new(Config::from_toml(&text).unwrap_or_else(|mistakes| panic!("{mistakes}")))
}

fn tracker(is_only_node: bool) -> Tracker {
    let settings = r#"terminal_events = ["complete", "done", "error"]"#;
    Tracker::new(config(settings), is_only_node)
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn chat() -> ChannelName {
    channel("chat_1")
}

fn timing() -> ReplyTiming {
    let path = PathPattern::parse("/ws/chat/{id}").unwrap();
    ReplyTiming::new(Arc::clone(&RouteMetrics::of(&path).replies), Instant::now())
}

impl Tracker {
    fn publish(&self, json: &str) -> Disposition {
        self.observe(&chat(), json.as_bytes(), None).disposition
    }

    fn start(&self, task_id: &str) -> TrackedReply {
        match self.register_pending(&chat()).track(task_id, timing()) {
            TrackOutcome::Tracked(tracked) => tracked,
            TrackOutcome::Ended => panic!("{task_id} has ended"),
            TrackOutcome::Full => panic!("no room for {task_id}"),
        }
    }

    /// Nothing is left of any channel.
    fn is_empty(&self) -> bool {
        let state = self.0.lock();
        state.channels.is_empty() && state.tracked == 0
    }
}

#[test]
fn events_with_a_task_id_belong_to_that_task() {
    let tracker = tracker(false);
    let (one, two) = (tracker.start("1"), tracker.start("2"));
    let before = two.last_event_at();
    tracker.publish(r#"{"event":"chunk","task_id":"1"}"#);
    assert!(one.last_event_at() > before && two.last_event_at() == before);
    assert_eq!(tracker.publish(r#"{"event":"complete","task_id":"2"}"#), Disposition::Deliver);
    assert!(two.has_ended() && !one.has_ended());
    assert_eq!(tracker.publish(r#"{"event":"done","task_id":1}"#), Disposition::Deliver);
    assert!(one.has_ended());
    drop((one, two));
    assert!(tracker.is_empty());
}

#[test]
fn events_without_a_task_id_belong_to_the_oldest_reply() {
    let tracker = tracker(false);
    let (one, two) = (tracker.start("1"), tracker.start("2"));
    let before = two.last_event_at();
    tracker.publish(r#"{"event":"chunk"}"#);
    assert!(one.last_event_at() > before && two.last_event_at() > before);
    tracker.observe(&channel("chat_2"), br#"{"event":"complete"}"#, None);
    assert!(!one.has_ended());
    tracker.publish(r#"{"text":"x","event":"complete"}"#);
    assert!(one.has_ended() && !two.has_ended());
    tracker.publish(r#"{"event":"complete"}"#);
    assert!(two.has_ended());
}

#[test]
fn publications_that_are_not_events_end_nothing() {
    let tracker = tracker(true);
    let one = tracker.start("1");
    for json in ["complete", "[]", "{}", r#"{"event":"error"#, r#"{"event":"complete","event":1}"#]
    {
        assert_eq!(tracker.publish(json), Disposition::Deliver, "{json}");
    }
    tracker.observe(&channel("other"), br#"{"event":"complete","task_id":"1"}"#, None);
    assert!(!one.has_ended());
}

#[test]
fn a_task_ends_once() {
    let tracker = tracker(false);
    let end = r#"{"event":"complete","task_id":"1"}"#;
    let task = Task { channel: chat(), id: "1".into() };
    assert!(!tracker.has_ended(&task));
    assert_eq!(tracker.publish(end), Disposition::Deliver, "also where it is not tracked");
    assert!(tracker.has_ended(&task));
    assert_eq!(tracker.publish(end), Disposition::Drop);
    assert_eq!(tracker.publish(r#"{"event":"cancelled","task_id":"1"}"#), Disposition::Drop);
    assert_eq!(tracker.publish(r#"{"event":"chunk","task_id":"1"}"#), Disposition::Deliver);
    let elsewhere = tracker.observe(&channel("chat_2"), end.as_bytes(), None);
    assert_eq!(elsewhere.disposition, Disposition::Deliver);
    assert_eq!(elsewhere.end, Some(ReplyEnd::Named("1".to_owned())));
    assert_eq!(
        tracker.publish(r#"{"event":"processing_started","task_id":"1"}"#),
        Disposition::Deliver
    );
    assert_eq!(tracker.publish(end), Disposition::Deliver, "it was tried again");
    assert_eq!(tracker.publish(end), Disposition::Drop);
}

#[test]
fn the_gateways_own_terminal_events_count_on_every_route() {
    let tracker = Tracker::new(config(r#"terminal_events = ["fin"]"#), false);
    let one = tracker.start("1");
    tracker.publish(r#"{"event":"error","task_id":"1"}"#);
    assert!(!one.has_ended());
    tracker.publish(r#"{"event":"error","error":"gone","code":"worker_lost","task_id":"1"}"#);
    assert!(one.has_ended());
    assert_eq!(tracker.publish(r#"{"event":"fin","task_id":"1"}"#), Disposition::Drop);
}

#[test]
fn a_publication_seen_twice_is_not_a_second_end() {
    let tracker = tracker(true);
    let at = |offset| Some(Position { epoch: Epoch::new(1).unwrap(), offset });
    let publish =
        |json: &str, offset| tracker.observe(&chat(), json.as_bytes(), at(offset)).disposition;
    let named = r#"{"event":"complete","task_id":"1"}"#;
    assert_eq!(publish(named, 5), Disposition::Deliver);
    assert_eq!(publish(named, 5), Disposition::Deliver);
    assert_eq!(publish(named, 6), Disposition::Drop);
    let (two, three) = (tracker.start("2"), tracker.start("3"));
    publish(r#"{"event":"complete"}"#, 7);
    publish(r#"{"event":"complete"}"#, 7);
    assert!(two.has_ended() && !three.has_ended());
}

#[test]
fn repeats_are_delivered_if_the_route_says_so() {
    let settings = r#"terminal_events = ["complete"], duplicate_terminal = "pass""#;
    let tracker = Tracker::new(config(settings), true);
    for _ in 0..3 {
        assert_eq!(tracker.publish(r#"{"event":"complete","task_id":"1"}"#), Disposition::Deliver);
    }
}

#[test]
fn a_reply_may_end_before_its_upstream_answers() {
    let tracker = tracker(false);
    let (named, unnamed) = (tracker.register_pending(&chat()), tracker.register_pending(&chat()));
    tracker.publish(r#"{"event":"complete","task_id":"1"}"#);
    tracker.publish(r#"{"event":"complete"}"#);
    assert!(matches!(named.track("1", timing()), TrackOutcome::Ended));
    assert!(matches!(unnamed.track("2", timing()), TrackOutcome::Ended));
    assert!(tracker.is_empty());
    // An end from before the message is not its own.
    tracker.publish(r#"{"event":"complete"}"#);
    assert!(!tracker.start("3").has_ended());
}

#[test]
fn an_end_without_a_task_is_dropped_if_no_reply_can_have_begun() {
    let end = r#"{"event":"complete"}"#;
    for (is_only_node, repeat) in [(true, Disposition::Drop), (false, Disposition::Deliver)] {
        let tracker = tracker(is_only_node);
        assert_eq!(tracker.publish(end), Disposition::Deliver);
        assert_eq!(tracker.publish(end), Disposition::Deliver, "nothing of it is known here");
        drop({
            let one = tracker.start("1");
            assert_eq!(tracker.publish(end), Disposition::Deliver);
            one
        });
        assert_eq!(tracker.publish(end), repeat);
        assert_eq!(tracker.publish(end), repeat);
        tracker.publish(r#"{"event":"chunk"}"#);
        assert_eq!(tracker.publish(end), Disposition::Deliver, "something has begun elsewhere");
        drop({
            let two = tracker.start("2");
            tracker.publish(end);
            two
        });
        let three = tracker.start("3");
        assert_eq!(tracker.publish(end), Disposition::Deliver);
        assert!(three.has_ended());
    }
}

#[test]
fn either_the_gateway_or_the_worker_ends_a_reply() {
    let tracker = tracker(false);
    let (one, two) = (tracker.start("1"), tracker.start("2"));
    assert!(one.end() && !one.end());
    tracker.publish(r#"{"event":"complete","task_id":"2"}"#);
    assert!(!two.end());
}

#[test]
fn tracking_is_bounded() {
    let tracker = tracker(false);
    let all: Vec<_> = (0..MAX_TRACKED).map(|n| tracker.start(&n.to_string())).collect();
    assert!(matches!(
        tracker.register_pending(&chat()).track("one too many", timing()),
        TrackOutcome::Full
    ));
    drop(all);
    assert!(tracker.is_empty());
    assert!(!tracker.start("again").has_ended());
}

#[test]
fn it_is_known_whether_anything_was_heard() {
    let tracker = tracker(false);
    tracker.publish(r#"{"event":"chunk"}"#);
    let one = tracker.start("1");
    tracker.publish(r#"{"event":"join","user_id":1}"#);
    tracker.observe(&channel("chat_2"), br#"{"event":"chunk"}"#, None);
    assert!(one.has_heard_nothing());
    let two = tracker.start("2");
    tracker.publish(r#"{"event":"chunk"}"#);
    assert!(!one.has_heard_nothing() && !two.has_heard_nothing());
    let three = tracker.start("3");
    assert!(three.has_heard_nothing());
    tracker.publish("not an event");
    assert!(!three.has_heard_nothing());
    // What comes before the upstream's answer counts.
    let early = tracker.register_pending(&chat());
    tracker.publish(r#"{"event":"complete","task_id":"another"}"#);
    let TrackOutcome::Tracked(early) = early.track("4", timing()) else { panic!("no room") };
    assert!(!early.has_heard_nothing());
}

#[test]
fn an_end_without_a_task_id_belongs_to_the_task_that_is_over() {
    let tracker = tracker(false);
    let end = r#"{"event":"complete"}"#;
    // The result is read after the event, which was taken for that of the older reply.
    let (one, two) = (tracker.start("1"), tracker.start("2"));
    tracker.publish(end);
    assert!(one.has_ended() && !two.has_ended());
    two.record_task_end();
    assert!(!one.has_ended() && two.has_ended(), "it was the end of the task that is over");
    tracker.publish(end);
    assert!(one.has_ended());
    drop((one, two));
    // The result is read before the event.
    let (one, two) = (tracker.start("1"), tracker.start("2"));
    two.record_task_end();
    assert!(!one.has_ended() && !two.has_ended());
    tracker.publish(end);
    assert!(!one.has_ended() && two.has_ended());
    one.record_task_end();
    assert!(!one.has_ended(), "its event has not come");
    tracker.publish(end);
    assert!(one.has_ended());
    drop((one, two));
    // Both are over: nothing is given away.
    let (one, two) = (tracker.start("1"), tracker.start("2"));
    tracker.publish(end);
    one.record_task_end();
    two.record_task_end();
    assert!(one.has_ended() && !two.has_ended());
    drop((one, two));
    assert!(tracker.is_empty());
}

#[test]
fn a_complete_that_ends_nothing_is_remembered() {
    let tracker = Tracker::new(config(r#"terminal_events = ["done"]"#), false);
    let (one, two) = (tracker.start("1"), tracker.start("2"));
    tracker.publish(r#"{"event":"complete","task_id":"2"}"#);
    assert!(!two.has_ended() && two.take_complete() && !one.take_complete());
    tracker.publish(r#"{"event":"complete"}"#);
    assert!(one.take_complete() && !one.take_complete(), "one event is for one reply");
    tracker.publish(r#"{"event":"processing_started","task_id":"2"}"#);
    assert!(!two.take_complete(), "it was tried again");
}

#[tokio::test]
async fn an_end_that_may_be_another_replys_waits_for_confirmation() {
    let tracker = tracker(false);
    let (one, two) = (tracker.start("1"), tracker.start("2"));
    let has_ended = async |reply: &TrackedReply| {
        let ended = reply.ended(Duration::from_secs(3600));
        tokio::time::timeout(Duration::ZERO, ended).await.is_ok()
    };
    tracker.publish(r#"{"event":"complete"}"#);
    assert!(!has_ended(&one).await && !has_ended(&two).await);
    let waiting = async { one.ended(Duration::from_secs(3600)).await };
    tokio::select! {
        biased;
        () = waiting => panic!("its event was that of the other"),
        () = async { two.record_task_end() } => {}
    }
    assert!(!has_ended(&one).await && has_ended(&two).await);
    // The only reply that is running: nothing else can have ended.
    tracker.publish(r#"{"event":"complete"}"#);
    assert!(has_ended(&one).await);
    drop((one, two));
    let (three, four) = (tracker.start("3"), tracker.start("4"));
    tracker.publish(r#"{"event":"complete"}"#);
    three.ended(Duration::ZERO).await;
    four.record_task_end();
    assert!(three.has_ended() && !four.has_ended(), "it counted meanwhile");
}

#[tokio::test]
async fn an_end_completes_the_wait() {
    let tracker = tracker(false);
    let one = tracker.start("1");
    let ended = async { one.ended(Duration::ZERO).await };
    let (_, disposition) =
        tokio::join!(ended, async { tracker.publish(r#"{"event":"complete","task_id":"1"}"#) });
    assert_eq!(disposition, Disposition::Deliver);
}
