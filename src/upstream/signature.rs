//! Signatures of request bodies, which prove to an upstream that the gateway sent them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::clock;
use crate::config::Secret;

/// The header with the signature.
pub const HEADER: &str = "x-tidegate-signature";

/// `t=<unix seconds>,v1=<hex>`: HMAC-SHA256 over `<unix seconds>.<body>`.
pub fn sign(secret: &Secret, body: &[u8]) -> String {
    sign_at(secret, clock::unix_seconds(), body)
}

fn sign_at(secret: &Secret, unix: u64, body: &[u8]) -> String {
    // HMAC accepts keys of any length (RFC 2104 section 2), although the constructor returns a result.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else {
        return String::new();
    };
    mac.update(unix.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    format!("t={unix},v1={hex}")
}

#[cfg(test)]
mod tests;
