//! What the demo's worker says: made of the message alone, so that a test knows it beforehand.

use serde_json::json;

use super::worker::Relayed;

/// Of a long message, this much is quoted.
const QUOTED_CHARS: usize = 280;

/// The events of one reply: what was asked (for the other tabs), word by word the answer, the end.
/// Each carries the task's id, so that a page can tell two replies apart that run at once.
pub fn events(relayed: &Relayed) -> Vec<String> {
    let task_id = &relayed.task_id;
    let name = relayed.user.as_ref().and_then(|user| user.name.as_deref());
    let asked = json!({
        "event": "user_message", "message": relayed.message, "username": name,
        "connection_id": relayed.connection_id, "task_id": task_id,
    });
    let text = text(&relayed.message);
    let words = text
        .split_inclusive(' ')
        .map(|word| json!({"event": "chunk", "chunk": word, "task_id": task_id}));
    let end = json!({"event": "complete", "task_id": task_id});
    std::iter::once(asked).chain(words).chain([end]).map(|event| event.to_string()).collect()
}

/// The answer to `message`.
pub fn text(message: &str) -> String {
    let words = message.split_whitespace().count();
    let noun = if words == 1 { "word" } else { "words" };
    let mut quoted: String = message.chars().take(QUOTED_CHARS).collect();
    if quoted.len() < message.len() {
        quoted.push('…');
    }
    format!(
        "You said “{quoted}”, which is {words} {noun}. Each word of this reply leaves a plain HTTP \
         endpoint as one server-sent event; the gateway publishes it to this conversation, and every \
         tab that has it open receives the same frame."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunks_are_the_text() {
        let relayed = Relayed {
            message: "two  words".to_owned(),
            task_id: "t".to_owned(),
            connection_id: "c".to_owned(),
            user: None,
        };
        let events: Vec<serde_json::Value> =
            events(&relayed).iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let chunks = events.iter().filter_map(|event| event["chunk"].as_str());
        assert_eq!(chunks.collect::<String>(), text("two  words"));
        assert!(text("two  words").contains("which is 2 words"));
        assert_eq!(events[0]["event"], "user_message");
        assert_eq!(events.last().unwrap()["event"], "complete");
        assert!(events.iter().all(|event| event["task_id"] == "t"));
    }

    #[test]
    fn a_long_message_is_not_quoted_in_full() {
        let answer = text(&"ä".repeat(10_000));
        assert!(answer.contains('…') && answer.chars().count() < 700);
    }
}
