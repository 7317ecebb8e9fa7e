//! One direction of a connection: its secret, and what protects one record with it.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

use super::{APPLICATION_DATA, HEADER, MAX_PLAINTEXT, RecordError, TAG};

const MAX_PAYLOAD_13: usize = MAX_PLAINTEXT + 256;
const EXPLICIT_NONCE: usize = 8;

/// One direction of a connection.
pub(super) struct Direction {
    pub secrets: ConnectionTrafficSecrets,
    /// The number of the next record.
    pub sequence: u64,
}

impl Direction {
    /// Returns the content type and the plaintext of a record.
    pub fn open_tls13<'a>(&self, record: &'a mut [u8]) -> Result<(u8, &'a [u8]), RecordError> {
        let (head, sealed) = record.split_at_mut_checked(HEADER).ok_or(RecordError::Malformed)?;
        if head[0] != APPLICATION_DATA {
            return Err(RecordError::Unexpected);
        }
        if sealed.len() > MAX_PAYLOAD_13 {
            return Err(RecordError::TooLong);
        }
        let (key, iv) = key(&self.secrets)?;
        let nonce = Nonce::assume_unique_for_key(nonce(iv, self.sequence));
        let opened = key.open_in_place(nonce, Aad::from(&*head), sealed);
        let opened: &[u8] = opened.map_err(|_| RecordError::BadRecord)?;
        // Behind the content there may be any number of zeros.
        let end = opened.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Unexpected)?;
        if end > MAX_PLAINTEXT {
            return Err(RecordError::TooLong);
        }
        Ok((opened[end], &opened[..end]))
    }

    pub fn open_tls12<'a>(&self, record: &'a mut [u8]) -> Result<(u8, &'a [u8]), RecordError> {
        let (head, sealed) = record.split_at_mut_checked(HEADER).ok_or(RecordError::Malformed)?;
        let content = head[0];
        let (key, iv) = key(&self.secrets)?;
        let (nonce, sealed) = if has_explicit_nonce(&self.secrets) {
            let (explicit, sealed) =
                sealed.split_at_mut_checked(EXPLICIT_NONCE).ok_or(RecordError::BadRecord)?;
            let mut nonce = *iv;
            nonce[4..].copy_from_slice(explicit);
            (nonce, sealed)
        } else {
            (nonce(iv, self.sequence), sealed)
        };
        let length = sealed.len().checked_sub(TAG).ok_or(RecordError::BadRecord)?;
        if length > MAX_PLAINTEXT {
            return Err(RecordError::TooLong);
        }
        let aad = Aad::from(aad_of_tls12(self.sequence, content, length));
        let opened = key.open_in_place(Nonce::assume_unique_for_key(nonce), aad, sealed);
        Ok((content, opened.map_err(|_| RecordError::BadRecord)?))
    }
}

/// AES-GCM in TLS 1.2 sends a part of the nonce with each record (RFC 5288 section 3).
pub(super) fn has_explicit_nonce(secrets: &ConnectionTrafficSecrets) -> bool {
    !matches!(secrets, ConnectionTrafficSecrets::Chacha20Poly1305 { .. })
}

pub(super) fn key(
    secrets: &ConnectionTrafficSecrets,
) -> Result<(LessSafeKey, &[u8; 12]), RecordError> {
    let (algorithm, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
        _ => return Err(RecordError::Exhausted),
    };
    let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Exhausted)?;
    let iv = iv.as_ref().try_into().map_err(|_| RecordError::Exhausted)?;
    Ok((LessSafeKey::new(key), iv))
}

/// The nonce of a record (RFC 8446 section 5.3). TLS 1.2 may use any that does not repeat.
pub(super) fn nonce(iv: &[u8; 12], sequence: u64) -> [u8; 12] {
    let mut nonce = *iv;
    for (byte, of_sequence) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *byte ^= of_sequence;
    }
    nonce
}

/// What a record of TLS 1.2 authenticates besides its contents (RFC 5246 section 6.2.3.3).
pub(super) fn aad_of_tls12(sequence: u64, content: u8, length: usize) -> [u8; 13] {
    let mut aad = [0; 13];
    aad[..8].copy_from_slice(&sequence.to_be_bytes());
    aad[8..11].copy_from_slice(&[content, 3, 3]);
    aad[11..].copy_from_slice(&(length as u16).to_be_bytes());
    aad
}
