use super::*;
use crate::protocol::Epoch;

const START: Duration = Duration::from_secs(1);

fn covers(tasks: &mut CancelledTasks, json: &str, after: Duration) -> bool {
    tasks.covers(json.as_bytes(), None, START + after)
}

fn at(offset: u64) -> Option<Position> {
    Some(Position { epoch: Epoch::new(7).unwrap(), offset })
}

fn names() -> EventNames {
    EventNames::new(["token"], ["complete", "error"])
}

#[test]
fn events_of_a_cancelled_task_are_covered_by_its_id() {
    let mut tasks = CancelledTasks::default();
    tasks.cancel("t", None, START);
    tasks.cancel("17", None, START);
    for json in [
        r#"{"event":"chunk","task_id":"t"}"#,
        r#"{"event":"processing_started","task_id":"t"}"#,
        r#"{"event":"cancelled","task_id":"t"}"#,
        r#"{"task_id":"t"}"#,
        r#"{"event":"chunk","task_id":17}"#,
    ] {
        assert!(covers(&mut tasks, json, Duration::ZERO), "{json}");
        assert!(!covers(&mut tasks, json, CANCELLED_MEMORY), "{json}");
    }
    for json in [
        r#"{"event":"chunk","task_id":"other"}"#,
        r#"{"event":"chunk","data":{"task_id":"t"}}"#,
        r#"{"event":"chunk"}"#,
        r#""t""#,
        "text",
    ] {
        assert!(!covers(&mut tasks, json, Duration::ZERO), "{json}");
    }
    assert!(!tasks.is_expired(START));
    assert!(tasks.is_expired(START + CANCELLED_MEMORY));
}

#[test]
fn what_came_before_the_end_is_not_covered() {
    let mut tasks = CancelledTasks::default();
    tasks.cancel_unnamed(names(), START);
    tasks.cancel("t", at(5), START);
    for json in [r#"{"event":"chunk","task_id":"t"}"#, r#"{"event":"chunk"}"#] {
        for (offset, is_covered) in [(4, false), (5, false), (6, true)] {
            assert_eq!(tasks.covers(json.as_bytes(), at(offset), START), is_covered, "{offset}");
        }
    }
}

#[test]
fn a_task_that_another_node_cancelled_is_learned_once() {
    let mut tasks = CancelledTasks::default();
    let chunk = br#"{"event":"chunk","task_id":"t"}"#;
    tasks.learn("t", at(5).unwrap(), START);
    assert!(!tasks.covers(chunk, at(5), START), "it may be from before");
    assert!(tasks.covers(chunk, at(6), START));
    assert!(tasks.covers(chunk, None, START));
    tasks.learn("t", at(9).unwrap(), START);
    assert!(tasks.covers(chunk, at(6), START), "it was known");
}

#[test]
fn events_without_a_task_id_belong_to_the_only_task() {
    let mut tasks = CancelledTasks::default();
    tasks.cancel("t", None, START);
    assert!(!covers(&mut tasks, r#"{"event":"chunk"}"#, Duration::ZERO), "others run");
    tasks.cancel_unnamed(names(), START);
    for json in [r#"{"event":"chunk"}"#, r#"{"event":"token","task_id":null}"#] {
        assert!(covers(&mut tasks, json, Duration::ZERO), "{json}");
        assert!(covers(&mut tasks, json, ANY_NAME_MEMORY), "{json}");
        assert!(!covers(&mut tasks, json, CANCELLED_MEMORY), "{json}");
    }
    let unknown = r#"{"event":"usage"}"#;
    assert!(covers(&mut tasks, unknown, Duration::ZERO));
    assert!(!covers(&mut tasks, unknown, ANY_NAME_MEMORY));
    for json in [
        r#"{"event":"join","user_id":1}"#,
        r#"{"event":"notice","task_id":""}"#,
        r#"{"event":"notice","task_id":["x"]}"#,
        r#"{"notice":1}"#,
        "[]",
    ] {
        assert!(!covers(&mut tasks, json, Duration::ZERO), "{json}");
    }
}

#[test]
fn its_own_end_or_another_start_ends_the_cancelled_task() {
    for end in [true, false] {
        let mut tasks = CancelledTasks::default();
        tasks.cancel("t", None, START);
        tasks.cancel_unnamed(names(), START);
        if end {
            assert!(covers(&mut tasks, r#"{"event":"complete"}"#, Duration::ZERO));
        } else {
            tasks.start();
        }
        assert!(!covers(&mut tasks, r#"{"event":"chunk"}"#, Duration::ZERO));
        assert!(!covers(&mut tasks, r#"{"event":"complete"}"#, Duration::ZERO));
        assert!(covers(&mut tasks, r#"{"event":"chunk","task_id":"t"}"#, Duration::ZERO));
    }
}

#[test]
fn a_task_that_had_begun_does_not_begin_again() {
    let begin = r#"{"event":"processing_started"}"#;
    for had_begun in [true, false] {
        let mut tasks = CancelledTasks::default();
        let parts = had_begun.then_some("processing_started");
        tasks.cancel_unnamed(EventNames::new(parts, ["complete"]), START);
        assert!(covers(&mut tasks, r#"{"event":"usage"}"#, Duration::ZERO));
        assert_eq!(covers(&mut tasks, begin, Duration::ZERO), !had_begun);
        assert_eq!(covers(&mut tasks, r#"{"event":"chunk"}"#, Duration::ZERO), !had_begun);
    }
}

#[test]
fn a_task_that_starts_again_is_forgotten() {
    let mut tasks = CancelledTasks::default();
    tasks.cancel("t", None, START);
    assert!(!tasks.restart("t", START), "it was cancelled after it started");
    assert!(tasks.restart("t", START + Duration::from_secs(1)));
    assert!(!covers(&mut tasks, r#"{"event":"chunk","task_id":"t"}"#, Duration::ZERO));
}

#[test]
fn the_oldest_tasks_are_forgotten_beyond_the_bound() {
    let mut tasks = CancelledTasks::default();
    for n in 0..=MAX_TASKS {
        tasks.cancel(&n.to_string(), None, START);
    }
    assert!(!covers(&mut tasks, r#"{"event":"chunk","task_id":"0"}"#, Duration::ZERO));
    assert!(covers(&mut tasks, r#"{"event":"chunk","task_id":"1"}"#, Duration::ZERO));
}

#[test]
fn notices_of_the_scripts_are_read() {
    let json = format!(r#"{{"event":"tidegate.task_cancelled","names":{}}}"#, names().to_json());
    assert!(matches!(
        TaskNotice::read(json.as_bytes()),
        Some(TaskNotice::Cancelled { names: read }) if read == names()
    ));
    let started = |json: &str| match TaskNotice::read(json.as_bytes()) {
        Some(TaskNotice::Started { task_id }) => task_id,
        other => panic!("{other:?}"),
    };
    assert_eq!(started(r#"{"event":"tidegate.task_started"}"#), None);
    assert_eq!(started(r#"{"event":"tidegate.task_started","task_id":"t"}"#).as_deref(), Some("t"));
    assert!(TaskNotice::read(br#"{"event":"chunk"}"#).is_none());
}
