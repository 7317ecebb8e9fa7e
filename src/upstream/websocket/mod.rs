//! Sockets to WebSocket servers, one for each client socket. They carry whole messages in both directions.
//!
//! `handshake` opens a socket, `task` reads and writes its frames. This file is the session's side of that
//! task: both halves are cancel-safe.

mod handshake;
mod message;
mod pass;
mod task;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::gate::InFlightPermit;
use crate::http_client::UpgradedStream;
pub(super) use handshake::{connect, url};
use message::Outgoing;
pub use message::{FromUpstream, SocketMessage};
pub use pass::{ClientHandshake, PassRefusal, PassedUpstream, is_of_handshake};
pub(super) use pass::{pass, request_head};
use task::SocketTask;

/// Both halves of an upstream socket; each may live in a task of its own on this thread.
pub struct UpstreamSocket {
    pub sender: UpstreamSender,
    pub receiver: UpstreamReceiver,
}

pub struct UpstreamSender {
    outgoing: mpsc::Sender<Outgoing>,
    /// The time limit for writing one message or the close frame.
    deadline: Duration,
}

pub struct UpstreamReceiver {
    incoming: mpsc::Receiver<FromUpstream>,
}

impl UpstreamSender {
    /// Sends a message within the time limit; `Err` = the connection is closed.
    pub async fn send(&mut self, message: SocketMessage) -> Result<(), ()> {
        self.submit(|written| Outgoing::Message(message, written)).await
    }

    /// Sends a close frame with the client's close code.
    pub async fn close(&mut self, code: u16, reason: &str) {
        let reason = reason.to_owned();
        // There is nothing left to do if the connection is closed already.
        let _ = self.submit(|written| Outgoing::Close(code, reason, written)).await;
    }

    /// Passes a message to the task and waits until it is written.
    async fn submit(
        &self,
        outgoing: impl FnOnce(oneshot::Sender<()>) -> Outgoing,
    ) -> Result<(), ()> {
        let (written, is_written) = oneshot::channel();
        let submitted = async {
            self.outgoing.send(outgoing(written)).await.map_err(drop)?;
            is_written.await.map_err(drop)
        };
        timeout(self.deadline, submitted).await.unwrap_or(Err(()))
    }
}

impl UpstreamReceiver {
    /// Returns the next event. Nothing follows [`FromUpstream::Closed`].
    pub async fn recv(&mut self) -> FromUpstream {
        self.incoming.recv().await.unwrap_or(FromUpstream::Closed(None))
    }
}

/// Starts the task that reads and writes frames. `deadline` is the time limit of each write.
pub(super) fn start(
    stream: UpgradedStream,
    max_message_bytes: usize,
    deadline: Duration,
    in_flight: InFlightPermit,
) -> UpstreamSocket {
    let (outgoing, to_send) = mpsc::channel(1);
    let (received, incoming) = mpsc::channel(1);
    let task = SocketTask { to_send, received, max_message_bytes, deadline, in_flight };
    tokio::spawn(task.run(stream));
    UpstreamSocket {
        sender: UpstreamSender { outgoing, deadline },
        receiver: UpstreamReceiver { incoming },
    }
}
