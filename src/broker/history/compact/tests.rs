use super::*;
use crate::broker::history::encode;
use crate::protocol::{Epoch, Position};

fn texts(events: &[&str]) -> Vec<(String, u64)> {
    let epoch = Epoch::new(10).unwrap();
    let publications = events
        .iter()
        .zip(2..)
        .map(|(json, offset)| encode(json.as_bytes(), Some(Position { epoch, offset })));
    compact(publications.collect())
        .iter()
        .map(|one| {
            let text = String::from_utf8(frame::payload(&one.frame).to_vec()).unwrap();
            (text, one.position.unwrap().offset)
        })
        .collect()
}

#[test]
fn a_run_of_chunks_becomes_one_with_the_offset_of_the_last() {
    let merged = texts(&[
        r#"{"event":"processing_started","task_id":"t"}"#,
        r#"{"event":"chunk","chunk":"a","n":1}"#,
        r#"{"event":"chunk","chunk":"\"b\"","n":2}"#,
        r#"{"chunk":"ä","event":"chunk","n":3.50}"#,
        r#"{"event":"complete"}"#,
    ]);
    assert_eq!(
        merged,
        [
            (r#"{"event":"processing_started","task_id":"t","offset":2}"#.to_owned(), 2),
            (r#"{"chunk":"a\"b\"ä","event":"chunk","n":3.50,"offset":5}"#.to_owned(), 5),
            (r#"{"event":"complete","offset":6}"#.to_owned(), 6),
        ]
    );
}

#[test]
fn other_events_and_chunks_of_other_tasks_are_not_merged() {
    let events = [
        r#"{"event":"chunk","chunk":"a","task_id":"1"}"#,
        r#"{"event":"chunk","chunk":"b","task_id":"2"}"#,
        r#"{"event":"chunk","chunk":{"x":1},"task_id":"2"}"#,
        r#"{"event":"chunk","task_id":"2"}"#,
        r#"{"event":"chunk_","chunk":"c","task_id":"2"}"#,
        "[1]",
    ];
    assert_eq!(texts(&events).len(), events.len());
}
