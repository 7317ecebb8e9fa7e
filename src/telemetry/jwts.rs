//! JWTs: verified, their sessions checked, and key sets fetched.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::definitions::{metrics, millis, words};
use super::log::AUDIT;
use crate::protocol::{UserId, label_enum};

metrics! {
    /// JWTs: accepted, or the reason of the rejection.
    JWTS_VERIFIED = counter "tidegate_jwts_verified_total" [outcome: words(&[JwtOutcome::LABELS])];
    /// Accepted JWTs whose signature was not checked again, because it was verified before.
    JWTS_VERIFIED_BEFORE = counter "tidegate_jwts_verified_before_total";
    /// Checks of the session version that a valid JWT names, by outcome.
    SESSIONS_CHECKED = counter "tidegate_sessions_checked_total" [outcome: words(&[SessionCheck::LABELS])];
    /// Fetches of the JSON Web Key Set.
    JWKS_FETCHES = counter "tidegate_jwks_fetches_total" [outcome: words(&[Fetch::LABELS])];
}

label_enum! {
    /// Why a JWT is rejected. The client is not told.
    pub enum JwtRejection {
        /// It is not a signed compact token, or its algorithm is not supported (such as `none`).
        Malformed => "malformed",
        Expired => "expired",
        /// It is not valid yet, or its issuer, its audience, its type or the type of a claim is wrong.
        WrongClaims => "wrong_claims",
        /// None of the keys has signed it.
        WrongSignature => "wrong_signature",
        /// The key set could not be fetched, so that the key is not known.
        KeysUnavailable => "keys_unavailable",
    }
}

label_enum! {
    /// The claim by which a JWT is rejected.
    pub enum JwtClaim {
        Exp => "exp",
        Nbf => "nbf",
        Iss => "iss",
        Aud => "aud",
        TokenType => "token_type",
        /// The claim that `[jwt] user_claim` names, or else `sub`.
        User => "user_claim",
        /// The claim that `[jwt] channels_claim` names.
        Channels => "channels_claim",
    }
}

/// Which check of a JWT failed, and on which claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JwtFailure {
    pub rejection: JwtRejection,
    /// `None` = the check is not about a claim.
    pub claim: Option<JwtClaim>,
}

impl JwtFailure {
    pub fn of_claim(claim: JwtClaim) -> Self {
        Self { rejection: JwtRejection::WrongClaims, claim: Some(claim) }
    }
}

impl From<JwtRejection> for JwtFailure {
    fn from(rejection: JwtRejection) -> Self {
        Self { rejection, claim: None }
    }
}

label_enum! {
    enum JwtOutcome {
        Accepted => "accepted";
        Rejected(JwtRejection),
    }
}

/// A JWT was verified.
pub fn verified(outcome: Result<(), JwtFailure>) {
    let failure = outcome.err();
    let claim = failure.and_then(|failure| failure.claim).map(JwtClaim::label);
    let outcome = failure.map(|failure| failure.rejection);
    let outcome = outcome.map_or(JwtOutcome::Accepted, JwtOutcome::Rejected).label();
    JWTS_VERIFIED.at([outcome]).increment(1);
    debug!(target: AUDIT, event = "jwt_verified", outcome, claim, "a JWT was verified");
}

/// The signature of a JWT was verified before.
pub fn verified_before() {
    JWTS_VERIFIED_BEFORE.get().increment(1);
}

label_enum! {
    enum Fetch {
        Ok => "ok",
        Failed => "failed",
    }
}

/// The key set was fetched; keys that cannot be used are `skipped`.
pub fn jwks_fetched(host: &str, keys: usize, skipped: usize, took: Duration) {
    JWKS_FETCHES.at([Fetch::Ok.label()]).increment(1);
    let took_ms = millis(took);
    info!(event = "jwks_fetched", host, keys, skipped, took_ms, "fetched the JSON Web Key Set");
}

/// The key set could not be fetched.
pub fn jwks_failed(host: &str, reason: &str) {
    JWKS_FETCHES.at([Fetch::Failed.label()]).increment(1);
    warn!(event = "jwks_failed", host, reason, "failed to fetch the JSON Web Key Set");
}

label_enum! {
    /// Whether the session of a valid JWT is still current.
    pub enum SessionCheck {
        Current => "current",
        /// The JWT names no session version.
        NotClaimed => "not_claimed",
        /// No session version is stored for this user.
        NotKept => "not_kept",
        /// Another version is stored: the session has ended.
        Over => "over",
        /// The claim is not an integer.
        MalformedClaim => "malformed_claim",
        /// The stored value is not an integer.
        MalformedValue => "malformed_value",
        EngineDown => "engine_down",
    }
}

/// The session version of a valid JWT of this user was checked.
pub fn session_checked(user: &UserId, outcome: SessionCheck) {
    let label = outcome.label();
    SESSIONS_CHECKED.at([label]).increment(1);
    match outcome {
        SessionCheck::Over => {
            info!(target: AUDIT, event = "session_over", %user, "a valid JWT was refused: its session has ended");
        }
        SessionCheck::MalformedClaim | SessionCheck::MalformedValue => {
            warn!(
                event = "session_not_checked",
                %user,
                outcome = label,
                "failed to check a session version"
            );
        }
        _ => debug!(event = "session_checked", outcome = label, "a session version was checked"),
    }
}
