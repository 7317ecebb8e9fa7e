//! One key: with which algorithms it verifies, and for which tokens.

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use super::compact::Compact;
use crate::config::{JwtKey, JwtKeyMaterial};

/// Bytes of an uncompressed point on P-256 and on P-384 (SEC 1, section 2.3.3).
const P256_POINT: usize = 65;
const P384_POINT: usize = 97;

pub(super) struct Key {
    kid: Option<Box<str>>,
    /// The only algorithms that this key is ever used with; the token's header chooses among them.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Key {
    /// A key of the config: exactly its algorithm.
    pub(super) fn configured(settings: &JwtKey) -> Result<Self, String> {
        let alg = settings.alg;
        let key = match (&settings.material, alg.family()) {
            (JwtKeyMaterial::Secret(secret), AlgorithmFamily::Hmac) => {
                if secret.expose().is_empty() {
                    return Err("the secret is empty".to_owned());
                }
                DecodingKey::from_secret(secret.expose().as_bytes())
            }
            (JwtKeyMaterial::PublicPem(pem), family) if family != AlgorithmFamily::Hmac => {
                public_key(pem, alg)?
            }
            (JwtKeyMaterial::Secret(_), _) => {
                return Err(format!("{alg:?} verifies with a public key, not with a secret"));
            }
            (JwtKeyMaterial::PublicPem(_), _) => {
                return Err(format!("{alg:?} verifies with a secret, not with a public key"));
            }
        };
        Ok(Self { kid: settings.kid.as_deref().map(Into::into), algorithms: vec![alg], key })
    }

    /// A key of a JWKS: its `alg`, or, without one, the algorithms of its type. `None` for what does
    /// not verify signatures or is not public: shared secrets, encryption keys, unknown curves.
    pub(super) fn published(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let for_signatures =
            common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
                && common
                    .key_operations
                    .as_ref()
                    .is_none_or(|ops| ops.contains(&KeyOperations::Verify));
        let of_type = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms(),
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => &[Algorithm::ES256][..],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA]
            }
            _ => return None,
        };
        let algorithms = match common.key_algorithm {
            None => of_type.to_vec(),
            Some(named) => vec![*of_type.iter().find(|alg| KeyAlgorithm::from(**alg) == named)?],
        };
        let key = DecodingKey::from_jwk(jwk).ok().filter(|_| for_signatures)?;
        let kid = common.key_id.as_deref().map(Into::into);
        has_right_size(&key, algorithms[0]).then_some(Self { kid, algorithms, key })
    }

    /// A configured key without a `kid` is tried with every token, one with a `kid` with its own only.
    pub(super) fn fits_configured(&self, token: &Compact) -> bool {
        self.algorithms.contains(&token.alg)
            && (self.kid.is_none() || self.kid.as_deref() == token.kid.as_deref())
    }

    /// A published key is tried with tokens of just its `kid`, or with those that, like it, have none.
    pub(super) fn is_named(&self, token: &Compact) -> bool {
        self.kid.as_deref() == token.kid.as_deref()
    }

    pub(super) fn verifies(&self, token: &Compact) -> bool {
        self.algorithms.contains(&token.alg)
            && jsonwebtoken::crypto::verify(
                &token.signature,
                token.signed.as_bytes(),
                &self.key,
                token.alg,
            )
            .unwrap_or(false)
    }
}

fn public_key(pem: &str, alg: Algorithm) -> Result<DecodingKey, String> {
    let wrong = || format!("no PEM public key (BEGIN PUBLIC KEY) that {alg:?} can use");
    // The library would take a private key, or a certificate's first bit string, for the key.
    if pem.contains("PRIVATE KEY") {
        return Err("a private key; the gateway needs, and should have, only the public one".into());
    }
    if !pem.contains("PUBLIC KEY-----") {
        return Err(wrong());
    }
    let key = match alg.family() {
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem.as_bytes()),
        AlgorithmFamily::Hmac => return Err(wrong()),
    };
    key.ok().filter(|key| has_right_size(key, alg)).ok_or_else(wrong)
}

/// Whether an elliptic key is on the algorithm's curve, as far as its length tells.
fn has_right_size(key: &DecodingKey, alg: Algorithm) -> bool {
    let wanted = match alg {
        Algorithm::ES256 => P256_POINT,
        Algorithm::ES384 => P384_POINT,
        _ => return true,
    };
    key.try_get_as_bytes().is_ok_and(|point| point.len() == wanted)
}
