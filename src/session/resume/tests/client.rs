//! A client of one node.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::task::JoinHandle;

use super::node::Node;
use super::{PIPE, until};
use crate::protocol::ResumePoint;
use crate::session::{Arrival, Permits, open};
use crate::socket::ByteStream;

/// A client that remembers its position and checks every frame against it.
#[derive(Default)]
pub struct TestClient {
    pub connection: Option<JoinHandle<()>>,
    pub state: Rc<State>,
}

#[derive(Default)]
pub struct State {
    /// Epoch and offset of the last frame.
    pub position: RefCell<Option<(String, u64)>>,
    pub is_reading: Cell<bool>,
    pub is_closed: Cell<bool>,
}

impl TestClient {
    pub fn connect(&mut self, node: &Rc<Node>) {
        self.disconnect();
        let position = self.state.position.borrow().clone();
        let resume = position
            .as_ref()
            .and_then(|(epoch, offset)| ResumePoint::read(Some(&offset.to_string()), Some(epoch)));
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let permits =
            Permits { process: node.counts.acquire(1000).expect("room"), ip: None, lease: None };
        let (early, head) = (Vec::new(), Bytes::new());
        let arrival = Arrival { early, head, resume, deflate: None, upstream: None };
        let services = Rc::clone(&node.services);
        let stream = ByteStream::Memory(ours);
        tokio::task::spawn_local(open(services, stream, arrival, node.client(), permits));
        self.state.is_closed.set(false);
        let reading = read_all(Rc::clone(node), Rc::clone(&self.state), theirs);
        self.connection = Some(tokio::task::spawn_local(reading));
    }

    pub fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            let has_ended = connection.is_finished();
            assert!(!has_ended || self.state.is_closed.get(), "a client found a gap or a repeat");
            connection.abort();
        }
    }
}

async fn read_all(node: Rc<Node>, state: Rc<State>, mut stream: DuplexStream) {
    let mut first = true;
    loop {
        while !state.is_reading.get() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match read_frame(&mut stream).await {
            Some((0x81, payload)) => {
                let frame: Value = serde_json::from_slice(&payload).unwrap();
                if std::mem::take(&mut first) {
                    state.connected(&frame);
                } else {
                    state.publication(&node, &frame).await;
                }
            }
            Some((0x89, _)) => {}
            Some((0x88, _)) | None => return state.is_closed.set(true),
            Some((opcode, _)) => panic!("opcode {opcode:#x}"),
        }
    }
}

impl State {
    fn connected(&self, frame: &Value) {
        assert_eq!(frame["event"], "connected");
        let current =
            (frame["epoch"].as_str().unwrap().to_owned(), frame["offset"].as_u64().unwrap());
        let mut position = self.position.borrow_mut();
        match (&*position, frame["recovered"].as_bool()) {
            (None, None) => {}
            (Some(before), Some(true)) => assert_eq!(*before, current, "{frame}"),
            // What was missed cannot be recovered, and the client knows.
            (Some(_), Some(false)) => {}
            _ => panic!("{frame}"),
        }
        *position = Some(current);
    }

    async fn publication(&self, node: &Node, frame: &Value) {
        let offset = frame["offset"].as_u64().unwrap();
        let (mut epoch, last) = self.position.borrow().clone().unwrap();
        match frame["epoch"].as_str() {
            Some(new) => {
                assert_eq!(offset, 1);
                epoch = new.to_owned();
            }
            None => assert_eq!(offset, last + 1, "after {epoch}:{last} came {frame}"),
        }
        // A client may receive a publication before its publisher learns the position.
        let position = (epoch, offset);
        let number = until(|| node.published.borrow().get(&position).copied()).await;
        assert_eq!(frame["n"], number, "at {position:?}");
        *self.position.borrow_mut() = Some(position);
    }
}

/// Reads a frame: its first byte and its payload. `None` at the end of the stream.
async fn read_frame(stream: &mut DuplexStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.ok()?;
    let length = match head[1] {
        127 => stream.read_u64().await.ok()? as usize,
        126 => usize::from(stream.read_u16().await.ok()?),
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[0], payload))
}
