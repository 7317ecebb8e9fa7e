use super::*;

fn task(channel: &str, id: &str) -> Task {
    Task { channel: ChannelName::new(channel).unwrap(), id: id.into() }
}

#[tokio::test]
async fn a_generation_is_cancelled_by_channel_and_task() {
    let running = RunningTasks::default();
    let one = running.register(task("a", "1")).unwrap();
    assert!(running.register(task("a", "1")).is_none());
    let _other = running.register(task("b", "1")).unwrap();
    assert!(!running.cancel(&task("a", "2")) && !running.cancel(&task("c", "1")));
    assert!(running.cancel(&task("a", "1")));
    one.cancelled().await;
    drop(one);
    assert!(!running.cancel(&task("a", "1")), "it has ended");
    let early = running.register(task("a", "1")).unwrap();
    early.remove();
    let next = running.register(task("a", "1")).unwrap();
    drop(early);
    assert!(running.cancel(&task("a", "1")), "its successor stays");
    drop(next);
    assert!(running.cancel(&task("b", "1")));
}
