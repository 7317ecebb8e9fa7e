//! The limits of client addresses and of this process. They come before any answer: when a connection is accepted,
//! or with each request if only a trusted proxy's headers tell whose it is.
//!
//! Invariant: whoever is over a limit holds no permit of the process. It gets a short answer and is closed at once;
//! what it still sends is discarded for a moment, so that it reads the answer and not a reset. Beyond a bound not
//! even that.

use std::cell::Cell;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use crate::config::Config;
use crate::handshake::Rejection;
use crate::limits::{
    AddressLimits, ConnectionPermit, IpPermit, MemoryBudget, NetworkRates, Verdict,
};
use crate::protocol::ClientNetwork;
use crate::socket::{ClientTcp, linger_and_close};
use crate::telemetry;
use crate::telemetry::messages::LocalLimit;

/// The most refused connections of a thread that are read from until their clients close.
const MAX_LINGERING: usize = 128;

/// How long a refused connection is waited for to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(250);

/// How long, and for how many bytes, a refused connection is read from. The bytes are discarded.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// When a client may try again if that is not known.
const RETRY_SECONDS: u64 = 5;
/// When an address with too many open connections may try again.
const RETRY_ADDRESS_SECONDS: u64 = 10;

/// The limits that all threads share. Cheap to clone.
#[derive(Clone)]
pub struct ClientLimits {
    addresses: AddressLimits,
    requests: NetworkRates,
    memory: MemoryBudget,
    /// A connection with this descriptor or a higher one is refused: the kernel gives out the lowest that is free,
    /// so all below are in use, and the rest is reserved.
    reserved_from: RawFd,
}

/// Why a connection is refused when it is accepted.
struct Refusal {
    limit: LocalLimit,
    retry_after: u64,
}

/// A place among the refused connections of this thread that are not closed yet.
pub(super) struct LingerPlace(Rc<Cell<usize>>);

/// The refused connections of a thread that are not closed yet.
#[derive(Default)]
pub(super) struct LingerPlaces(Rc<Cell<usize>>);

impl LingerPlaces {
    pub fn acquire(&self) -> Option<LingerPlace> {
        let taken = self.0.get();
        (taken < MAX_LINGERING).then(|| {
            self.0.set(taken + 1);
            LingerPlace(Rc::clone(&self.0))
        })
    }
}

impl Drop for LingerPlace {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl ClientLimits {
    /// Connections of the public port leave the descriptors from `reserved_from` on to others.
    pub fn new(reserved_from: RawFd, memory: MemoryBudget) -> Self {
        // A quarter, since each connection may take another descriptor to an upstream.
        let share_of_descriptors = usize::try_from(reserved_from / 4).unwrap_or(1).max(1);
        Self {
            addresses: AddressLimits { share_of_descriptors, ..AddressLimits::default() },
            requests: NetworkRates::default(),
            memory,
            reserved_from,
        }
    }

    /// What is counted by client address.
    pub(super) fn addresses(&self) -> AddressLimits {
        self.addresses.clone()
    }

    /// Admits a connection, or answers and closes it.
    pub(super) fn admit(
        &self,
        stream: ClientTcp,
        peer: IpAddr,
        config: &Config,
        places: &LingerPlaces,
    ) -> Option<(ClientTcp, ConnectionPermit, Option<IpPermit>)> {
        let checked = self.check_descriptor(&stream).and_then(|()| {
            let ip = self.check_address(peer, config)?;
            Ok((self.check_process(config)?, ip))
        });
        match checked {
            Ok((process, ip)) => Some((stream, process, ip)),
            Err(refusal) => {
                self.refuse(stream, peer, config, refusal, places);
                None
            }
        }
    }

    /// Admits a connection whose client is not known yet, or answers and closes it.
    pub(super) fn admit_proxied(
        &self,
        stream: ClientTcp,
        peer: IpAddr,
        config: &Config,
        places: &LingerPlaces,
    ) -> Option<(ClientTcp, ConnectionPermit)> {
        match self.check_descriptor(&stream).and_then(|()| self.check_process(config)) {
            Ok(process) => Some((stream, process)),
            Err(refusal) => {
                self.refuse(stream, peer, config, refusal, places);
                None
            }
        }
    }

    /// Admits such a connection of the client `ip`, or answers and closes it.
    pub(super) fn admit_client(
        &self,
        stream: ClientTcp,
        ip: IpAddr,
        config: &Config,
        places: &LingerPlaces,
    ) -> Option<(ClientTcp, Option<IpPermit>)> {
        match self.check_address(ip, config) {
            Ok(permit) => Some((stream, permit)),
            Err(refusal) => {
                self.refuse(stream, ip, config, refusal, places);
                None
            }
        }
    }

    fn refuse(
        &self,
        stream: ClientTcp,
        ip: IpAddr,
        config: &Config,
        Refusal { limit, retry_after }: Refusal,
        places: &LingerPlaces,
    ) {
        let network = ClientNetwork::of(ip, config.limits.ipv6_prefix);
        telemetry::connections::connection_refused(limit, network);
        // While descriptors are short, none is held for politeness.
        let is_roomy = stream.as_raw_fd() < self.reserved_from / 2;
        let place = is_roomy.then(|| places.acquire()).flatten();
        match config.server.tls {
            None => refuse(stream, refusal(limit, retry_after), place),
            Some(_) => refuse(stream, TLS_REFUSAL.into(), place),
        }
    }

    fn check_descriptor(&self, stream: &ClientTcp) -> Result<(), Refusal> {
        match stream.as_raw_fd() < self.reserved_from {
            true => Ok(()),
            false => Err(Refusal { limit: LocalLimit::Descriptors, retry_after: RETRY_SECONDS }),
        }
    }

    fn check_process(&self, config: &Config) -> Result<ConnectionPermit, Refusal> {
        let process = self.addresses.counts.acquire(config.server.max_connections);
        let limit = LocalLimit::ConnectionsTotal;
        process.ok_or(Refusal { limit, retry_after: RETRY_SECONDS })
    }

    fn check_address(&self, peer: IpAddr, config: &Config) -> Result<Option<IpPermit>, Refusal> {
        let refused = |limit, retry_after| Refusal { limit, retry_after };
        let network = ClientNetwork::of(peer, config.limits.ipv6_prefix);
        if self.memory.refuses(network) {
            return Err(refused(LocalLimit::Memory, RETRY_SECONDS));
        }
        // Behind a trusted proxy, the client's address is only known from the request.
        if is_trusted(peer, config) {
            return Ok(None);
        }
        if let Verdict::Refused { retry_after } =
            self.addresses.connects.take(network, config.limits.connects_per_ip)
        {
            return Err(refused(LocalLimit::ConnectsPerIp, whole_seconds(retry_after)));
        }
        let permit =
            self.addresses.counts.acquire_ip(network, self.addresses.max_connections(config));
        permit.map(Some).ok_or_else(|| refused(LocalLimit::ConnectionsPerIp, RETRY_ADDRESS_SECONDS))
    }

    /// Refuses a WebSocket while this node has no memory for it.
    pub(super) fn check_memory(&self, ip: IpAddr, config: &Config) -> Result<(), Rejection> {
        if self.memory.refuses(ClientNetwork::of(ip, config.limits.ipv6_prefix)) {
            telemetry::messages::local_limit_refused(LocalLimit::Memory);
            return Err(Rejection::memory());
        }
        Ok(())
    }

    /// Acquires a permit of the process for a WebSocket that shares its connection with others.
    pub(super) fn acquire_process(&self, config: &Config) -> Result<ConnectionPermit, Rejection> {
        self.check_process(config).map_err(|refusal| {
            telemetry::messages::local_limit_refused(refusal.limit);
            Rejection::node_full()
        })
    }

    /// Counts a WebSocket handshake as a new connection of `ip`.
    pub(super) fn take_connect(&self, ip: IpAddr, config: &Config) -> Result<(), Rejection> {
        let network = ClientNetwork::of(ip, config.limits.ipv6_prefix);
        match self.addresses.connects.take(network, config.limits.connects_per_ip) {
            Verdict::Allowed => Ok(()),
            Verdict::Refused { retry_after } => {
                telemetry::messages::local_limit_refused(LocalLimit::ConnectsPerIp);
                Err(Rejection::connects_per_ip(retry_after))
            }
        }
    }

    /// Counts a request of `ip` that is not a WebSocket handshake.
    pub(super) fn take_request(&self, ip: IpAddr, config: &Config) -> Result<(), Rejection> {
        let network = ClientNetwork::of(ip, config.limits.ipv6_prefix);
        match self.requests.take(network, config.limits.requests_per_ip) {
            Verdict::Allowed => Ok(()),
            Verdict::Refused { retry_after } => {
                telemetry::connections::connection_refused(LocalLimit::RequestsPerIp, network);
                Err(Rejection::requests_per_ip(retry_after))
            }
        }
    }

    /// Acquires a permit for a connection, or a request in progress, of a client behind a trusted proxy.
    pub(super) fn acquire_ip(&self, ip: IpAddr, config: &Config) -> Result<IpPermit, Rejection> {
        let network = ClientNetwork::of(ip, config.limits.ipv6_prefix);
        let permit =
            self.addresses.counts.acquire_ip(network, self.addresses.max_connections(config));
        permit.ok_or_else(|| {
            telemetry::connections::connection_refused(LocalLimit::ConnectionsPerIp, network);
            Rejection::connections_per_ip()
        })
    }
}

/// Whether `peer` is a proxy that is trusted to say who its clients are.
pub(super) fn is_trusted(peer: IpAddr, config: &Config) -> bool {
    config.server.trusted_proxies.iter().any(|network| network.contains(&peer))
}

/// Returns the network that a connection belongs to; `None` if the address of its peer does not tell that.
pub(super) fn network_of(peer: IpAddr, config: &Config) -> Option<ClientNetwork> {
    let tells = !is_trusted(peer, config) && config.server.tells_addresses_apart();
    tells.then(|| ClientNetwork::of(peer, config.limits.ipv6_prefix))
}

fn whole_seconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

/// The alert `internal_error` (RFC 8446 section 6), in clear. TLS has none for a server that takes no more connections.
const TLS_REFUSAL: &[u8] = &[21, 3, 3, 0, 2, 2, 80];

/// The answer to a connection whose request is not read.
fn refusal(limit: LocalLimit, retry_after: u64) -> Vec<u8> {
    let (status, error, code) = match limit {
        LocalLimit::ConnectsPerIp | LocalLimit::ConnectionsPerIp => {
            ("429 Too Many Requests", "too many connections", "too_many_connections")
        }
        _ => ("503 Service Unavailable", "this node takes no more connections", "overloaded"),
    };
    let body = format!(r#"{{"error":"{error}","code":"{code}"}}"#);
    format!(
        "HTTP/1.1 {status}\r\nretry-after: {retry_after}\r\ncontent-type: application/json\r\n\
         cache-control: no-store\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Answers a connection, and closes it: at once if there is no `place` for it.
fn refuse(stream: ClientTcp, response: Vec<u8>, place: Option<LingerPlace>) {
    let Some(place) = place else {
        // A new connection has room for this. A client that does not get it sees that the connection was closed.
        let _ = stream.try_write(&response);
        return;
    };
    tokio::task::spawn_local(async move {
        let _place = place;
        // Some clients take an answer before their request for an error of the protocol.
        let _ = tokio::time::timeout(
            REQUEST_TIMEOUT,
            std::future::poll_fn(|cx| stream.poll_peek(cx, &mut [0])),
        )
        .await;
        let _ = stream.try_write(&response);
        // Whether the client reads the answer or not, the connection is closed when this ends.
        linger_and_close(stream, LINGER_TIMEOUT, LINGER_BYTES).await;
    });
}
