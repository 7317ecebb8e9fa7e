//! A port for a server that is told which one to listen on, or for an address at which nothing listens.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Systems give outgoing connections ports from 32768 (Linux) or 49152 (RFC 6335, section 6) on. Below, no connection
/// of another process takes a port between this choice and the server's start, or while the server restarts.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_768;

/// Returns the address of a port of loopback on which nothing listens. Tests run in processes of their own: each
/// process begins elsewhere.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let place = std::process::id() * 31 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + place % COUNT).expect("below 32768");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
