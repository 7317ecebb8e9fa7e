//! The handshake of one connection.
//!
//! It has no time limit of its own: its caller has one. rustls is given one record at a time, so that it never opens what
//! comes behind the handshake; those records are the caller's.

use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{AlertDescription, Error, HandshakeKind, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::records::{MAX_RECORD, RecordError, Records, record_length};

/// The most bytes of a client that wait for the rest of a message. A message has at most 64 KiB, and no honest one is
/// nearly as large.
const MAX_WAITING: usize = 80 * 1024;

/// The first byte of a connection that speaks TLS.
const HANDSHAKE: u8 = 22;

/// The alert `decode_error` (RFC 8446 section 6), in clear.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// What a client gets that speaks HTTP in clear.
pub const TLS_EXPECTED: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
      content-length: 73\r\nconnection: close\r\n\r\n\
      {\"error\":\"this port speaks TLS: use https or wss\",\"code\":\"tls_expected\"}\n";

/// A connection whose handshake is over.
#[derive(Debug)]
pub struct Accepted {
    pub records: Records,
    /// What came behind the handshake, as it came: the beginning of the records to open.
    pub early: Vec<u8>,
    /// The protocol that was agreed on in ALPN; `None` = the client did not ask.
    pub protocol: Option<Vec<u8>>,
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// Whether an earlier session was resumed.
    pub is_resumed: bool,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum HandshakeFailure {
    /// The client speaks HTTP in clear.
    PlainHttp,
    /// The client speaks neither TLS nor HTTP.
    NotTls,
    /// The client closed the connection, or it broke.
    Closed,
    /// The client has ended the handshake with an alert: it does not trust the certificate, for example.
    Alert(AlertDescription),
    /// There is no version, cipher suite, signature or protocol (ALPN) that both sides know.
    NothingShared(Error),
    /// The client has no certificate, or not one that is trusted here.
    ClientCertificate(Error),
    /// The client has broken the protocol.
    Protocol(Error),
}

/// Runs the handshake of a server.
///
/// # Errors
/// There is no connection. The client has its alert already, as far as it took it at once.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    config: Arc<ServerConfig>,
) -> Result<Accepted, HandshakeFailure> {
    let connection = UnbufferedServerConnection::new(config).map_err(HandshakeFailure::Protocol)?;
    let mut handshake = Handshake {
        connection,
        incoming: Vec::new(),
        given: 0,
        outgoing: Vec::new(),
        has_begun: false,
        has_answered: false,
    };
    loop {
        let stepped = handshake.step();
        if stepped.is_err() && handshake.outgoing.is_empty() && !handshake.has_answered {
            // rustls has no alert for what is not even a message.
            handshake.outgoing.extend(DECODE_ERROR);
        }
        if !handshake.outgoing.is_empty() {
            handshake.has_answered = true;
            let written = stream.write_all(&handshake.outgoing).await;
            handshake.outgoing.clear();
            if stepped.is_ok() {
                written.map_err(|_| HandshakeFailure::Closed)?;
            }
        }
        if stepped? {
            return handshake.finish();
        }
        handshake.read(stream).await?;
    }
}

struct Handshake {
    connection: UnbufferedServerConnection,
    /// What has been read, and not been used up.
    incoming: Vec<u8>,
    /// How much of it rustls has been given: whole records.
    given: usize,
    outgoing: Vec<u8>,
    /// Whether anything has come, and whether anything was sent.
    has_begun: bool,
    has_answered: bool,
}

impl Handshake {
    /// Makes everything that can be made of what has been read. Returns whether the handshake is over.
    fn step(&mut self) -> Result<bool, HandshakeFailure> {
        loop {
            let given = &mut self.incoming[..self.given];
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(given);
            let mut needs_more = false;
            let failed = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut self.outgoing, |out| data.encode(out)).err()
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                    needs_more = true;
                    None
                }
                // The client has ended what has hardly begun.
                Ok(_) => return Err(HandshakeFailure::Closed),
                Err(error) => Some(error),
            };
            self.incoming.drain(..discard);
            self.given -= discard;
            if let Some(error) = failed {
                self.encode_alert();
                return Err(error.into());
            }
            if needs_more {
                if !self.connection.is_handshaking() {
                    return Ok(true);
                }
                if !self.give_record()? {
                    return Ok(false);
                }
            }
        }
    }

    /// Gives one more record, if it has come whole.
    fn give_record(&mut self) -> Result<bool, HandshakeFailure> {
        let next = &self.incoming[self.given..];
        match record_length(next)? {
            Some(length) if length <= next.len() => {
                self.given += length;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Result<(), HandshakeFailure> {
        if self.incoming.len() >= MAX_WAITING {
            return Err(RecordError::TooLong.into());
        }
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        self.incoming.reserve(MAX_RECORD.min(4096));
        match stream.read_buf(&mut self.incoming).await {
            Ok(0) | Err(_) => Err(HandshakeFailure::Closed),
            Ok(_) if is_first && self.incoming[0] != HANDSHAKE => {
                Err(match self.incoming[0].is_ascii_uppercase() {
                    true => HandshakeFailure::PlainHttp,
                    false => HandshakeFailure::NotTls,
                })
            }
            Ok(_) => Ok(()),
        }
    }

    /// Appends the alert of a handshake that has failed, and what comes before it: the key that it may be sealed with.
    fn encode_alert(&mut self) {
        loop {
            // rustls may look at what it was given again, and fails again when everything is encoded.
            let (given, start) = (&mut self.incoming[..self.given], self.outgoing.len());
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(given);
            let is_encoded = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut self.outgoing, |out| data.encode(out)).is_ok()
                }
                // Without an alert the client sees that the connection was closed.
                _ => false,
            };
            self.incoming.drain(..discard);
            self.given -= discard;
            // In clear, or sealed with a key of TLS 1.3. Nothing comes behind it, and rustls must not go on.
            let is_alert = |bytes: &[u8]| match bytes.len() {
                7 => bytes[0] == 21,
                24 => bytes[0] == 23,
                _ => false,
            };
            if !is_encoded || is_alert(&self.outgoing[start..]) {
                return;
            }
        }
    }

    fn finish(self) -> Result<Accepted, HandshakeFailure> {
        let Self { connection, incoming, .. } = self;
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2",
        };
        let protocol = connection.alpn_protocol().map(<[u8]>::to_vec);
        let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let (secrets, connection) = connection.dangerous_into_kernel_connection()?;
        let records = Records::new(secrets, connection);
        Ok(Accepted { records, early: incoming, protocol, version, is_resumed })
    }
}

/// Appends what `write` writes into a buffer that is large enough.
fn encode(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), Error> {
    let start = out.len();
    loop {
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) => out.resize(start + size.required_size, 0),
            Err(EncodeError::AlreadyEncoded) => return Ok(()),
        }
    }
}

impl From<RecordError> for HandshakeFailure {
    fn from(error: RecordError) -> Self {
        Self::Protocol(Error::General(error.to_string()))
    }
}

impl From<Error> for HandshakeFailure {
    fn from(error: Error) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::Alert(alert),
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::NothingShared(error),
            Error::NoCertificatesPresented | Error::InvalidCertificate(_) => {
                Self::ClientCertificate(error)
            }
            error => Self::Protocol(error),
        }
    }
}

#[cfg(test)]
mod tests;
