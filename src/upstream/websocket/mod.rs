//! Sockets to WebSocket servers, one for each client socket. They carry whole messages in both directions.
//!
//! `handshake` opens a socket, `socket` reads and writes its frames, and `pass` opens one in a client's name.

mod handshake;
mod pass;
mod socket;

pub(super) use handshake::{connect, url};
pub use pass::{ClientHandshake, PassRefusal, PassedUpstream, is_of_handshake};
pub(super) use pass::{pass, request_head};
pub use socket::{FromUpstream, SocketEnd, UpstreamSocket};
