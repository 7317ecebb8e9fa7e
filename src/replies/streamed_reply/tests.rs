use super::*;

fn size_of_future<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
    size_of::<F>()
}

/// What a reply takes while it streams, besides what it has of the stream. Tests are built without optimization, which makes
/// the future larger than in a release.
#[test]
fn a_streamed_reply_takes_no_more_than_before() {
    let run = size_of_future(|streamed: Box<StreamedReply>, reply| streamed.run(reply));
    let [streamed, reply] = [size_of::<StreamedReply>(), size_of::<Reply>()];
    println!("run: {run} bytes, StreamedReply: {streamed} bytes, Reply: {reply} bytes");
    assert!(run <= 1200, "the future has grown to {run} bytes");
    assert!(streamed <= 1176, "StreamedReply has grown to {streamed} bytes");
    assert!(reply <= 456, "Reply has grown to {reply} bytes");
}
