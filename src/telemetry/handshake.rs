//! Facts about handshake.
