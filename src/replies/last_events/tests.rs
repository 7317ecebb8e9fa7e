use super::*;

#[test]
fn a_terminal_event_is_waited_for_while_events_come() {
    let start = Instant::now();
    let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
    let due = |began: f64, last_event: f64, may_continue: bool| {
        let activity = Activity {
            ended_at: start,
            began: at(began),
            last_event: at(last_event),
            may_continue,
        };
        (activity.due(Duration::from_secs(2)) - start).as_secs_f64()
    };
    // Nothing came after the result, or only what was on its way.
    for may_continue in [true, false] {
        assert_eq!(due(0.0, 0.0, may_continue), 2.0);
        assert_eq!(due(0.0, 0.4, may_continue), 2.4);
        assert_eq!(due(7.0, 0.0, may_continue), 9.0, "this node was cut off for seven seconds");
    }
    // Another task continues the reply, however long it takes.
    assert_eq!(due(0.0, 5.0, true), 35.0);
    assert_eq!(due(0.0, 500.0, true), 530.0);
    // The events may be those of other replies.
    assert_eq!(due(0.0, 5.0, false), 7.0);
    assert_eq!(due(0.0, 500.0, false), 30.0);
}
