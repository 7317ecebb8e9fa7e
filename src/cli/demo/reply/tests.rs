use super::*;

#[test]
fn the_chunks_are_the_text() {
    let body = MessageBody {
        message: "two  words".to_owned(),
        task_id: "t".to_owned(),
        connection_id: "c".to_owned(),
        user: None,
    };
    let events: Vec<serde_json::Value> =
        events(&body).iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let chunks = events.iter().filter_map(|event| event["chunk"].as_str());
    assert_eq!(chunks.collect::<String>(), text("two  words"));
    assert!(text("two  words").contains("which is 2 words"));
    assert_eq!(events[0]["event"], "user_message");
    assert_eq!(events.last().unwrap()["event"], "complete");
    assert!(events.iter().all(|event| event["task_id"] == "t"));
}

#[test]
fn a_long_message_is_not_quoted_in_full() {
    let reply = text(&"ä".repeat(10_000));
    assert!(reply.contains('…') && reply.chars().count() < 700);
}
