//! Decrypts Fernet tokens (<https://github.com/fernet/spec/blob/master/Spec.md>) with the keys that channels_redis
//! derives from its `symmetric_encryption_keys`.

use aws_lc_rs::cipher::{AES_128, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use sha2::{Digest, Sha256};

use crate::config::Secret;

const VERSION: u8 = 0x80;
/// The length of version, time and initialization vector.
const HEAD: usize = 1 + 8 + 16;
/// The length of an HMAC-SHA256.
const TAG: usize = 32;
/// How many seconds the time of a token may lie in the future, as in Python's `cryptography`.
const MAX_CLOCK_SKEW: u64 = 60;

/// A key: one half of the SHA-256 of a secret signs, the other half encrypts.
pub(super) struct Fernet {
    signing: hmac::Key,
    encrypting: [u8; 16],
}

/// How long a token is valid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetime {
    /// The current time in Unix seconds.
    pub(super) now: u64,
    /// How many seconds a token is valid after it was written.
    pub(super) ttl: u64,
}

impl Fernet {
    pub(super) fn new(secret: &Secret) -> Self {
        let key: [u8; 32] = Sha256::digest(secret.expose().as_bytes()).into();
        let mut encrypting = [0; 16];
        encrypting.copy_from_slice(&key[16..]);
        Self { signing: hmac::Key::new(hmac::HMAC_SHA256, &key[..16]), encrypting }
    }

    /// Decrypts `raw`; `None` unless it was written with this key. The tag is compared in constant time.
    fn open(&self, raw: &[u8]) -> Option<Vec<u8>> {
        let (signed, tag) = raw.split_at_checked(raw.len().checked_sub(TAG)?)?;
        let (head, sealed) = signed.split_at_checked(HEAD)?;
        hmac::verify(&self.signing, signed, tag).ok()?;
        let iv = FixedLength::try_from(head.get(9..)?).ok()?;
        let key = UnboundCipherKey::new(&AES_128, &self.encrypting).ok()?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
        let mut text = sealed.to_vec();
        let length = key.decrypt(&mut text, DecryptionContext::Iv128(iv)).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

/// Decrypts a token that was written with one of `keys` and is still valid; `None` for any other. Without a
/// `lifetime`, tokens do not expire.
pub(super) fn open(keys: &[Fernet], token: &[u8], lifetime: Option<Lifetime>) -> Option<Vec<u8>> {
    let raw = URL_SAFE.decode(token).ok()?;
    let (version, after) = raw.split_first()?;
    let written = u64::from_be_bytes(*after.first_chunk()?);
    let is_valid = lifetime.is_none_or(|Lifetime { now, ttl }| {
        written.saturating_add(ttl) >= now && written <= now.saturating_add(MAX_CLOCK_SKEW)
    });
    let is_readable = *version == VERSION && is_valid;
    is_readable.then(|| keys.iter().find_map(|key| key.open(&raw))).flatten()
}

#[cfg(test)]
mod tests;
