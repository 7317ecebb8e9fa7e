//! The text of a connection token: 256 random bits in URL-safe base64 without padding (RFC 4648, section 5).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// The characters of a token: 32 bytes in base64.
const TOKEN_CHARS: usize = 43;

/// Generates a token; `None` = the operating system returns no random bytes.
pub(super) fn generate() -> Option<String> {
    let mut raw = [0u8; 32];
    getrandom::fill(&mut raw).ok()?;
    Some(URL_SAFE_NO_PAD.encode(raw))
}

/// Whether `token` has the form of a token. Any other text must not reach a store, where it would be a
/// key of arbitrary length and characters.
pub(super) fn is_well_formed(token: &str) -> bool {
    token.len() == TOKEN_CHARS
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Returns an identifier of a token that may be logged: the first 8 hex digits of its SHA-256.
pub fn log_id(token: &str) -> String {
    let digest = Sha256::digest(token.as_bytes());
    let first = digest.iter().take(4).fold(0, |bits, byte| bits << 8 | u32::from(*byte));
    format!("{first:08x}")
}

#[cfg(test)]
mod tests;
