use super::*;

fn size_of_future<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

/// What the reply of a worker takes while it is monitored. Tests are built without optimization, which makes the future
/// larger than in a release.
#[test]
fn a_monitored_reply_takes_no_more_than_before() {
    let run = size_of_future(|monitor: ReplyMonitor| monitor.run());
    let monitor = size_of::<ReplyMonitor>();
    println!("run: {run} bytes, ReplyMonitor: {monitor} bytes");
    assert!(run <= 1776, "the future has grown to {run} bytes");
    assert!(monitor <= 472, "ReplyMonitor has grown to {monitor} bytes");
}
