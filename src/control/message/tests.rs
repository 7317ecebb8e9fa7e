use super::*;
use crate::control::{Channels, Connections};
use crate::protocol::{ConnectionId, UserId};

fn cancel(task_id: &str) -> CommandEnvelope {
    let channel = ChannelName::new("chat_42").unwrap();
    let command = NodeCommand::Cancel { channel, task_id: task_id.to_owned() };
    CommandEnvelope { id: "a1".to_owned(), from: "b2".to_owned(), command }
}

#[test]
fn messages_are_read_as_they_were_written() {
    let disconnect = r#"{"user_id":"7","code":4000,"reason":"bye"}"#;
    let disconnect = NodeCommand::Disconnect(serde_json::from_str(disconnect).unwrap());
    let channels = Channels { prefix: "chat_".to_owned(), limit: 7, ..Channels::default() };
    let connections = Connections {
        user_id: Some(UserId::Text("7".into())),
        after: Some(ConnectionId::random()),
        ..Connections::default()
    };
    let lists = [Listing::Channels(channels), Listing::Connections(connections)];
    let [channels, connections] = lists.map(NodeCommand::List);
    for command in [cancel("t").command, disconnect, channels, connections] {
        let envelope = CommandEnvelope { command, ..cancel("") };
        let json = envelope.to_json().unwrap();
        assert_eq!(CommandEnvelope::read(json.as_bytes()), Ok(envelope), "{json}");
    }
    for data in [None, Some(r#"{"rows":[],"more":true}"#)] {
        let data = data.map(|json| RawValue::from_string(json.to_owned()).unwrap());
        let node = data.as_ref().map(|_| "n1".to_owned());
        let reply = Reply { id: "a1".to_owned(), affected: 3, complete: false, node, data };
        let read = Reply::read(reply.to_json().as_bytes()).unwrap();
        let text = |reply: &Reply| reply.data.as_ref().map(|data| data.get().to_owned());
        assert_eq!((&*read.id, read.affected, read.complete), ("a1", 3, false));
        assert_eq!((text(&read), &read.node), (text(&reply), &reply.node));
    }
    assert_eq!(cancel(&"x".repeat(MAX_BYTES)).to_json(), None);
}

#[test]
fn unknown_messages_are_distinguished_from_malformed_ones() {
    let read = |json: &str| CommandEnvelope::read(json.as_bytes()).map(|_| ());
    let command = r#""id":"a1","from":"b2","order":"#;
    let user = format!(r#"{{"v":1,"kind":"disconnect",{command}{{"user_id":7}}}}"#);
    assert_eq!(read(&user), Ok(()));
    assert_eq!(read(&user.replace("\"v\":1", "\"v\":2")), Err(ReadError::Unknown));
    assert_eq!(read(r#"{"v":2,"what":"ever"}"#), Err(ReadError::Unknown));
    assert_eq!(read(&user.replace("disconnect", "reload")), Err(ReadError::Unknown));
    let long = user.replace("7", &format!("\"{}\"", "7".repeat(MAX_BYTES)));
    assert_eq!(read(&long), Err(ReadError::TooLarge));
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
        assert_eq!(read(json), Err(ReadError::Malformed), "{json}");
    }
}
