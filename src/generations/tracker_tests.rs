//! Publications as workers of all kinds send them.

use super::*;
use crate::protocol::{Epoch, PathPattern};
use crate::telemetry::route::RouteMetrics;

/// A route to channels called `chat_…`, with these settings.
fn config(settings: &str) -> SharedConfig {
    let text = format!(
        "[[route]]\npath = \"/{{id}}/\"\nchannel = \"chat_{{id}}\"\nauth = [\"anonymous\"]\n\
         generations = {{ {settings} }}\n"
    );
    SharedConfig::new(Config::from_toml(&text).unwrap_or_else(|mistakes| panic!("{mistakes}")))
}

fn tracker(alone: bool) -> Tracker {
    let settings = r#"terminal_events = ["complete", "done", "error"]"#;
    Tracker::new(config(settings), alone)
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
    fn hears(&self, json: &str) -> Heard {
        self.hear(&chat(), json.as_bytes(), None)
    }

    fn begins(&self, task_id: &str) -> Tracked {
        match self.register_pending(&chat()).begin(task_id, timing()) {
            Begun::Running(tracked) => tracked,
            Begun::Over => panic!("{task_id} is over"),
            Begun::Full => panic!("no room for {task_id}"),
        }
    }

    /// Nothing is left of any channel.
    fn is_at_rest(&self) -> bool {
        let state = self.0.lock();
        state.channels.is_empty() && state.tracked == 0
    }
}

impl Tracked {
    fn has_ended(&self) -> bool {
        self.watched.ended.is_cancelled()
    }
}

#[test]
fn events_with_a_task_are_its_own() {
    let tracker = tracker(false);
    let (one, two) = (tracker.begins("1"), tracker.begins("2"));
    let before = two.last_event_at();
    tracker.hears(r#"{"event":"chunk","task_id":"1"}"#);
    assert!(one.last_event_at() > before && two.last_event_at() == before);
    assert_eq!(tracker.hears(r#"{"event":"complete","task_id":"2"}"#), Heard::Deliver);
    assert!(two.has_ended() && !one.has_ended());
    assert_eq!(tracker.hears(r#"{"event":"done","task_id":1}"#), Heard::Deliver);
    assert!(one.has_ended());
    drop((one, two));
    assert!(tracker.is_at_rest());
}

#[test]
fn events_without_a_task_are_of_the_oldest_on_their_channel() {
    let tracker = tracker(false);
    let (one, two) = (tracker.begins("1"), tracker.begins("2"));
    let before = two.last_event_at();
    tracker.hears(r#"{"event":"chunk"}"#);
    assert!(one.last_event_at() > before && two.last_event_at() > before);
    tracker.hear(&channel("chat_2"), br#"{"event":"complete"}"#, None);
    assert!(!one.has_ended());
    tracker.hears(r#"{"text":"x","event":"complete"}"#);
    assert!(one.has_ended() && !two.has_ended());
    tracker.hears(r#"{"event":"complete"}"#);
    assert!(two.has_ended());
}

#[test]
fn what_is_no_event_ends_nothing() {
    let tracker = tracker(true);
    let one = tracker.begins("1");
    for json in ["complete", "[]", "{}", r#"{"event":"error"#, r#"{"event":"complete","event":1}"#]
    {
        assert_eq!(tracker.hears(json), Heard::Deliver, "{json}");
    }
    tracker.hear(&channel("other"), br#"{"event":"complete","task_id":"1"}"#, None);
    assert!(!one.has_ended());
}

#[test]
fn a_task_ends_once() {
    let tracker = tracker(false);
    let end = r#"{"event":"complete","task_id":"1"}"#;
    let task = Task { channel: chat(), id: "1".into() };
    assert!(!tracker.has_ended(&task));
    assert_eq!(tracker.hears(end), Heard::Deliver, "also where it is not tracked");
    assert!(tracker.has_ended(&task));
    assert_eq!(tracker.hears(end), Heard::Drop);
    assert_eq!(tracker.hears(r#"{"event":"cancelled","task_id":"1"}"#), Heard::Drop);
    assert_eq!(tracker.hears(r#"{"event":"chunk","task_id":"1"}"#), Heard::Deliver);
    assert_eq!(tracker.hear(&channel("chat_2"), end.as_bytes(), None), Heard::Deliver);
    assert_eq!(tracker.hears(r#"{"event":"processing_started","task_id":"1"}"#), Heard::Deliver);
    assert_eq!(tracker.hears(end), Heard::Deliver, "it was tried again");
    assert_eq!(tracker.hears(end), Heard::Drop);
}

#[test]
fn the_gateways_own_ends_count_whatever_the_list_says() {
    let tracker = Tracker::new(config(r#"terminal_events = ["fin"]"#), false);
    let one = tracker.begins("1");
    tracker.hears(r#"{"event":"error","task_id":"1"}"#);
    assert!(!one.has_ended());
    tracker.hears(r#"{"event":"error","error":"gone","code":"worker_lost","task_id":"1"}"#);
    assert!(one.has_ended());
    assert_eq!(tracker.hears(r#"{"event":"fin","task_id":"1"}"#), Heard::Drop);
}

#[test]
fn a_publication_that_is_seen_twice_is_no_second_end() {
    let tracker = tracker(true);
    let place = |offset| Some(Position { epoch: Epoch::new(1).unwrap(), offset });
    let hear = |json: &str, offset| tracker.hear(&chat(), json.as_bytes(), place(offset));
    let named = r#"{"event":"complete","task_id":"1"}"#;
    assert_eq!(hear(named, 5), Heard::Deliver);
    assert_eq!(hear(named, 5), Heard::Deliver);
    assert_eq!(hear(named, 6), Heard::Drop);
    let (two, three) = (tracker.begins("2"), tracker.begins("3"));
    hear(r#"{"event":"complete"}"#, 7);
    hear(r#"{"event":"complete"}"#, 7);
    assert!(two.has_ended() && !three.has_ended());
}

#[test]
fn repeats_pass_where_the_route_says_so() {
    let settings = r#"terminal_events = ["complete"], duplicate_terminal = "pass""#;
    let tracker = Tracker::new(config(settings), true);
    for _ in 0..3 {
        assert_eq!(tracker.hears(r#"{"event":"complete","task_id":"1"}"#), Heard::Deliver);
    }
}

#[test]
fn a_worker_may_be_faster_than_its_upstreams_answer() {
    let tracker = tracker(false);
    let (named, nameless) = (tracker.register_pending(&chat()), tracker.register_pending(&chat()));
    tracker.hears(r#"{"event":"complete","task_id":"1"}"#);
    tracker.hears(r#"{"event":"complete"}"#);
    assert!(matches!(named.begin("1", timing()), Begun::Over));
    assert!(matches!(nameless.begin("2", timing()), Begun::Over));
    assert!(tracker.is_at_rest());
    // An end from before the message is not its own.
    tracker.hears(r#"{"event":"complete"}"#);
    assert!(!tracker.begins("3").has_ended());
}

#[test]
fn without_tasks_an_end_is_dropped_only_while_nothing_can_have_begun() {
    let end = r#"{"event":"complete"}"#;
    for (alone, repeat) in [(true, Heard::Drop), (false, Heard::Deliver)] {
        let tracker = tracker(alone);
        assert_eq!(tracker.hears(end), Heard::Deliver);
        assert_eq!(tracker.hears(end), Heard::Deliver, "nothing of it is known here");
        drop({
            let one = tracker.begins("1");
            assert_eq!(tracker.hears(end), Heard::Deliver);
            one
        });
        assert_eq!(tracker.hears(end), repeat);
        assert_eq!(tracker.hears(end), repeat);
        tracker.hears(r#"{"event":"chunk"}"#);
        assert_eq!(tracker.hears(end), Heard::Deliver, "something has begun elsewhere");
        drop({
            let two = tracker.begins("2");
            tracker.hears(end);
            two
        });
        let three = tracker.begins("3");
        assert_eq!(tracker.hears(end), Heard::Deliver);
        assert!(three.has_ended());
    }
}

#[test]
fn the_gateway_or_the_worker_ends_it_and_only_one_of_them() {
    let tracker = tracker(false);
    let (one, two) = (tracker.begins("1"), tracker.begins("2"));
    assert!(one.end() && !one.end());
    tracker.hears(r#"{"event":"complete","task_id":"2"}"#);
    assert!(!two.end());
}

#[test]
fn tracking_is_bounded() {
    let tracker = tracker(false);
    let all: Vec<_> = (0..MAX_TRACKED).map(|n| tracker.begins(&n.to_string())).collect();
    assert!(matches!(
        tracker.register_pending(&chat()).begin("one too many", timing()),
        Begun::Full
    ));
    drop(all);
    assert!(tracker.is_at_rest());
    assert!(!tracker.begins("again").has_ended());
}

#[tokio::test]
async fn an_end_is_told() {
    let tracker = tracker(false);
    let one = tracker.begins("1");
    let ended = async { one.ended().await };
    let (_, heard) =
        tokio::join!(ended, async { tracker.hears(r#"{"event":"complete","task_id":"1"}"#) });
    assert_eq!(heard, Heard::Deliver);
}
