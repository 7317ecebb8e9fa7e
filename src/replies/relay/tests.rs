use super::*;
use crate::upstream::Upstreams;

/// The size of what `call` returns, which is never called.
fn size_of_future<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
    size_of::<F>()
}

/// What a message takes on its way to the upstream, besides its text and ids. Tests are built without optimization, which
/// makes futures larger than in a release.
#[test]
fn a_message_on_its_way_takes_no_more_than_before() {
    type Static<T> = &'static T;
    let sizes = [
        (
            "relay",
            size_of_future(|replies: Static<Rc<Replies>>, sender: Static<Sender>, message| {
                replies.relay(sender, message)
            }),
            1032,
        ),
        (
            "upstream",
            size_of_future(
                |upstreams: Static<Upstreams>, name: Static<str>, message: Static<_>| {
                    upstreams.relay(name, message)
                },
            ),
            496,
        ),
        (
            "admission",
            size_of_future(|replies: Static<Rc<Replies>>, sender: Static<Sender>, ()| {
                replies.admit_by_steps(sender, None)
            }),
            1472,
        ),
        ("sender", size_of::<Sender>(), 200),
        ("message", size_of::<crate::upstream::Message>(), 264),
    ];
    for (name, size, _) in sizes {
        println!("{name}: {size} bytes");
    }
    for (name, size, limit) in sizes {
        assert!(size <= limit, "{name} has grown to {size} bytes, from at most {limit}");
    }
}
