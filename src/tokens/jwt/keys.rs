//! A verification key: its algorithms, and the tokens that it is tried with.

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use super::compact::Compact;
use crate::config::{JwtKey, JwtKeyMaterial};

/// The length of an uncompressed point on P-256 and on P-384 (SEC 1, section 2.3.3).
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;

pub(super) struct Key {
    kid: Option<Box<str>>,
    /// The only algorithms that this key is used with; the token's header chooses among them.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Key {
    /// Reads a key of the config, which verifies only with its configured algorithm.
    pub(super) fn from_config(settings: &JwtKey) -> Result<Self, String> {
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

    /// Reads a key of a JWKS, which verifies with its `alg`, or, if it has none, with the algorithms of its
    /// type. `None` for keys that do not verify signatures or are not public: shared secrets, encryption
    /// keys, unknown curves.
    pub(super) fn from_jwk(jwk: &Jwk) -> Option<Self> {
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

    /// Whether a configured key is tried with `token`: a key without a `kid` with every token, a key with a
    /// `kid` only with tokens that name it.
    pub(super) fn accepts_kid_of(&self, token: &Compact) -> bool {
        self.algorithms.contains(&token.alg)
            && (self.kid.is_none() || self.kid.as_deref() == token.kid.as_deref())
    }

    /// Whether a published key is tried with `token`: both have the same `kid`, or neither has one.
    pub(super) fn has_kid_of(&self, token: &Compact) -> bool {
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
    let wrong = || format!("not a PEM public key (BEGIN PUBLIC KEY) for {alg:?}");
    // The library would accept a private key, or the first bit string of a certificate.
    if pem.contains("PRIVATE KEY") {
        return Err("this is a private key; configure the public key only".into());
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

/// Whether the length of an elliptic-curve key is that of the algorithm's curve.
fn has_right_size(key: &DecodingKey, alg: Algorithm) -> bool {
    let wanted = match alg {
        Algorithm::ES256 => P256_POINT_BYTES,
        Algorithm::ES384 => P384_POINT_BYTES,
        _ => return true,
    };
    key.try_get_as_bytes().is_ok_and(|point| point.len() == wanted)
}
