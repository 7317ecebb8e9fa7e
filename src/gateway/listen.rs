//! The sockets that clients and servers connect to: bound before anything is served, or handed over by
//! whoever started the process.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Addresses, StartError};
use crate::config::Config;

/// Connections that the kernel keeps for each worker until they are accepted.
const BACKLOG: i32 = 1024;

/// Sockets that listen already, as systemd hands them over (`sd_listen_fds(3)`): the environment's
/// `LISTEN_FDS` counts them, and `LISTEN_FDNAMES` says which one is called `admin`. All others are the
/// public port's.
#[derive(Default)]
pub struct Inherited {
    public: Vec<TcpListener>,
    admin: Option<TcpListener>,
}

impl Inherited {
    /// Takes them from the environment; call it before the process has threads. `Err` says which one is no
    /// listening TCP socket.
    pub fn take() -> Result<Self, String> {
        // The names outlive this, which hurts nobody: without their count they mean nothing.
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut all = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..all.len() {
            let name = names.next().unwrap_or_default();
            let wrong = |what: &dyn std::fmt::Display| {
                format!("socket {} {name:?} of LISTEN_FDS: {what}", index + 1)
            };
            let listener = all.take_tcp_listener(index).map_err(|error| wrong(&error))?;
            let listener = listener.ok_or_else(|| wrong(&"taken already"))?;
            listener.set_nonblocking(true).map_err(|error| wrong(&error))?;
            match name {
                "admin" if inherited.admin.is_some() => return Err(wrong(&"a second one")),
                "admin" => inherited.admin = Some(listener),
                _ => inherited.public.push(listener),
            }
        }
        Ok(inherited)
    }
}

/// One socket a worker, and one of the admin port.
pub(super) struct Sockets {
    pub public: Vec<TcpListener>,
    pub admin: TcpListener,
    /// Those of the public port were inherited.
    pub handed_over: bool,
}

impl Sockets {
    /// What was not inherited is bound.
    pub fn bind(config: &Config, inherited: Inherited) -> Result<Self, StartError> {
        let (server, admin) = (&config.server, &config.admin);
        let handed_over = !inherited.public.is_empty();
        let public = match inherited.public.is_empty() {
            true => bind_public(server.listen, server.threads, server.reuse_port)?,
            false => share_out(inherited.public, server.threads)?,
        };
        let admin = match inherited.admin {
            Some(listener) => listener,
            None => bind_admin(admin.listen)?,
        };
        Ok(Self { public, admin, handed_over })
    }

    pub fn addresses(&self) -> std::io::Result<Addresses> {
        Ok(Addresses { public: self.public[0].local_addr()?, admin: self.admin.local_addr()? })
    }
}

/// A socket for each of `count` workers; some take clients from the same one.
fn share_out(sockets: Vec<TcpListener>, count: usize) -> Result<Vec<TcpListener>, StartError> {
    if sockets.len() > count {
        let (given, key) = (sockets.len(), "server.threads");
        let what = format!("{key}: {given} public sockets were handed over to {count} threads");
        return Err(StartError::Setting(what));
    }
    let copies = (0..count).map(|worker| sockets[worker % sockets.len()].try_clone());
    copies.collect::<Result<_, _>>().map_err(|error| {
        let what = "the public socket that was handed over";
        StartError::System { what, error }
    })
}

/// One socket a worker on the same port. `SO_REUSEPORT` would also let a second gateway join in silence,
/// so a socket without it must be able to have the port first, unless a second one is `welcome`.
fn bind_public(
    address: SocketAddr,
    count: usize,
    welcome: bool,
) -> Result<Vec<TcpListener>, StartError> {
    let wrong = |error| StartError::Bind { key: "server.listen", address, error };
    if address.port() != 0 && !welcome {
        listening_socket(address, false).map_err(wrong)?;
    }
    let mut listeners = Vec::with_capacity(count);
    let mut address = address;
    for _ in 0..count {
        let socket = listening_socket(address, true).map_err(wrong)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr().map_err(wrong)?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    listening_socket(address, false).map(TcpListener::from).map_err(|error| StartError::Bind {
        key: "admin.listen",
        address,
        error,
    })
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
