//! Orders of a server, from any node: closing those of this thread's sessions that are meant.
//!
//! A session is found from the moment that it is in the roster, which is before it subscribes. A client
//! that is still in its handshake is not: who revokes a user stops giving credentials first.

use std::rc::Rc;

use super::{Services, Session};
use crate::control::{Disconnect, Seat, Target};

/// Carries out this thread's orders, one after the other, until the gateway ends.
pub async fn take_orders(services: Rc<Services>, mut seat: Seat) {
    while let Some(task) = seat.next().await {
        let closed = services.disconnect(&task.order).await;
        task.done(closed);
    }
}

impl Services {
    async fn disconnect(&self, order: &Disconnect) -> u64 {
        let mut closed = 0;
        self.roster
            .visit(|session| {
                if session.is_meant_by(order.target()) && session.socket.is_open() {
                    session.socket.disconnect(order.code(), order.reason());
                    closed += 1;
                }
            })
            .await;
        closed
    }
}

impl Session {
    fn is_meant_by(&self, target: &Target) -> bool {
        match target {
            Target::User(id) => {
                let identity = self.client.identity.borrow();
                identity.user_id.as_ref() == Some(id)
            }
            Target::Connection(id) => self.client.connection_id == *id,
            Target::Channel(name) => self.client.channel == *name,
        }
    }
}
