//! JSON Web Tokens (RFC 7519) as signed compact tokens (RFC 7515), verified against configured keys
//! and a JWKS (RFC 7517).
//!
//! The library does the cryptography. This module decides which key may verify which token, and what its
//! claims must contain. Invariants: a key verifies only with its own algorithm, whatever the token's
//! header asks for; claims are read only after the signature was verified.

mod claims;
mod compact;
mod fetch;
mod jwks;
mod keys;
mod sign;
mod verified;

pub use fetch::usable_keys;
pub use sign::sign_hs;

use std::sync::Arc;

use jsonwebtoken::AlgorithmFamily;
use tokio::sync::Semaphore;

use self::claims::{ClaimRules, parse_claims};
use self::compact::Compact;
use self::jwks::Jwks;
use self::keys::Key;
pub use self::verified::VerifiedJwt;
use self::verified::{Signer, VerifiedTokens};
use crate::clock;
use crate::telemetry;
pub use crate::telemetry::jwts::{JwtClaim, JwtFailure, JwtRejection};

/// Verifies JWTs against configured keys and a JWKS. Cheap to clone, shared by all threads.
#[derive(Clone)]
pub struct JwtVerifier(Arc<Inner>);

struct Inner {
    keys: Vec<Arc<Key>>,
    jwks: Option<Jwks>,
    rules: ClaimRules,
    verified: VerifiedTokens,
    /// Permits for concurrent checks of asymmetric signatures: one for each core, so that a flood of tokens
    /// does not start a flood of threads.
    checks: Arc<Semaphore>,
}

impl JwtVerifier {
    /// `Err` names the key that cannot be used, and why. The JWKS is fetched only when a token needs it.
    pub fn new(settings: &crate::config::Jwt) -> Result<Self, String> {
        let keys = settings.keys.iter().enumerate().map(|(index, key)| {
            Key::from_config(key).map(Arc::new).map_err(|why| format!("jwt.keys[{index}]: {why}"))
        });
        let jwks = settings.jwks_url.as_ref().map(Jwks::new).transpose();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self(Arc::new(Inner {
            keys: keys.collect::<Result<_, _>>()?,
            jwks: jwks.map_err(|why| format!("jwt.jwks_url: {why}"))?,
            rules: ClaimRules::new(settings),
            verified: VerifiedTokens::new(),
            checks: Arc::new(Semaphore::new(cores)),
        })))
    }

    /// Checks signature, times, issuer, audience and token type; asymmetric signatures on another thread. The signature of a
    /// token that was verified lately is not checked again while its key is in force; its times are.
    pub async fn verify(&self, token: &str) -> Result<Arc<VerifiedJwt>, JwtFailure> {
        let outcome = self.0.verify_at(token, clock::unix_seconds()).await;
        telemetry::jwts::verified(outcome.as_ref().map(|_| ()).map_err(|why| *why));
        outcome
    }
}

impl Inner {
    /// `now` is in Unix seconds.
    async fn verify_at(&self, token: &str, now: u64) -> Result<Arc<VerifiedJwt>, JwtFailure> {
        if token.len() > Compact::MAX_BYTES {
            return Err(JwtRejection::Malformed.into());
        }
        let hash = self.verified.hash(token);
        if let Some(verified) = self.verified.get(&hash, now)
            && self.confirm_signer(verified.signer)
        {
            telemetry::jwts::verified_before();
            return Ok(verified);
        }
        let token = Arc::new(Compact::parse(token)?);
        let signer = self.signer_of(&token).await?;
        let payload = token.payload()?;
        let claims = parse_claims(&payload)?;
        let identity = self.rules.identify(&claims, now)?;
        // The check has passed, so that there is a time.
        let not_before = self.rules.not_before(&claims).unwrap_or(u64::MAX);
        let verified = Arc::new(VerifiedJwt { identity, payload, not_before, signer });
        self.verified.keep(hash, &verified, now);
        Ok(verified)
    }

    /// Returns the keys that have signed the token.
    async fn signer_of(&self, token: &Arc<Compact>) -> Result<Signer, JwtRejection> {
        let configured = self.keys.iter().filter(|key| key.accepts_kid_of(token));
        if self.is_signed_by(token, configured.cloned().collect()).await? {
            return Ok(Signer::Configured);
        }
        let (published, fetch) = self.published_keys(token).await?;
        match self.is_signed_by(token, published).await? {
            true => Ok(Signer::Published(fetch)),
            false => Err(JwtRejection::WrongSignature),
        }
    }

    /// Whether the keys with which a token was verified would verify it now. Begins a fetch of the JWKS if it is old.
    fn confirm_signer(&self, signer: Signer) -> bool {
        match (signer, &self.jwks) {
            (Signer::Configured, _) => true,
            (Signer::Published(fetch), Some(jwks)) => jwks.confirm(fetch),
            (Signer::Published(_), None) => false,
        }
    }

    /// Returns the keys of the JWKS for this token, and the number of their fetch. Published keys are public: none of them verifies an HMAC.
    async fn published_keys(&self, token: &Compact) -> Result<(Vec<Arc<Key>>, u64), JwtRejection> {
        match &self.jwks {
            Some(jwks) if token.alg.family() != AlgorithmFamily::Hmac => jwks.keys_for(token).await,
            _ => Ok((Vec::new(), 0)),
        }
    }

    /// An HMAC takes 2 µs and is checked on this thread; a public-key check takes up to 100 µs and runs on
    /// another one.
    async fn is_signed_by(
        &self,
        token: &Arc<Compact>,
        keys: Vec<Arc<Key>>,
    ) -> Result<bool, JwtRejection> {
        if keys.is_empty() || token.alg.family() == AlgorithmFamily::Hmac {
            return Ok(keys.iter().any(|key| key.verifies(token)));
        }
        let permit = self.checks.clone().acquire_owned().await;
        let token = token.clone();
        let check = move || {
            let _permit = permit;
            keys.iter().any(|key| key.verifies(&token))
        };
        tokio::task::spawn_blocking(check).await.map_err(|_| JwtRejection::WrongSignature)
    }
}

#[cfg(test)]
mod tests;
