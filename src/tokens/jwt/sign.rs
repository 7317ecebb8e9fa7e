//! Signing for `tidegate token --jwt` and the demo. The gateway itself only verifies.

use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};

use crate::config::Secret;

/// Returns a compact token with `claims`, signed with `secret` by HS256, HS384 or HS512.
pub fn sign_hs(
    secret: &Secret,
    alg: Algorithm,
    claims: &serde_json::Value,
) -> Result<String, String> {
    if alg.family() != AlgorithmFamily::Hmac {
        return Err(format!(
            "{alg:?} signs with a private key; only HS256, HS384 and HS512 sign with a secret"
        ));
    }
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::new(alg), claims, &key).map_err(|error| error.to_string())
}
