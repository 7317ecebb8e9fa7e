//! The listening sockets of both ports. They are bound before anything is served, or inherited from the process that
//! started this one.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::{Addresses, StartError};
use crate::config::Config;

/// The most connections that the kernel queues for each worker until they are accepted; it may allow less
/// (`net.core.somaxconn`). What does not fit must repeat its SYN, after a second and then two: when a node dies, its clients
/// come to the others at once.
const BACKLOG: i32 = 16 * 1024;

/// A client that was silent for so long is probed, which its system answers. One that answers no probe is gone. Open
/// WebSockets send pings of their own and are seldom silent for so long.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// Listening sockets that systemd passes on (`sd_listen_fds(3)`): `LISTEN_FDS` in the environment counts
/// them, and `LISTEN_FDNAMES` names one `admin` and one `redirect`. All others belong to the public port.
#[derive(Default)]
pub struct Inherited {
    public: Vec<TcpListener>,
    admin: Option<TcpListener>,
    redirect: Option<TcpListener>,
}

impl Inherited {
    /// Takes the sockets that the environment names. Must be called before the process has threads.
    ///
    /// # Errors
    /// A text that names the first socket that is not a listening TCP socket.
    pub fn take() -> Result<Self, String> {
        // The variable stays in the environment: without `LISTEN_FDS` it has no meaning.
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..sockets.len() {
            let name = names.next().unwrap_or_default();
            let invalid = |reason: &dyn std::fmt::Display| {
                format!("socket {} {name:?} of LISTEN_FDS: {reason}", index + 1)
            };
            let listener = sockets.take_tcp_listener(index).map_err(|error| invalid(&error))?;
            let listener = listener.ok_or_else(|| invalid(&"already taken"))?;
            listener.set_nonblocking(true).map_err(|error| invalid(&error))?;
            match name {
                "admin" if inherited.admin.is_some() => {
                    return Err(invalid(&"there is more than one admin socket"));
                }
                "admin" => inherited.admin = Some(listener),
                "redirect" if inherited.redirect.is_some() => {
                    return Err(invalid(&"there is more than one redirect socket"));
                }
                "redirect" => inherited.redirect = Some(listener),
                _ => inherited.public.push(listener),
            }
        }
        Ok(inherited)
    }
}

/// The public socket of each worker, and the socket of the admin port.
pub(super) struct Sockets {
    pub public: Vec<TcpListener>,
    pub admin: TcpListener,
    /// Where plain requests are redirected to https.
    pub redirect: Option<TcpListener>,
    /// Whether the public sockets were inherited, so that another process may accept on them too.
    pub is_inherited: bool,
}

impl Sockets {
    /// Binds the sockets that were not inherited.
    pub fn bind(config: &Config, inherited: Inherited) -> Result<Self, StartError> {
        let (server, admin) = (&config.server, &config.admin);
        let is_inherited = !inherited.public.is_empty();
        let public = match inherited.public.is_empty() {
            true => bind_public(server.listen, server.threads, server.reuse_port)?,
            false => distribute(inherited.public, server.threads)?,
        };
        public.iter().for_each(prepare_connections);
        let admin = match inherited.admin {
            Some(listener) => listener,
            None => bind_admin(admin.listen)?,
        };
        let redirect = server.tls.as_ref().and_then(|tls| tls.redirect);
        let redirect = match inherited.redirect {
            Some(listener) if redirect.is_some() => Some(listener),
            _ => redirect
                .map(|redirect| bind_redirect(redirect.listen, server.reuse_port))
                .transpose()?,
        };
        Ok(Self { public, admin, redirect, is_inherited })
    }

    pub fn addresses(&self) -> std::io::Result<Addresses> {
        let redirect = self.redirect.as_ref().map(TcpListener::local_addr).transpose()?;
        let (public, admin) = (self.public[0].local_addr()?, self.admin.local_addr()?);
        Ok(Addresses { public, admin, redirect })
    }
}

/// Returns a socket for each of `count` workers. Several workers may share one socket.
fn distribute(sockets: Vec<TcpListener>, count: usize) -> Result<Vec<TcpListener>, StartError> {
    if sockets.len() > count {
        let (inherited, key) = (sockets.len(), "server.threads");
        let what =
            format!("{key}: {inherited} public sockets were inherited by only {count} threads");
        return Err(StartError::Setting(what));
    }
    let copies = (0..count).map(|worker| sockets[worker % sockets.len()].try_clone());
    copies.collect::<Result<_, _>>().map_err(|error| {
        let what = "the inherited public socket";
        StartError::System { what, error }
    })
}

/// Binds one socket for each worker, all on the same port. `SO_REUSEPORT` would let a second gateway bind the
/// same port unnoticed, so a socket without the option is bound first, unless the port is `shared`.
fn bind_public(
    address: SocketAddr,
    count: usize,
    shared: bool,
) -> Result<Vec<TcpListener>, StartError> {
    let bind_error = |error| StartError::Bind { key: "server.listen", address, error };
    if address.port() != 0 && !shared {
        listening_socket(address, false).map_err(bind_error)?;
    }
    let mut listeners = Vec::with_capacity(count);
    let mut address = address;
    for _ in 0..count {
        let socket = listening_socket(address, true).map_err(bind_error)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr().map_err(bind_error)?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn bind_redirect(address: SocketAddr, shared: bool) -> Result<TcpListener, StartError> {
    let key = "server.tls.redirect";
    let socket = listening_socket(address, shared);
    socket.map(TcpListener::from).map_err(|error| StartError::Bind { key, address, error })
}

fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    listening_socket(address, false).map(TcpListener::from).map_err(|error| StartError::Bind {
        key: "admin.listen",
        address,
        error,
    })
}

/// Sets what accepted connections inherit. A client that vanished while it waits for a long answer sends nothing more, not
/// even an end.
fn prepare_connections(listener: &TcpListener) {
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_INTERVAL)
        .with_retries(PROBES);
    // Without it such a client is only noticed when it is written to.
    let _ = SockRef::from(listener).set_tcp_keepalive(&probes);
    // Without it connections work as well, only slower.
    let _ = SockRef::from(listener).set_tcp_nodelay(true);
}

fn listening_socket(address: SocketAddr, shared: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
