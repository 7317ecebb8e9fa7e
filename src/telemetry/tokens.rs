//! Facts about credentials: connection tokens issued and consumed, JWTs verified, key sets fetched.
//!
//! A token shows up here only as its log id, the first 8 hex digits of its SHA-256.

use std::time::Duration;

use tracing::field::display;
use tracing::{debug, info, warn};

use super::definitions::{labels, metrics, words};
use super::log::AUDIT;
use crate::protocol::UserId;

metrics! {
    /// Connection tokens issued, or not.
    ISSUED = counter "tidegate_tokens_issued_total" [outcome: words(&[&["issued", "engine_down"]])];
    /// Connection tokens that clients presented, by what became of them.
    CONSUMED = counter "tidegate_tokens_consumed_total" [outcome: words(&[Consumption::LABELS])];
    /// JWTs: accepted, or why not.
    JWTS_VERIFIED = counter "tidegate_jwts_verified_total" [
        outcome: words(&[&["accepted", "malformed", "expired", "wrong_claims", "wrong_signature", "keys_unavailable"]]),
    ];
    /// Sessions of good JWTs, by what Redis keeps of them.
    SESSIONS_CHECKED = counter "tidegate_sessions_checked_total" [outcome: words(&[SessionCheck::LABELS])];
    /// Fetches of the JSON Web Key Set.
    JWKS_FETCHES = counter "tidegate_jwks_fetches_total" [outcome: words(&[&["ok", "failed"]])];
}

/// Why credentials are not taken.
pub(super) const CREDENTIAL_REJECTIONS: &[&str] = &[
    "token",
    "token_origin",
    "token_binding",
    "jwt_keys",
    "jwt_expired",
    "jwt",
    "session_over",
    "engine",
];

labels! {
    /// What became of a connection token that a client presented.
    pub enum Consumption {
        Consumed = "consumed",
        /// Never issued, expired, or a replay: after the fact these cannot be told apart.
        UnknownOrReplayed = "unknown_or_replayed",
        /// Its record says `used`.
        Used = "used",
        /// The session behind it ended before the token did.
        SessionOver = "session_over",
        /// No token of ours: the store was not asked.
        MalformedToken = "malformed_token",
        /// What the store holds under it is no record.
        MalformedRecord = "malformed_record",
        EngineDown = "engine_down",
    }
}

/// For this user.
pub fn token_issued(token: &str, user: &UserId) {
    ISSUED.at(["issued"]).increment(1);
    info!(target: AUDIT, event = "token_issued", token, %user, "a connection token was issued");
}

/// The engine is away or full; that it is away, its own facts say.
pub fn token_not_issued(reason: &str) {
    ISSUED.at(["engine_down"]).increment(1);
    debug!(target: AUDIT, event = "token_not_issued", reason, "no connection token was issued");
}

const REFUSED: &str = "a connection token was refused";

/// `user` is its record's, where there was one.
pub fn token_consumed(token: &str, user: Option<&UserId>, outcome: Consumption) {
    let (label, user) = (outcome.label(), user.map(display));
    CONSUMED.at([label]).increment(1);
    match outcome {
        // Not worth a line each: anybody can send garbage.
        Consumption::MalformedToken => {
            debug!(target: AUDIT, event = "token_refused", outcome = label, "{REFUSED}");
        }
        // The engine's own facts say so once; this is one line for each client that it keeps out.
        Consumption::EngineDown => {
            debug!(target: AUDIT, event = "token_refused", token, outcome = label, "{REFUSED}");
        }
        Consumption::Consumed => {
            info!(target: AUDIT, event = "token_consumed", token, user, "a connection token was used");
        }
        Consumption::MalformedRecord => {
            warn!(target: AUDIT, event = "token_refused", token, outcome = label, "{REFUSED}");
        }
        _ => info!(target: AUDIT, event = "token_refused", token, outcome = label, "{REFUSED}"),
    }
}

labels! {
    /// Whether the session of a JWT, good as it is, still is one.
    pub enum SessionCheck {
        Current = "current",
        /// The JWT names no version.
        NotClaimed = "not_claimed",
        /// No version is kept of this user.
        NotKept = "not_kept",
        /// Another version is kept: the session was ended.
        Over = "over",
        /// The claim is no integer.
        MalformedClaim = "malformed_claim",
        /// What is kept is no integer.
        MalformedValue = "malformed_value",
        EngineDown = "engine_down",
    }
}

pub fn session_checked(outcome: SessionCheck) {
    let label = outcome.label();
    SESSIONS_CHECKED.at([label]).increment(1);
    match outcome {
        SessionCheck::Over => {
            info!(target: AUDIT, event = "session_over", "the session of a good JWT has been ended");
        }
        SessionCheck::MalformedClaim | SessionCheck::MalformedValue => {
            warn!(event = "session_not_checked", outcome = label, "a session cannot be checked");
        }
        _ => debug!(event = "session_checked", outcome = label, "a session was checked"),
    }
}

/// `outcome` is `accepted` or the label of a rejection.
pub fn jwt_verified(outcome: &'static str) {
    JWTS_VERIFIED.at([outcome]).increment(1);
    debug!(target: AUDIT, event = "jwt_verified", outcome, "a JWT was checked");
}

pub fn jwks_fetched(host: &str, keys: usize, skipped: usize, took: Duration) {
    JWKS_FETCHES.at(["ok"]).increment(1);
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    info!(event = "jwks_fetched", host, keys, skipped, took_ms, "the key set was fetched");
}

pub fn jwks_failed(host: &str, reason: &str) {
    JWKS_FETCHES.at(["failed"]).increment(1);
    warn!(event = "jwks_failed", host, reason, "the key set cannot be fetched");
}
