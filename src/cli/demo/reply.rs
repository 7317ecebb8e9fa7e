//! The replies of the demo's worker. They depend on the message only, so that a test can predict them.

use serde::Deserialize;
use serde_json::json;

/// A reply quotes at most this much of the message.
const QUOTED_CHARS: usize = 280;

/// The body that the gateway posts, as far as a reply needs it. docs/protocol.md has all fields.
#[derive(Deserialize)]
pub struct MessageBody {
    pub message: String,
    pub task_id: String,
    pub connection_id: String,
    #[serde(default)]
    pub user: Option<User>,
}

#[derive(Deserialize)]
pub struct User {
    #[serde(default)]
    pub name: Option<String>,
}

/// The events of a reply: the message (for other tabs), the reply word by word, and the end. Each has the id
/// of the task, so that a page can tell concurrent replies apart.
pub fn events(body: &MessageBody) -> Vec<String> {
    let task_id = &body.task_id;
    let name = body.user.as_ref().and_then(|user| user.name.as_deref());
    let message = json!({
        "event": "user_message", "message": body.message, "username": name,
        "connection_id": body.connection_id, "task_id": task_id,
    });
    let text = text(&body.message);
    let words = text
        .split_inclusive(' ')
        .map(|word| json!({"event": "chunk", "chunk": word, "task_id": task_id}));
    let end = json!({"event": "complete", "task_id": task_id});
    std::iter::once(message).chain(words).chain([end]).map(|event| event.to_string()).collect()
}

/// The reply to `message`.
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
mod tests;
