//! What is refused after a task was cancelled.

use super::*;

on_both_engines! {
    events_of_cancelled_tasks_are_refused,
}

async fn events_of_cancelled_tasks_are_refused(bench: Bench) {
    for name in ["five_1", "live_1"] {
        let channel = channel(name);
        let cancel = async |id: &str| {
            let unnamed = Some(EventNames::new(["token", "processing_started"], ["done"]));
            let end = terminal_event(id, Some(Cancellation { unnamed }));
            bench.publisher.end_generation(&channel, &end).await.unwrap().duplicate
        };
        for id in ["t", "12345678901234567890"] {
            assert!(!cancel(id).await && cancel(id).await);
        }
        // `publish` alone would be a plain PUBLISH on a channel without a history.
        let number = std::cell::Cell::new(0);
        let refused = async |json: &str| {
            number.set(number.get() + 1);
            let once =
                PublishOnce { key: "k".into(), number: number.get(), ttl: TTL, unless: None };
            let json = Bytes::copy_from_slice(json.as_bytes());
            bench.publisher.publish(&channel, json, Some(&once)).await.unwrap().refused
        };
        for (json, is_refused) in [
            (r#"{"event":"chunk","task_id":"t"}"#, true),
            (r#"{"n":NaN,"task\u005fid":"t"}"#, true),
            (r#"{"event":"chunk","task_id":12345678901234567890}"#, true),
            (r#"{"event":"chunk","task_id":12345678901234567891}"#, false),
            (r#"{"event":"chunk","data":{"task_id":"t"}}"#, true),
            (r#"{"event":"chunk","task_id":"u","data":{"task_id":"t"}}"#, false),
            (r#"{"event":"token","task_id":null}"#, true),
            (r#"{"event":"notice","task_id":""}"#, false),
            (r#"{"event":"notice","task_id":[]}"#, false),
            (r#"{"event":"leave","user_id":1}"#, false),
            (r#"{"notice":1}"#, false),
            ("{'event': 'chunk', 'task_id': 't'}", false),
            (r#"{"event":"done","task_id":"other"}"#, false),
            (r#"{"event":"done"}"#, true),
            (r#"{"event":"done"}"#, false),
            ("cancel", false),
            (r#"{"event":"token"}"#, true),
            (r#"{"event":"processing_started"}"#, false),
            (r#"{"event":"token"}"#, false),
            (r#"{"event":"token","task_id":"t"}"#, true),
        ] {
            if json == "cancel" {
                cancel("another").await;
                continue;
            }
            assert_eq!(refused(json).await, is_refused, "{name}: {json}");
        }
        bench.history.record_generation_start(&channel, "t", None).await.unwrap();
        assert!(!refused(r#"{"event":"chunk","task_id":"t"}"#).await);
    }
}

#[test]
fn workers_leave_out_what_the_gateway_leaves_out() {
    let script = include_str!("../../../../clients/redis/publish.lua");
    assert!(script.contains(include_str!("../cancelled.lua")));
}
