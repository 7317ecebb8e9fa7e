//! The rules for the claims of a token, and the identity that they describe.

use serde_json::{Map, Value};

use super::{JwtClaim, JwtFailure, JwtRejection};
use crate::protocol::{ChannelPattern, UserId};
use crate::tokens::Identity;
use crate::tokens::record::unix_seconds_from;

pub(in crate::tokens) type Claims = Map<String, Value>;

/// Reads the JSON object of a payload.
pub(super) fn parse_claims(payload: &str) -> Result<Claims, JwtRejection> {
    serde_json::from_str(payload).map_err(|_| JwtRejection::Malformed)
}

/// The rules of `[jwt]`. A claim of the wrong type refuses the token; it is never skipped.
pub(super) struct ClaimRules {
    issuer: Option<String>,
    audience: Option<String>,
    /// The difference of clocks that is tolerated, in seconds.
    leeway: u64,
    user_claim: String,
    name_claim: String,
    channels_claim: String,
}

impl ClaimRules {
    pub(super) fn new(settings: &crate::config::Jwt) -> Self {
        Self {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            leeway: settings.leeway.as_secs(),
            user_claim: settings.user_claim.clone(),
            name_claim: settings.name_claim.clone(),
            channels_claim: settings.channels_claim.clone(),
        }
    }

    /// Checks the claims at `now` (Unix seconds). The identity expires when this check would start to fail:
    /// at `exp` plus the leeway.
    pub(super) fn identify(&self, claims: &Claims, now: u64) -> Result<Identity, JwtFailure> {
        let expires_at = self.check_times(claims, now)?;
        self.check_audience(claims)?;
        Ok(Identity {
            user_id: Some(self.read_user(claims)?),
            username: claims
                .get(&self.name_claim)
                .and_then(Value::as_str)
                .filter(|name| !name.is_empty())
                .map(Into::into),
            channels: self.read_channels(claims)?,
            expires_at: Some(expires_at),
        })
    }

    /// Checks `exp`, which is required, and `nbf`, which is optional (RFC 7519, sections 4.1.4 and 4.1.5).
    /// Returns when the identity expires, in Unix seconds.
    fn check_times(&self, claims: &Claims, now: u64) -> Result<u64, JwtFailure> {
        let exp = claims.get("exp").and_then(unix_seconds_from);
        let exp = exp.ok_or(JwtFailure::of_claim(JwtClaim::Exp))?;
        let expires_at = exp.saturating_add(self.leeway);
        if now >= expires_at {
            let (rejection, claim) = (JwtRejection::Expired, Some(JwtClaim::Exp));
            return Err(JwtFailure { rejection, claim });
        }
        match self.not_before(claims) {
            Some(not_before) if not_before <= now => Ok(expires_at),
            _ => Err(JwtFailure::of_claim(JwtClaim::Nbf)),
        }
    }

    /// Returns from when the token is accepted, in Unix seconds: `nbf` less the leeway. `None` if it is not a time.
    pub(super) fn not_before(&self, claims: &Claims) -> Option<u64> {
        let nbf = claims.get("nbf").map_or(Some(0), unix_seconds_from)?;
        Some(nbf.saturating_sub(self.leeway))
    }

    /// Checks issuer and audience where they are configured. A token of another type, such as a refresh
    /// token, is refused.
    fn check_audience(&self, claims: &Claims) -> Result<(), JwtFailure> {
        let is_from = |issuer: &String| claims.get("iss").and_then(Value::as_str) == Some(issuer);
        let is_for = |audience: &String| match claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        };
        let is_access = claims.get("token_type").is_none_or(|of| of.as_str() == Some("access"));
        let checks = [
            (self.issuer.as_ref().is_none_or(is_from), JwtClaim::Iss),
            (self.audience.as_ref().is_none_or(is_for), JwtClaim::Aud),
            (is_access, JwtClaim::TokenType),
        ];
        match checks.into_iter().find(|(fits, _)| !fits) {
            None => Ok(()),
            Some((_, claim)) => Err(JwtFailure::of_claim(claim)),
        }
    }

    fn read_user(&self, claims: &Claims) -> Result<UserId, JwtFailure> {
        let claim = claims.get(&self.user_claim).or_else(|| claims.get("sub"));
        claim.and_then(UserId::from_json).ok_or(JwtFailure::of_claim(JwtClaim::User))
    }

    fn read_channels(&self, claims: &Claims) -> Result<Option<Box<[ChannelPattern]>>, JwtFailure> {
        let Some(claim) = claims.get(&self.channels_claim) else { return Ok(None) };
        let wrong = JwtFailure::of_claim(JwtClaim::Channels);
        let patterns = claim.as_array().ok_or(wrong)?;
        let pattern = |value: &Value| value.as_str().map(ChannelPattern::new);
        let patterns: Option<_> = patterns.iter().map(pattern).collect();
        patterns.map(Some).ok_or(wrong)
    }
}

#[cfg(test)]
mod tests;
