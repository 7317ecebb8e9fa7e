//! Sessions that end before their JWTs expire: a claim of the JWT must equal a number in Redis.
//!
//! This module owns the key of the number and how it is read. A JWT without the claim, and a user without
//! a number, pass. Invariant: no session is accepted unchecked: if Redis is not available, or the stored
//! value is not a number, the JWT is refused.

use serde_json::{Map, Value};

use super::CredentialRejection;
use crate::config;
use crate::pickle;
use crate::protocol::{Params, Template, TemplateContext, UserId};
use crate::redis_link::{Commands, Needs, RedisFailure};
use crate::telemetry;
use crate::telemetry::jwts::SessionCheck;

/// The check of `[jwt] session_version`, with a connection to the Redis that it names.
#[derive(Clone)]
pub struct SessionVersions {
    commands: Commands,
    claim: String,
    key: Template,
}

impl SessionVersions {
    pub fn new(settings: &config::SessionVersion, commands: Commands) -> Self {
        let config::SessionVersion { claim, key, .. } = settings;
        let needs = Needs::default().command("GET", &key.example());
        commands.declare("session_version", needs);
        Self { commands, claim: claim.clone(), key: key.clone() }
    }

    /// Checks that the session of `claims`, which have been verified, is still valid for `user_id`.
    pub(super) async fn check(
        &self,
        user_id: &UserId,
        claims: &Map<String, Value>,
    ) -> Result<(), CredentialRejection> {
        let outcome = self.compare(user_id, claims).await;
        telemetry::jwts::session_checked(user_id, outcome);
        match outcome {
            SessionCheck::NotClaimed | SessionCheck::NotKept | SessionCheck::Current => Ok(()),
            SessionCheck::MalformedClaim | SessionCheck::Over => {
                Err(CredentialRejection::SessionOver)
            }
            SessionCheck::MalformedValue | SessionCheck::EngineDown => {
                Err(CredentialRejection::EngineUnavailable)
            }
        }
    }

    async fn compare(&self, user_id: &UserId, claims: &Map<String, Value>) -> SessionCheck {
        let Some(claim) = claims.get(&self.claim) else { return SessionCheck::NotClaimed };
        let Some(claimed) = version_of_claim(claim) else { return SessionCheck::MalformedClaim };
        let no_params = Params::default();
        let key = self.key.fill(TemplateContext { params: &no_params, user_id, channel: None });
        let value: Option<Vec<u8>> = match self.commands.query(redis::cmd("GET").arg(key)).await {
            Ok(value) => value,
            Err(RedisFailure::Refused(error)) if error.code() == Some("WRONGTYPE") => {
                return SessionCheck::MalformedValue;
            }
            Err(_) => return SessionCheck::EngineDown,
        };
        match value.map(|value| version_of_cache(&value)) {
            None => SessionCheck::NotKept,
            Some(None) => SessionCheck::MalformedValue,
            Some(Some(version)) if version == claimed => SessionCheck::Current,
            Some(Some(_)) => SessionCheck::Over,
        }
    }
}

/// Reads the version of a claim: an integer, or its digits as text.
fn version_of_claim(claim: &Value) -> Option<i64> {
    match claim {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => parse_digits(text.as_bytes()),
        _ => None,
    }
}

/// Reads the version of a cache: digits, as Django's caches write integers, or a pickled integer.
fn version_of_cache(value: &[u8]) -> Option<i64> {
    parse_digits(value).or_else(|| pickle::read(value).ok()?.as_int())
}

/// Parses ASCII digits, with an optional minus sign and nothing else.
fn parse_digits(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

#[cfg(test)]
mod tests;
