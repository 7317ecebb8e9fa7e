//! The sockets that are bound before anything is served.

use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;

/// Connections that the kernel keeps for each worker until they are accepted.
const BACKLOG: i32 = 1024;

/// One socket a worker on the same port. `SO_REUSEPORT` would also let a second gateway join in silence,
/// so a socket without it must be able to have the port first.
pub(super) fn bind_public(
    address: SocketAddr,
    count: usize,
) -> Result<Vec<std::net::TcpListener>, StartError> {
    let wrong = |error| StartError::Bind { key: "server.listen", address, error };
    if address.port() != 0 {
        listening_socket(address, false).map_err(wrong)?;
    }
    let mut listeners = Vec::with_capacity(count);
    let mut address = address;
    for _ in 0..count {
        let socket = listening_socket(address, true).map_err(wrong)?;
        let listener = std::net::TcpListener::from(socket);
        address = listener.local_addr().map_err(wrong)?;
        listeners.push(listener);
    }
    Ok(listeners)
}

pub(super) fn bind_admin(address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    listening_socket(address, false)
        .map(std::net::TcpListener::from)
        .map_err(|error| StartError::Bind { key: "admin.listen", address, error })
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
