use super::*;

fn task(channel: &str, id: &str) -> Task {
    Task { channel: ChannelName::new(channel).unwrap(), id: id.into() }
}

fn origin() -> GenerationOrigin {
    let (route, upstream) = ("/r/".into(), "api".into());
    let user = Some(UserId::Integer(7));
    let (connection, began) = (None, Instant::now());
    GenerationOrigin { route, upstream, connection, user, streams: true, began }
}

#[test]
fn a_generation_is_found_with_its_last_event() {
    let running = RunningTasks::default();
    let guard = running.register(task("a", "1"), origin()).unwrap();
    let _other = running.register(task("b", "2"), origin()).unwrap();
    let found = running.find(|task, _| task.channel.as_str() == "a");
    assert_eq!((found.len(), &*found[0].0.id), (1, "1"));
    assert_eq!(found[0].1.last_event_at(), None);
    let at = found[0].1.origin.began + Duration::from_millis(1500);
    guard.record_event(at);
    assert_eq!(found[0].1.last_event_at(), Some(at));
    assert_eq!(running.find(|_, origin| origin.user == Some(UserId::Text("7".into()))).len(), 2);
}

#[tokio::test]
async fn a_generation_is_cancelled_by_channel_and_task() {
    let running = RunningTasks::default();
    let one = running.register(task("a", "1"), origin()).unwrap();
    assert!(running.register(task("a", "1"), origin()).is_none());
    let _other = running.register(task("b", "1"), origin()).unwrap();
    assert!(!running.cancel(&task("a", "2")) && !running.cancel(&task("c", "1")));
    assert!(running.cancel(&task("a", "1")));
    one.cancelled().await;
    drop(one);
    assert!(!running.cancel(&task("a", "1")), "it has ended");
    let early = running.register(task("a", "1"), origin()).unwrap();
    early.remove();
    let next = running.register(task("a", "1"), origin()).unwrap();
    drop(early);
    assert!(running.cancel(&task("a", "1")), "its successor stays");
    drop(next);
    assert!(running.cancel(&task("b", "1")));
}
