//! TLS 1.2 and 1.3 on the server's side: certificates, handshakes, and the records of a connection whose handshake is over.
//!
//! The handshake is rustls'. What is left of a connection afterwards is two keys with their sequence numbers: [`Records`]
//! protects what is sent and opens what comes in buffers of its caller, so that an idle connection has none. Nothing here
//! reads or writes files and sockets, but for the handshake, which is given a byte stream.
//!
//! Invariant: a record is opened once and in order, and each is sealed under a number of its own. Whatever fails ends the
//! connection.

mod certificate;
mod challenge;
mod der;
mod handshake;
mod records;
mod server_config;

pub use certificate::{Certificate, CertificateMistake, check_authorities};
pub use challenge::{ACME_PROTOCOL, ChallengeDigests};
pub use handshake::{Accepted, HandshakeFailure, TLS_EXPECTED, accept};
pub use records::{MAX_PLAINTEXT, MAX_RECORD, Opened, RecordError, Records, record_length};
pub use server_config::{MinVersion, ServerCertificates, Tickets};

pub use rustls::ServerConfig;
