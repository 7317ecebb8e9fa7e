//! Connections of load balancers that pass on TCP, with `[server] proxy_protocol`: a header before everything else, also
//! before TLS, says whose connection it is.
//!
//! Invariant: until the header is there, the connection holds a permit of the process, and is counted for no address. No
//! byte behind the header is read.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::client_limits::is_trusted;
use super::http::HttpFrontend;
use super::http_phase::Connection;
use crate::protocol::{HeaderMistake, HeaderProgress, ProxyHeader, read_proxy_header};
use crate::session::Permits;
use crate::socket::ClientTcp;
use crate::telemetry;
use crate::telemetry::connections::ProxyHeaderFault;

/// How many bytes of a header are read at once. Most headers are shorter.
const READ_BYTES: usize = 256;

/// Why there is no header.
enum NoHeader {
    /// The connection was closed without a byte, as load balancers check whether a port is open.
    Closed,
    Fault(ProxyHeaderFault),
}

impl From<HeaderMistake> for NoHeader {
    fn from(mistake: HeaderMistake) -> Self {
        Self::Fault(match mistake {
            HeaderMistake::Malformed => ProxyHeaderFault::Malformed,
            HeaderMistake::TooLong => ProxyHeaderFault::TooLarge,
        })
    }
}

impl HttpFrontend {
    /// Serves a connection of the load balancer `peer` once its header has come.
    pub(super) fn accept_proxied(self: &Rc<Self>, stream: ClientTcp, peer: SocketAddr) {
        let config = self.config();
        if !is_trusted(peer.ip(), &config) {
            telemetry::connections::proxy_header_refused(ProxyHeaderFault::Untrusted, peer.ip());
            return;
        }
        let Some((stream, process)) =
            self.limits.admit_proxied(stream, peer.ip(), &config, &self.linger_places)
        else {
            return;
        };
        let (frontend, tracked) = (Rc::clone(self), self.services.shutdown.track());
        tokio::task::spawn_local(Box::pin(async move {
            let mut stream = stream;
            let deadline = tokio::time::sleep(config.server.header_timeout);
            let header = tokio::select! {
                biased;
                header = read(&mut stream) => header,
                () = deadline => Err(NoHeader::Fault(ProxyHeaderFault::Timeout)),
                () = frontend.drain_overdue() => return,
            };
            let (client, over_tls) = match header {
                Ok(ProxyHeader::Local) => (peer, false),
                Ok(ProxyHeader::Client { address, over_tls }) => (address, over_tls),
                Err(NoHeader::Closed) => return,
                Err(NoHeader::Fault(fault)) => {
                    return telemetry::connections::proxy_header_refused(fault, peer.ip());
                }
            };
            let config = frontend.config();
            let places = &frontend.linger_places;
            let admitted = frontend.limits.admit_client(stream, client.ip(), &config, places);
            let Some((stream, ip)) = admitted else { return };
            let permits = Permits { process, ip, lease: None };
            let connection = Connection { peer: client, over_tls, permits, tracked };
            frontend.serve(stream, connection).await;
        }));
    }
}

/// Reads the header and nothing more.
async fn read(stream: &mut ClientTcp) -> Result<ProxyHeader, NoHeader> {
    let mut bytes = Vec::new();
    loop {
        let most = match read_proxy_header(&bytes)? {
            HeaderProgress::Complete(header) => return Ok(header),
            HeaderProgress::Needs(most) => most,
        };
        match std::future::poll_fn(|cx| poll_more(stream, cx, most, &mut bytes)).await {
            Ok(read) if read > 0 => {}
            _ if bytes.is_empty() => return Err(NoHeader::Closed),
            _ => return Err(NoHeader::Fault(ProxyHeaderFault::Incomplete)),
        }
    }
}

/// Adds what has come of the next `most` bytes, of a line nothing behind its end. Returns how many those are; 0 = the
/// connection has ended.
fn poll_more(
    stream: &mut ClientTcp,
    cx: &mut Context<'_>,
    most: usize,
    bytes: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let mut buffer = [0; READ_BYTES];
    let most = most.min(READ_BYTES);
    let seen = ready!(stream.poll_peek(cx, &mut buffer[..most]))?;
    let is_line = bytes.first().or(buffer[..seen].first()) == Some(&b'P');
    let end = buffer[..seen].iter().position(|byte| is_line && *byte == b'\n');
    let mut read = ReadBuf::new(&mut buffer[..end.map_or(seen, |end| end + 1)]);
    if read.remaining() > 0 {
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
    }
    bytes.extend_from_slice(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}
