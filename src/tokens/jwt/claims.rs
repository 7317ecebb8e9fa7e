//! The rules for the claims of a token, and the identity that they describe.

use serde_json::{Map, Value};

use super::JwtRejection;
use crate::protocol::{ChannelPattern, UserId};
use crate::tokens::Identity;
use crate::tokens::record::unix_seconds_from;

pub(in crate::tokens) type Claims = Map<String, Value>;

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
    pub(super) fn identify(&self, claims: &Claims, now: u64) -> Result<Identity, JwtRejection> {
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
    fn check_times(&self, claims: &Claims, now: u64) -> Result<u64, JwtRejection> {
        let exp = claims.get("exp").and_then(unix_seconds_from).ok_or(JwtRejection::WrongClaims)?;
        let expires_at = exp.saturating_add(self.leeway);
        if now >= expires_at {
            return Err(JwtRejection::Expired);
        }
        let nbf = claims
            .get("nbf")
            .map_or(Some(0), unix_seconds_from)
            .ok_or(JwtRejection::WrongClaims)?;
        if nbf > now.saturating_add(self.leeway) {
            return Err(JwtRejection::WrongClaims);
        }
        Ok(expires_at)
    }

    /// Checks issuer and audience where they are configured. A token of another type, such as a refresh
    /// token, is refused.
    fn check_audience(&self, claims: &Claims) -> Result<(), JwtRejection> {
        let is_from = |issuer: &String| claims.get("iss").and_then(Value::as_str) == Some(issuer);
        let is_for = |audience: &String| match claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        };
        let is_access = claims.get("token_type").is_none_or(|of| of.as_str() == Some("access"));
        let fits =
            self.issuer.as_ref().is_none_or(is_from) && self.audience.as_ref().is_none_or(is_for);
        if fits && is_access { Ok(()) } else { Err(JwtRejection::WrongClaims) }
    }

    fn read_user(&self, claims: &Claims) -> Result<UserId, JwtRejection> {
        let claim = claims.get(&self.user_claim).or_else(|| claims.get("sub"));
        claim.and_then(UserId::from_json).ok_or(JwtRejection::WrongClaims)
    }

    fn read_channels(
        &self,
        claims: &Claims,
    ) -> Result<Option<Box<[ChannelPattern]>>, JwtRejection> {
        let Some(claim) = claims.get(&self.channels_claim) else { return Ok(None) };
        let patterns = claim.as_array().ok_or(JwtRejection::WrongClaims)?;
        let pattern = |value: &Value| value.as_str().map(ChannelPattern::new);
        let patterns: Option<_> = patterns.iter().map(pattern).collect();
        patterns.map(Some).ok_or(JwtRejection::WrongClaims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;

    fn rules() -> ClaimRules {
        ClaimRules {
            issuer: Some("https://id.example.com".into()),
            audience: Some("chat".into()),
            leeway: 30,
            user_claim: "user_id".into(),
            name_claim: "username".into(),
            channels_claim: "channels".into(),
        }
    }

    /// Returns valid claims with `changes` applied; `null` removes a claim.
    fn claims(changes: Value) -> Claims {
        let mut claims = json!({
            "iss": "https://id.example.com", "aud": "chat", "exp": NOW + 60, "user_id": 1,
        });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(name),
                value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        claims.as_object().unwrap().clone()
    }

    #[test]
    fn claims_are_checked() {
        use JwtRejection::{Expired, WrongClaims};
        for (changes, outcome) in [
            (json!({}), Ok(())),
            (json!({"exp": NOW - 29}), Ok(())),
            (json!({"exp": NOW as f64 + 0.5}), Ok(())),
            (json!({"exp": u64::MAX}), Ok(())),
            (json!({"exp": NOW - 30}), Err(Expired)),
            (json!({"exp": 0}), Err(Expired)),
            (json!({"exp": null}), Err(WrongClaims)),
            (json!({"exp": "tomorrow"}), Err(WrongClaims)),
            (json!({"exp": -1}), Err(WrongClaims)),
            (json!({"nbf": NOW + 30}), Ok(())),
            (json!({"nbf": NOW + 31}), Err(WrongClaims)),
            (json!({"nbf": "now"}), Err(WrongClaims)),
            (json!({"iss": null}), Err(WrongClaims)),
            (json!({"iss": "https://id.example.com.evil.test"}), Err(WrongClaims)),
            (json!({"iss": ["https://id.example.com"]}), Err(WrongClaims)),
            (json!({"aud": null}), Err(WrongClaims)),
            (json!({"aud": "mail"}), Err(WrongClaims)),
            (json!({"aud": ["mail", "chat"]}), Ok(())),
            (json!({"aud": ["mail"]}), Err(WrongClaims)),
            (json!({"aud": []}), Err(WrongClaims)),
            (json!({"aud": 7}), Err(WrongClaims)),
            (json!({"token_type": "access"}), Ok(())),
            (json!({"token_type": "refresh"}), Err(WrongClaims)),
            (json!({"token_type": 1}), Err(WrongClaims)),
            (json!({"user_id": null}), Err(WrongClaims)),
            (json!({"user_id": null, "sub": "u"}), Ok(())),
            (json!({"user_id": ""}), Err(WrongClaims)),
            (json!({"user_id": "", "sub": "u"}), Err(WrongClaims)),
            (json!({"user_id": 1.5}), Err(WrongClaims)),
            (json!({"user_id": true}), Err(WrongClaims)),
            (json!({"user_id": {"id": 1}}), Err(WrongClaims)),
            (json!({"channels": ["chat_1"]}), Ok(())),
            (json!({"channels": []}), Ok(())),
            (json!({"channels": "chat_1"}), Err(WrongClaims)),
            (json!({"channels": ["chat_1", 2]}), Err(WrongClaims)),
            (json!({"channels": {}}), Err(WrongClaims)),
        ] {
            let outcome_now = rules().identify(&claims(changes.clone()), NOW).map(|_| ());
            assert_eq!(outcome_now, outcome, "{changes}");
        }
    }

    #[test]
    fn a_null_claim_is_of_the_wrong_type() {
        for name in ["token_type", "channels", "user_id", "nbf"] {
            let mut claims = claims(json!({"sub": "u"}));
            claims.insert(name.into(), Value::Null);
            assert_eq!(rules().identify(&claims, NOW).err(), Some(JwtRejection::WrongClaims));
        }
    }

    #[test]
    fn unconfigured_issuer_and_audience_are_not_checked() {
        let rules = ClaimRules { issuer: None, audience: None, ..rules() };
        assert!(rules.identify(&claims(json!({"iss": 1, "aud": null})), NOW).is_ok());
    }

    #[test]
    fn an_identity_is_made_of_the_claims() {
        let given = json!({"user_id": null, "sub": "ana", "username": "Ana", "channels": ["a_*"]});
        let identity = rules().identify(&claims(given), NOW).unwrap();
        assert_eq!(identity.key(), "ana");
        assert_eq!(identity.username.as_deref(), Some("Ana"));
        assert_eq!(identity.expires_at, Some(NOW + 90));
        assert!(identity.may_join("a_1") && !identity.may_join("b_1"));
        let big = rules().identify(&claims(json!({"user_id": u64::MAX})), NOW).unwrap();
        assert_eq!(big.user_id, Some(UserId::Text(u64::MAX.to_string().into())));
    }
}
