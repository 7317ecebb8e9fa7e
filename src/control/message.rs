//! What goes over the wire: orders to all nodes, replies to one. JSON objects with a version; whoever
//! does not know a version or a kind leaves it unanswered, so that its sender knows.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Disconnect, Order};
use crate::protocol::ChannelName;

/// Raised when an old node would do something else than the sender means.
const VERSION: u32 = 1;

/// Longer messages are neither sent nor read.
pub(super) const MAX_BYTES: usize = 16 * 1024;

/// An order on its way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ordered {
    /// Names the order in its replies.
    pub id: String,
    /// The node that wants the replies.
    pub from: String,
    pub order: Order,
}

/// What one node did about an order.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Reply {
    /// Of the order.
    pub id: String,
    pub affected: u64,
    /// All threads of that node have answered.
    pub complete: bool,
}

/// Why a message is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    TooLarge,
    /// Of another version, or an order of an unknown kind.
    Unknown,
    Malformed,
}

/// What every version begins with.
#[derive(Deserialize)]
struct Head<'a> {
    v: u32,
    /// Orders have one.
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Envelope {
    id: String,
    from: String,
    order: Box<RawValue>,
}

#[derive(Deserialize)]
struct Cancel {
    channel: ChannelName,
    task_id: String,
}

impl Ordered {
    /// `None` = it is too large.
    pub fn to_json(&self) -> Option<String> {
        let (kind, order) = match &self.order {
            Order::Disconnect(order) => ("disconnect", json!(order)),
            Order::Cancel { channel, task_id } => {
                ("cancel", json!({ "channel": channel, "task_id": task_id }))
            }
        };
        let Self { id, from, .. } = self;
        let message = json!({ "v": VERSION, "kind": kind, "id": id, "from": from, "order": order });
        Some(message.to_string()).filter(|json| json.len() <= MAX_BYTES)
    }

    pub fn read(json: &[u8]) -> Result<Self, Unread> {
        let head = head(json)?;
        let kind = head.kind.ok_or(Unread::Malformed)?;
        if !matches!(&*kind, "disconnect" | "cancel") {
            return Err(Unread::Unknown);
        }
        let malformed = |_| Unread::Malformed;
        let Envelope { id, from, order } = serde_json::from_slice(json).map_err(malformed)?;
        if !is_id(&id) || !is_id(&from) {
            return Err(Unread::Malformed);
        }
        let order = order.get();
        let order = if kind == "disconnect" {
            Order::Disconnect(serde_json::from_str::<Disconnect>(order).map_err(malformed)?)
        } else {
            let Cancel { channel, task_id } = serde_json::from_str(order).map_err(malformed)?;
            Order::Cancel { channel, task_id }
        };
        Ok(Self { id, from, order })
    }
}

impl Reply {
    pub fn to_json(&self) -> String {
        let Self { id, affected, complete } = self;
        json!({ "v": VERSION, "id": id, "affected": affected, "complete": complete }).to_string()
    }

    pub fn read(json: &[u8]) -> Result<Self, Unread> {
        head(json)?;
        serde_json::from_slice(json).map_err(|_| Unread::Malformed)
    }
}

fn head(json: &[u8]) -> Result<Head<'_>, Unread> {
    if json.len() > MAX_BYTES {
        return Err(Unread::TooLarge);
    }
    // serde would take an array for the fields in their order.
    if json.first() != Some(&b'{') {
        return Err(Unread::Malformed);
    }
    let head: Head<'_> = serde_json::from_slice(json).map_err(|_| Unread::Malformed)?;
    if head.v == VERSION { Ok(head) } else { Err(Unread::Unknown) }
}

/// Ids end up in a channel's name.
fn is_id(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cancel(task_id: &str) -> Ordered {
        let channel = ChannelName::new("chat_42").unwrap();
        let order = Order::Cancel { channel, task_id: task_id.to_owned() };
        Ordered { id: "a1".to_owned(), from: "b2".to_owned(), order }
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let disconnect = r#"{"user_id":"7","code":4000,"reason":"bye"}"#;
        let disconnect = Order::Disconnect(serde_json::from_str(disconnect).unwrap());
        for ordered in [cancel("t"), Ordered { order: disconnect, ..cancel("") }] {
            let json = ordered.to_json().unwrap();
            assert_eq!(Ordered::read(json.as_bytes()), Ok(ordered), "{json}");
        }
        let reply = Reply { id: "a1".to_owned(), affected: 3, complete: false };
        assert_eq!(Reply::read(reply.to_json().as_bytes()), Ok(reply));
        assert_eq!(cancel(&"x".repeat(MAX_BYTES)).to_json(), None);
    }

    #[test]
    fn what_is_not_understood_is_told_apart_from_nonsense() {
        let read = |json: &str| Ordered::read(json.as_bytes()).map(|_| ());
        let order = r#""id":"a1","from":"b2","order":"#;
        let user = format!(r#"{{"v":1,"kind":"disconnect",{order}{{"user_id":7}}}}"#);
        assert_eq!(read(&user), Ok(()));
        assert_eq!(read(&user.replace("\"v\":1", "\"v\":2")), Err(Unread::Unknown));
        assert_eq!(read(r#"{"v":2,"what":"ever"}"#), Err(Unread::Unknown));
        assert_eq!(read(&user.replace("disconnect", "reload")), Err(Unread::Unknown));
        let long = user.replace("7", &format!("\"{}\"", "7".repeat(MAX_BYTES)));
        assert_eq!(read(&long), Err(Unread::TooLarge));
        for json in [
            "",
            "[1]",
            r#"{"v":"1"}"#,
            r#"{"v":1}"#,
            &user.replace("b2", "../b2"),
            &user.replace("b2", ""),
            &user.replace("user_id", "user"),
            &user.replace("\"user_id\":7", "\"user_id\":7,\"code\":1006"),
            &user.replace("\"user_id\":7", "\"user_id\":7,\"more\":1"),
        ] {
            assert_eq!(read(json), Err(Unread::Malformed), "{json}");
        }
    }
}
