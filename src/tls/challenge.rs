//! Handshakes in which a server of ACME asks for a proof that this is the host of a name: TLS-ALPN-01 (RFC 8737).

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

/// The protocol (ALPN) of such a handshake, which a client offers alone (RFC 8737 section 4).
pub const ACME_PROTOCOL: &[u8] = b"acme-tls/1";

/// Returns the SHA-256 digest of the key authorization for a name in lower case, while a proof for it is wanted.
pub type ChallengeDigests = Arc<dyn Fn(&str) -> Option<[u8; 32]> + Send + Sync>;

/// Whether the client asks for a proof.
pub(super) fn is_asked(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut protocols| {
        protocols.next() == Some(ACME_PROTOCOL) && protocols.next().is_none()
    })
}

/// The certificate that proves it. `None` if nobody waits for a proof for this name.
pub(super) fn answer(name: &str, digests: &ChallengeDigests) -> Option<CertifiedKey> {
    let name = name.to_ascii_lowercase();
    let digest = digests(&name)?;
    certificate(&name, &digest)
}

/// A certificate for `name`, signed by itself, with the digest in the critical extension acmeIdentifier (RFC 8737
/// section 3).
fn certificate(name: &str, digest: &[u8; 32]) -> Option<CertifiedKey> {
    let key = KeyPair::generate().ok()?;
    let mut params = CertificateParams::new([name.to_owned()]).ok()?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let certificate = params.self_signed(&key).ok()?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key.into()).ok()?;
    // Not checked against the key: rustls refuses critical extensions that it does not know.
    Some(CertifiedKey::new(vec![certificate.into()], key))
}

#[cfg(test)]
mod tests;
