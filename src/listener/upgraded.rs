//! What becomes of a connection after its upgrade: a session, or one last message and a close.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::client_limits::LingerPlace;
use super::http::HttpFrontend;
use crate::config::Protocol;
use crate::handshake::Admission;
use crate::limits::{IpPermit, Lease};
use crate::protocol::CloseReason;
use crate::session::{self, Client, NewClient, Permits, UpstreamMode};
use crate::socket::ByteStream;
use crate::upstream::PassedUpstream;

/// The result of an upgrade whose 101 response is on its way.
pub(super) enum Upgraded {
    /// With the socket that an upstream has opened for the client, where the route asks it first.
    Admitted(Box<Admission>, Option<Box<PassedUpstream>>, IpAddr, Option<IpPermit>, Option<Lease>),
    /// The gateway sends a fixed reply, if the client may have it, and closes the socket.
    Closed(Option<String>, CloseReason, Option<IpPermit>),
    /// A route refuses the client of this address. The gateway sends at most one event and closes the socket.
    Refused(Option<String>, CloseReason, IpAddr, Option<IpPermit>),
    /// The same for a client whose address is over a limit: it is closed at once and holds no permit.
    OverLimit(Option<String>, CloseReason, LingerPlace),
}

impl HttpFrontend {
    /// Starts the task that serves the connection from now on. `early` are the bytes that were read after the request,
    /// `head` is the 101 response if it has not been sent, and `tracked` makes a drain wait until the session is open.
    pub fn start_session(
        &self,
        upgraded: Upgraded,
        stream: ByteStream,
        (early, head): (Bytes, Bytes),
        mut permits: Permits,
        tracked: TaskTrackerToken,
    ) {
        match upgraded {
            Upgraded::Admitted(admission, upstream, address, ip, lease) => {
                permits.ip = permits.ip.take().or(ip);
                permits.lease = lease.map(Box::new);
                let (resume, deflate) = (admission.resume, admission.deflate);
                let protocol = admission.route.protocol;
                let client = self.build_client(*admission, address);
                let services = Rc::clone(&self.services);
                let early = early.to_vec();
                match upstream {
                    Some(upstream) if protocol == Protocol::Pass => {
                        tokio::task::spawn_local(async move {
                            let _guard = tracked;
                            session::pass(services, stream, early, *upstream, client, permits)
                                .await;
                        });
                    }
                    upstream => {
                        let arrival = session::Arrival { early, head, resume, deflate, upstream };
                        // Boxed, because a runtime moves what it is given several times, and this is large.
                        tokio::task::spawn_local(Box::pin(async move {
                            let _guard = tracked;
                            session::open(services, stream, arrival, client, permits).await;
                        }));
                    }
                }
            }
            Upgraded::Closed(text, reason, ip) => {
                permits.ip = permits.ip.take().or(ip);
                let services = Rc::clone(&self.services);
                tokio::task::spawn_local(async move {
                    let _guard = tracked;
                    session::send_and_close(services, stream, text, reason, permits, None).await;
                });
            }
            Upgraded::OverLimit(text, reason, place) => {
                drop(permits);
                let services = Rc::clone(&self.services);
                tokio::task::spawn_local(async move {
                    let _guard = tracked;
                    session::send_and_close(services, stream, text, reason, place, None).await;
                });
            }
            Upgraded::Refused(text, reason, address, ip) => {
                permits.ip = permits.ip.take().or(ip);
                let (services, delay) =
                    (Rc::clone(&self.services), self.services.delay_refusal(address));
                tokio::task::spawn_local(async move {
                    let _guard = tracked;
                    session::send_and_close(services, stream, text, reason, permits, delay).await;
                });
            }
        }
    }

    fn build_client(&self, admission: Admission, address: IpAddr) -> Client {
        Client::from(NewClient {
            upstream: UpstreamMode::of(&self.services.config(), &admission.route),
            route: admission.route,
            params: admission.params,
            channel: admission.channel,
            identity: admission.identity,
            credentials: admission.source.into(),
            sender: admission.sender,
            request_id: admission.request_id,
            connection_id: admission.connection_id,
            address,
            origin: admission.origin,
            forwarded: admission.forwarded,
            trace: admission.trace,
        })
    }
}
