//! Facts about credentials: connection tokens issued and consumed, JWTs verified, key sets fetched.
//!
//! A token shows up here only as its log id, the first 8 hex digits of its SHA-256.

use std::time::Duration;

use metrics::counter;
use tracing::{debug, info, warn};

/// What became of a connection token that a client presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumption {
    Consumed,
    /// Never issued, expired, or a replay: after the fact these cannot be told apart.
    UnknownOrReplayed,
    /// Its record says `used`.
    Used,
    /// The session behind it ended before the token did.
    SessionOver,
    /// No token of ours: the store was not asked.
    MalformedToken,
    /// What the store holds under it is no record.
    MalformedRecord,
    EngineDown,
}

impl Consumption {
    fn label(self) -> &'static str {
        match self {
            Self::Consumed => "consumed",
            Self::UnknownOrReplayed => "unknown_or_replayed",
            Self::Used => "used",
            Self::SessionOver => "session_over",
            Self::MalformedToken => "malformed_token",
            Self::MalformedRecord => "malformed_record",
            Self::EngineDown => "engine_down",
        }
    }
}

pub fn token_issued(token: &str) {
    counter!("tidegate_tokens_issued_total", "outcome" => "issued").increment(1);
    info!(event = "token_issued", token);
}

/// The engine is away or full; that it is away, its own facts say.
pub fn token_not_issued(reason: &str) {
    counter!("tidegate_tokens_issued_total", "outcome" => "engine_down").increment(1);
    debug!(event = "token_not_issued", reason);
}

pub fn token_consumed(token: &str, outcome: Consumption) {
    let label = outcome.label();
    counter!("tidegate_tokens_consumed_total", "outcome" => label).increment(1);
    match outcome {
        // Not worth a line each: anybody can send garbage.
        Consumption::MalformedToken => debug!(event = "token_refused", outcome = label),
        // The engine's own facts say so once; this is one line for each client that it keeps out.
        Consumption::EngineDown => debug!(event = "token_refused", token, outcome = label),
        Consumption::Consumed => info!(event = "token_consumed", token),
        Consumption::MalformedRecord => warn!(event = "token_refused", token, outcome = label),
        _ => info!(event = "token_refused", token, outcome = label),
    }
}

/// Whether the session of a JWT, good as it is, still is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionCheck {
    Current,
    /// The JWT names no version.
    NotClaimed,
    /// No version is kept of this user.
    NotKept,
    /// Another version is kept: the session was ended.
    Over,
    /// The claim is no integer.
    MalformedClaim,
    /// What is kept is no integer.
    MalformedValue,
    EngineDown,
}

pub fn session_checked(outcome: SessionCheck) {
    let label = match outcome {
        SessionCheck::Current => "current",
        SessionCheck::NotClaimed => "not_claimed",
        SessionCheck::NotKept => "not_kept",
        SessionCheck::Over => "over",
        SessionCheck::MalformedClaim => "malformed_claim",
        SessionCheck::MalformedValue => "malformed_value",
        SessionCheck::EngineDown => "engine_down",
    };
    counter!("tidegate_sessions_checked_total", "outcome" => label).increment(1);
    match outcome {
        SessionCheck::Over => info!(event = "session_over"),
        SessionCheck::MalformedClaim | SessionCheck::MalformedValue => {
            warn!(event = "session_not_checked", outcome = label);
        }
        _ => debug!(event = "session_checked", outcome = label),
    }
}

/// `outcome` is `accepted` or the label of a rejection.
pub fn jwt_verified(outcome: &'static str) {
    counter!("tidegate_jwts_verified_total", "outcome" => outcome).increment(1);
    debug!(event = "jwt_verified", outcome);
}

pub fn jwks_fetched(host: &str, keys: usize, skipped: usize, took: Duration) {
    counter!("tidegate_jwks_fetches_total", "outcome" => "ok").increment(1);
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    info!(event = "jwks_fetched", host, keys, skipped, took_ms);
}

pub fn jwks_failed(host: &str, reason: &str) {
    counter!("tidegate_jwks_fetches_total", "outcome" => "failed").increment(1);
    warn!(event = "jwks_failed", host, reason);
}
