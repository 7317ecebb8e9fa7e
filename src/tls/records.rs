//! The records of a connection whose handshake is over (RFC 8446 section 5, RFC 5246 section 6.2 with RFC 5288 and 7905).
//!
//! What is kept for each direction is its secret and the number of its next record. The schedule of the cipher, about
//! 600 bytes, is made for each record: that takes a fraction of what writing the record to the kernel takes.
//!
//! Invariant: after an error nothing more is opened, and after `close_notify` was sealed nothing more is sealed.

mod direction;

use std::fmt;

use aws_lc_rs::aead::{Aad, Nonce};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ExtractedSecrets, ProtocolVersion};

use self::direction::{Direction, aad_of_tls12, has_explicit_nonce, key, nonce};

/// The most bytes of plaintext in a record (RFC 8446 section 5.1).
pub const MAX_PLAINTEXT: usize = 1 << 14;

/// The bytes in front of a record's payload.
const HEADER: usize = 5;

/// The longest record, header included, in TLS 1.2, which allows more than 1.3.
pub const MAX_RECORD: usize = HEADER + MAX_PLAINTEXT + 2048;

const TAG: usize = 16;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const CLIENT_HELLO: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const NO_RENEGOTIATION: u8 = 100;

/// After so many records a key has protected enough (RFC 8446 section 5.5). TLS 1.3 then changes it, TLS 1.2 ends.
const MAX_RECORDS: u64 = 1 << 24;

/// How many records without data a peer may send in a row. An honest one sends one or two.
const MAX_EMPTY: u8 = 32;

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// A record is not one of the peer's, or was changed on its way.
    BadRecord,
    TooLong,
    /// A record that is not allowed here.
    Unexpected,
    /// A record whose contents are malformed.
    Malformed,
    /// The peer has sent a fatal alert.
    Alert(u8),
    /// This side cannot protect more.
    Exhausted,
    /// This side has ended its half.
    Closed,
}

impl RecordError {
    /// The alert that the peer gets (RFC 8446 section 6); `None` = none.
    fn alert(self) -> Option<u8> {
        match self {
            Self::BadRecord => Some(20),
            Self::TooLong => Some(22),
            Self::Unexpected => Some(10),
            Self::Malformed => Some(50),
            Self::Alert(_) | Self::Exhausted | Self::Closed => None,
        }
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRecord => f.write_str("a TLS record could not be opened"),
            Self::TooLong => f.write_str("a TLS record is too long"),
            Self::Unexpected => f.write_str("a TLS record that is not allowed here"),
            Self::Malformed => f.write_str("a malformed TLS record"),
            Self::Alert(alert) => write!(f, "the client sent the TLS alert {alert}"),
            Self::Exhausted => f.write_str("the TLS key is used up"),
            Self::Closed => f.write_str("this side of the TLS connection has ended"),
        }
    }
}

impl std::error::Error for RecordError {}

/// What a record holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    Data(&'a [u8]),
    /// Nothing for the application. What has to be answered was appended to the output.
    Nothing,
    /// `close_notify`: the peer sends nothing more.
    Closed,
}

/// The length of the record that begins with `bytes`, its header included. `None` while that is not known.
///
/// # Errors
/// It is not the header of a record, or it is too long.
pub fn record_length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[content, major, _, high, low]) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    if !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&content) || major != 3 {
        return Err(RecordError::Unexpected);
    }
    let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_RECORD { Err(RecordError::TooLong) } else { Ok(Some(length)) }
}

/// Both directions of a connection.
pub struct Records {
    sealing: Direction,
    opening: Direction,
    /// Gives the next secrets; `None` in TLS 1.2, which keeps its keys.
    updates: Option<Box<KernelConnection<ServerConnectionData>>>,
    /// How many records without data have come in a row.
    empty: u8,
    has_refused_renegotiation: bool,
    /// Whether this side's last record, an alert, is sealed.
    has_closed: bool,
}

impl Records {
    pub(super) fn new(
        secrets: ExtractedSecrets,
        connection: KernelConnection<ServerConnectionData>,
    ) -> Self {
        let direction = |(sequence, secrets)| Direction { secrets, sequence };
        let is_tls13 = connection.protocol_version() == ProtocolVersion::TLSv1_3;
        Self {
            sealing: direction(secrets.tx),
            opening: direction(secrets.rx),
            updates: is_tls13.then(|| Box::new(connection)),
            empty: 0,
            has_refused_renegotiation: false,
            has_closed: false,
        }
    }

    /// The number of the next record of this side.
    #[cfg(test)]
    pub fn sealed(&self) -> u64 {
        self.sealing.sequence
    }

    /// Appends one record with `parts`, together at most [`MAX_PLAINTEXT`], to `out`.
    ///
    /// # Errors
    /// No more may be sent with this key, or this side has ended its half.
    pub fn seal<'a>(
        &mut self,
        parts: impl IntoIterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        if self.has_closed {
            return Err(RecordError::Closed);
        }
        if self.sealing.sequence >= MAX_RECORDS {
            if self.updates.is_none() {
                return Err(RecordError::Exhausted);
            }
            self.update_sealing(false, out)?;
        }
        self.seal_as(APPLICATION_DATA, parts, out)
    }

    /// Appends `close_notify` to `out`, unless this side has ended its half.
    pub fn seal_close(&mut self, out: &mut Vec<u8>) {
        self.seal_last([1, CLOSE_NOTIFY], out);
    }

    /// Appends the alert for an error of [`Records::open`] to `out`, if there is one.
    pub fn seal_error(&mut self, error: RecordError, out: &mut Vec<u8>) {
        if let Some(alert) = error.alert() {
            self.seal_last([FATAL, alert], out);
        }
    }

    fn seal_last(&mut self, alert: [u8; 2], out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_closed, true) {
            // A key that is used up protects this last record as well.
            let _ = self.seal_as(ALERT, [&alert[..]], out);
        }
    }

    fn seal_as<'a>(
        &mut self,
        content: u8,
        parts: impl IntoIterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        let is_tls13 = self.updates.is_some();
        let Direction { secrets, sequence } = &mut self.sealing;
        let (key, iv) = key(secrets)?;
        let nonce = nonce(iv, *sequence);
        let is_explicit = !is_tls13 && has_explicit_nonce(secrets);
        let start = out.len();
        // The length is not known yet.
        out.extend([if is_tls13 { APPLICATION_DATA } else { content }, 3, 3, 0, 0]);
        if is_explicit {
            out.extend(&nonce[4..]);
        }
        let plaintext = out.len();
        parts.into_iter().for_each(|part| out.extend_from_slice(part));
        let length = out.len() - plaintext;
        debug_assert!(length <= MAX_PLAINTEXT);
        if is_tls13 {
            out.push(content);
        }
        let payload = (out.len() - start - HEADER + TAG) as u16;
        out[start + 3..start + HEADER].copy_from_slice(&payload.to_be_bytes());
        let (nonce, sealed) = (Nonce::assume_unique_for_key(nonce), &mut out[start..]);
        let (head, sealed) = sealed.split_at_mut(plaintext - start);
        let tag = if is_tls13 {
            key.seal_in_place_separate_tag(nonce, Aad::from(&*head), sealed)
        } else {
            let aad = aad_of_tls12(*sequence, content, length);
            key.seal_in_place_separate_tag(nonce, Aad::from(aad), sealed)
        };
        out.extend_from_slice(tag.map_err(|_| RecordError::Exhausted)?.as_ref());
        *sequence += 1;
        Ok(())
    }

    /// Tells the peer that this side changes its key, and changes it.
    fn update_sealing(&mut self, is_requested: bool, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let message = [&KEY_UPDATE[..], &[u8::from(is_requested)]].concat();
        self.seal_as(HANDSHAKE, [&message[..]], out)?;
        let updates = self.updates.as_mut().ok_or(RecordError::Exhausted)?;
        let (sequence, secrets) = updates.update_tx_secret().map_err(|_| RecordError::Exhausted)?;
        self.sealing = Direction { secrets, sequence };
        Ok(())
    }

    /// Opens a whole record in place. Answers to the peer are appended to `out`.
    ///
    /// # Errors
    /// The connection must end.
    pub fn open<'a>(
        &mut self,
        record: &'a mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Opened<'a>, RecordError> {
        let (content, data) = match self.updates.is_some() {
            true => self.opening.open_tls13(record)?,
            false => self.opening.open_tls12(record)?,
        };
        self.opening.sequence += 1;
        if content == APPLICATION_DATA && !data.is_empty() {
            self.empty = 0;
            return Ok(Opened::Data(data));
        }
        self.empty += 1;
        if self.empty > MAX_EMPTY {
            return Err(RecordError::Unexpected);
        }
        match content {
            APPLICATION_DATA => Ok(Opened::Nothing),
            ALERT => self.alerted(data),
            HANDSHAKE if self.updates.is_some() => self.key_updated(data, out),
            HANDSHAKE => self.refuse_renegotiation(data, out),
            _ => Err(RecordError::Unexpected),
        }
    }

    fn alerted(&self, data: &[u8]) -> Result<Opened<'static>, RecordError> {
        let &[level, alert] = data else { return Err(RecordError::Malformed) };
        match alert {
            CLOSE_NOTIFY => Ok(Opened::Closed),
            // `close_notify` follows it.
            USER_CANCELED => Ok(Opened::Nothing),
            // In TLS 1.3 the level says nothing (RFC 8446 section 6).
            _ if level == FATAL || self.updates.is_some() => Err(RecordError::Alert(alert)),
            _ => Ok(Opened::Nothing),
        }
    }

    fn key_updated(
        &mut self,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Opened<'static>, RecordError> {
        // The key changes with the next record, so a record with one has nothing else.
        let request = match data.strip_prefix(&KEY_UPDATE) {
            Some(&[request @ (0 | 1)]) => request == 1,
            Some(_) => return Err(RecordError::Malformed),
            None => return Err(RecordError::Unexpected),
        };
        let updates = self.updates.as_mut().ok_or(RecordError::Unexpected)?;
        let (sequence, secrets) = updates.update_rx_secret().map_err(|_| RecordError::Malformed)?;
        self.opening = Direction { secrets, sequence };
        if request && !self.has_closed {
            self.update_sealing(false, out)?;
        }
        Ok(Opened::Nothing)
    }

    /// TLS 1.2 allows a client to ask for another handshake, and a server to refuse it (RFC 5246 section 7.4.1.1).
    fn refuse_renegotiation(
        &mut self,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Opened<'static>, RecordError> {
        if data.first() != Some(&CLIENT_HELLO) || self.has_refused_renegotiation {
            return Err(RecordError::Unexpected);
        }
        self.has_refused_renegotiation = true;
        if !self.has_closed {
            self.seal_as(ALERT, [&[1, NO_RENEGOTIATION][..]], out)?;
        }
        Ok(Opened::Nothing)
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sequences = (self.sealing.sequence, self.opening.sequence);
        f.debug_struct("Records").field("sequences", &sequences).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
