use super::*;

#[test]
fn a_publication_that_is_not_utf8_ends_the_command() {
    let mut tail = Tail {
        api: ServerApi::at("127.0.0.1:1".to_owned(), None),
        channel: "c".to_owned(),
        json: false,
        remaining: None,
        was_connected: true,
        epoch: None,
        last_offset: None,
        from_oldest: false,
        resume_from: None,
    };
    let event = SseEvent { data: vec![0xff], ..SseEvent::default() };
    assert!(matches!(tail.publication(event), Err(StreamEnd::Failed(_))));
}
