//! Connections of routes with `protocol = "pass"`: the frames of both sides as they are, each forwarded as it arrives.
//!
//! One task reads either side only when the other has taken everything, so a slow side slows its peer and nobody else, and
//! a connection holds no more than what one read took. The session sees messages only as they begin, for its limits.

mod closing;
mod from_client;
mod from_upstream;
mod relay;
mod undecided;
mod upstream_side;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;

use super::{Client, Permits, Services, Session};
use crate::protocol::CloseReason;
use crate::socket::{ByteStream, Socket};
use crate::upstream::PassedUpstream;
use relay::Relay;

/// Starts the session of a client and the upstream's socket that was opened for it. `early` are the bytes that came behind
/// the client's handshake.
pub async fn pass(
    services: Rc<Services>,
    stream: ByteStream,
    early: Vec<u8>,
    upstream: PassedUpstream,
    mut client: Client,
    permits: Permits,
) {
    client.share_channel(&services.broker);
    let route = client.route();
    let has_channel = client.channel.is_some();
    let socket = Rc::new(Socket::forwarding(stream, route.send_queue, has_channel));
    let session = Rc::new(Session::new(services, socket, client, permits));
    let relay = Relay::new(Rc::clone(&session), upstream, early);
    // From here on the guard gives everything back, whatever happens.
    let drive = PassDrive::begin(relay);
    // A drain that has begun may have closed its last session already.
    let shutdown = &session.services.shutdown;
    let late = shutdown.is_draining().then(|| shutdown.track());
    if AssertUnwindSafe(session.join_channel()).catch_unwind().await.is_err() {
        session.close_after_panic();
    }
    // The route may have changed since the client was admitted.
    if !session.apply_route_update() || late.is_some() {
        session.close_for_reconnect(Duration::ZERO);
    }
    // A task of its own, so that nothing of the opening stays in memory with it.
    tokio::task::spawn_local(async move {
        let _tracked = late;
        drive.await;
    });
}

/// The task of a connection. Ends its session when dropped.
struct PassDrive {
    relay: Relay,
}

impl PassDrive {
    fn begin(relay: Relay) -> Self {
        let session = &relay.session;
        session.services.registry.insert(session);
        session.route_metrics.connections.opened(session.log_fields());
        Self { relay }
    }
}

impl Future for PassDrive {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let session = Rc::clone(&self.relay.session);
        // After a panic its state is not known. Only the client's socket is closed.
        if session.has_panicked.get() {
            return session.contain(|| self.relay.poll_end(cx)).unwrap_or(Poll::Ready(()));
        }
        session.contain(|| self.relay.poll(cx)).unwrap_or_else(|| {
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }
}

impl Drop for PassDrive {
    fn drop(&mut self) {
        self.relay.session.finish();
    }
}

impl Session {
    /// Subscribes to the channel, if there is one.
    async fn join_channel(self: &Rc<Self>) {
        let Some(channel) = &self.client.channel else { return };
        match self.services.broker.subscribe(channel, &self.socket).await {
            Ok(subscription) => {
                self.keep_subscription(subscription);
                self.join_presence();
            }
            Err(_) => self.socket.close(CloseReason::Overloaded),
        }
    }
}
