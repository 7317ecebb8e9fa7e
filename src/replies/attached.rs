//! Replies that end with the connection that asked for them (`on_disconnect = "cancel"`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio_util::sync::CancellationToken;

use super::{Replies, Sender};
use crate::protocol::ConnectionId;

/// The attached replies of one thread, by connection. Holds as many entries as such replies are in progress.
#[derive(Clone, Default)]
pub(super) struct AttachedReplies(Rc<RefCell<HashMap<ConnectionId, Vec<CancellationToken>>>>);

/// Detaches a reply from its connection when dropped.
pub(super) struct AttachGuard {
    attached: AttachedReplies,
    connection: ConnectionId,
    canceller: CancellationToken,
}

impl AttachedReplies {
    /// The end of the sender's connection cancels `canceller` from now on, at once if it has ended already.
    pub fn attach(&self, sender: &Sender, canceller: CancellationToken) -> Option<AttachGuard> {
        if !sender.socket.is_open() {
            canceller.cancel();
            return None;
        }
        Some(self.attach_open(sender.connection_id, canceller))
    }

    fn attach_open(&self, connection: ConnectionId, canceller: CancellationToken) -> AttachGuard {
        self.0.borrow_mut().entry(connection).or_default().push(canceller.clone());
        AttachGuard { attached: self.clone(), connection, canceller }
    }

    fn cancel_all(&self, connection: ConnectionId) {
        let cancellers = self.0.borrow_mut().remove(&connection);
        cancellers.unwrap_or_default().iter().for_each(CancellationToken::cancel);
    }
}

impl Drop for AttachGuard {
    fn drop(&mut self) {
        let mut attached = self.attached.0.borrow_mut();
        if let Some(cancellers) = attached.get_mut(&self.connection) {
            cancellers.retain(|canceller| *canceller != self.canceller);
            if cancellers.is_empty() {
                attached.remove(&self.connection);
            }
        }
    }
}

impl Replies {
    /// Cancels the replies that are attached to a connection which has ended.
    pub fn cancel_attached(&self, connection: ConnectionId) {
        self.attached.cancel_all(connection);
    }
}

#[cfg(test)]
mod tests;
