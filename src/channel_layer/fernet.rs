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
mod tests {
    use super::*;

    /// Written by channels_redis with the key `sekrit`.
    const TOKEN: &str = "gAAAAABrBNGXGsh4oddItLQ5t7O7_7yqHoDaoG4mE4r45JHMZRG2Vd3gmFL6aH_WdIaSCrTeXtLhjNe2\
        LkIbMDRKaYqSQbOegQzGKd1F2Co_SwjdiQiwO9qaqqjsTPzqLzNgWPr6-HiWWtx_n7owlPSgbZh4eKQUwqjPOqDSpmYR_BscQovFIsQ=";
    /// The time in the token, in Unix seconds.
    const WRITTEN: u64 = 0x6b04_d197;

    fn keys(secrets: &[&str]) -> Vec<Fernet> {
        secrets.iter().map(|secret| Fernet::new(&Secret::new(*secret))).collect()
    }

    #[test]
    fn a_token_written_by_python_is_decrypted() {
        let text = open(&keys(&["sekrit"]), TOKEN.as_bytes(), None).unwrap();
        assert_eq!(text.len(), 67);
        assert!(text.starts_with(b"\x83\xa4type\xacchat.message"));
        assert_eq!(open(&keys(&["new", "sekrit"]), TOKEN.as_bytes(), None), Some(text));
    }

    #[test]
    fn other_keys_and_changed_tokens_are_refused() {
        assert_eq!(open(&keys(&["other"]), TOKEN.as_bytes(), None), None);
        assert_eq!(open(&[], TOKEN.as_bytes(), None), None);
        let keys = keys(&["sekrit"]);
        let raw = URL_SAFE.decode(TOKEN).unwrap();
        for at in 0..raw.len() {
            let mut changed = raw.clone();
            changed[at] ^= 1;
            assert_eq!(open(&keys, URL_SAFE.encode(changed).as_bytes(), None), None, "byte {at}");
            let short = URL_SAFE.encode(&raw[..at]);
            assert_eq!(open(&keys, short.as_bytes(), None), None, "{at} bytes");
        }
        for text in ["", "=", "*", "gAAAAA", &TOKEN[1..], &format!("{TOKEN}=")] {
            assert_eq!(open(&keys, text.as_bytes(), None), None, "{text}");
        }
    }

    #[test]
    fn a_token_is_valid_from_a_minute_before_its_time_until_its_ttl() {
        let keys = keys(&["sekrit"]);
        for (now, ttl, is_valid) in [
            (WRITTEN, 0, true),
            (WRITTEN + 70, 70, true),
            (WRITTEN + 71, 70, false),
            (WRITTEN - 60, 70, true),
            (WRITTEN - 61, 70, false),
            (u64::MAX, u64::MAX, true),
        ] {
            let lifetime = Some(Lifetime { now, ttl });
            let opened = open(&keys, TOKEN.as_bytes(), lifetime).is_some();
            assert_eq!(opened, is_valid, "now {now}, ttl {ttl}");
        }
    }
}
