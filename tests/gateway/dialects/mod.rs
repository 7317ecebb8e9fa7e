//! Upstreams that stream in the dialect of an AI API: what the clients of the channel get, and that each reply has one
//! true end.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::rig::upstream::StreamWriter;
use crate::rig::{Client, Gateway, Reply, Settings, Upstream};

mod apis;
mod bad_input;
mod replies;
mod unusual_answers;

const PATH: &str = "/ws/chat/42/";
const SSE: &str = "text/event-stream";

/// A gateway in front of an upstream that speaks a dialect, with two tabs of one conversation.
struct Chat {
    gateway: Gateway,
    upstream: Upstream,
    sender: Client,
    other: Client,
    writers: Arc<Mutex<Vec<StreamWriter>>>,
}

impl Chat {
    /// The upstream streams what the test writes.
    async fn streaming(dialect: &str, content_type: &'static str) -> Self {
        let writers: Arc<Mutex<Vec<StreamWriter>>> = Arc::default();
        let kept = Arc::clone(&writers);
        let upstream = Upstream::start(move |_| {
            let (writer, reply) = Reply::stream(content_type);
            kept.lock().unwrap().push(writer);
            reply
        });
        Self::start(upstream.await, dialect, writers).await
    }

    async fn start(
        upstream: Upstream,
        dialect: &str,
        writers: Arc<Mutex<Vec<StreamWriter>>>,
    ) -> Self {
        let url = upstream.url("/");
        let worker = format!("kind = \"http\"\nurl = {url:?}\n{dialect}");
        let gateway = Gateway::start(Settings::chat(&url).upstream("worker", &worker)).await;
        let (sender, _) = Client::connected(&gateway, PATH).await;
        let (other, _) = Client::connected(&gateway, PATH).await;
        Self { gateway, upstream, sender, other, writers }
    }

    /// Sends a message, and returns the id of its task and the handle of its reply.
    async fn ask(&mut self) -> (String, StreamWriter) {
        let task_id = self.queue().await;
        let writer = self.writers.lock().unwrap().pop().expect("a reply");
        (task_id, writer)
    }

    async fn queue(&mut self) -> String {
        self.sender.send_json(&json!({"message": "tell me"})).await;
        let queued = self.sender.next_event("task_queued").await;
        queued["task_id"].as_str().expect("a task id").to_owned()
    }

    /// Waits until both tabs have the first chunk of a reply.
    async fn expect_first_chunk(&mut self) {
        for tab in [&mut self.sender, &mut self.other] {
            tab.next_event("processing_started").await;
            assert_eq!(tab.next_event("chunk").await["chunk"], "Hi");
        }
    }

    /// The events that both tabs get of a task, without the ids, up to its end.
    async fn events(&mut self, task_id: &str) -> Vec<Value> {
        let events = read_events(&mut self.sender, task_id).await;
        assert_eq!(read_events(&mut self.other, task_id).await, events);
        events
    }
}

async fn read_events(client: &mut Client, task_id: &str) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let mut event = client.next_json().await;
        let members = event.as_object_mut().expect("an object");
        assert_eq!(members.remove("task_id"), Some(json!(task_id)), "{events:?}");
        members.remove("offset").expect("an offset");
        members.remove("epoch");
        let name = members["event"].as_str().expect("a name").to_owned();
        match &*name {
            "processing_started" => assert!(events.is_empty()),
            _ => events.push(event),
        }
        if matches!(&*name, "complete" | "error" | "cancelled") {
            break;
        }
    }
    client.send_json(&json!({"type": "ping"})).await;
    client.next_event("pong").await;
    events
}

fn delta(text: &str) -> String {
    let chunk =
        json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
    format!("data: {chunk}\n\n")
}

fn finish(reason: &str) -> String {
    let chunk = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]});
    format!("data: {chunk}\n\n")
}

fn chunk(text: &str) -> Value {
    json!({"event": "chunk", "chunk": text})
}
