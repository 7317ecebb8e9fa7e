use super::*;
use crate::telemetry::replies::ReplySpans;

#[test]
fn without_tracing_there_are_no_spans() {
    let client = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert_eq!(Some(sample(client)), client);
    let mut span = Span::start(&client.unwrap(), Kind::Server, || unreachable!());
    span.set("a", "b");
    assert!(!span.is_recording() && span.context().is_none());
    let spans = ReplySpans::start(span, "task");
    spans.record_chunk();
    assert!(format!("{spans:?}").contains("None"));
    assert_eq!(size_of::<Span>(), 8);
}
