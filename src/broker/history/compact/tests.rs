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

#[test]
fn chunks_of_interleaved_tasks_stay_apart_and_in_order() {
    let chunk = |text: &str, task: &str| {
        format!(r#"{{"event":"chunk","chunk":"{text}","task_id":"{task}"}}"#)
    };
    let complete = r#"{"event":"complete","task_id":"2"}"#.to_owned();
    let nested = r#"{"event":"chunk","chunk":"f","data":{"task_id":"1"}}"#.to_owned();
    let events = [
        chunk("a", "1"),
        chunk("b", "1"),
        chunk("c", "2"),
        complete,
        chunk("d", "1"),
        chunk("e", "1"),
        nested,
        r#"{"event":"chunk","chunk":"g","task_id":1}"#.to_owned(),
    ];
    let merged = texts(&events.each_ref().map(String::as_str));
    assert_eq!(
        merged,
        [
            (r#"{"event":"chunk","chunk":"ab","task_id":"1","offset":3}"#.to_owned(), 3),
            (r#"{"event":"chunk","chunk":"c","task_id":"2","offset":4}"#.to_owned(), 4),
            (r#"{"event":"complete","task_id":"2","offset":5}"#.to_owned(), 5),
            (r#"{"event":"chunk","chunk":"de","task_id":"1","offset":7}"#.to_owned(), 7),
            (r#"{"event":"chunk","chunk":"f","data":{"task_id":"1"},"offset":8}"#.to_owned(), 8),
            (r#"{"event":"chunk","chunk":"g","task_id":1,"offset":9}"#.to_owned(), 9),
        ]
    );
}

#[test]
fn answers_and_refusals_are_not_mixed() {
    let events = [
        r#"{"event":"chunk","chunk":"a","task_id":"1"}"#,
        r#"{"event":"chunk","chunk":"b","choice":1,"task_id":"1"}"#,
        r#"{"event":"chunk","chunk":"c","choice":1,"task_id":"1"}"#,
        r#"{"event":"chunk","chunk":"d","refusal":true,"task_id":"1"}"#,
    ];
    let merged: Vec<String> = texts(&events).into_iter().map(|(text, _)| text).collect();
    assert_eq!(
        merged,
        [
            r#"{"event":"chunk","chunk":"a","task_id":"1","offset":2}"#,
            r#"{"event":"chunk","chunk":"bc","choice":1,"task_id":"1","offset":4}"#,
            r#"{"event":"chunk","chunk":"d","refusal":true,"task_id":"1","offset":5}"#,
        ]
    );
}
