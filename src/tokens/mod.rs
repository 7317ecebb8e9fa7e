//! Who a client is: single-use connection tokens, and JWTs.

mod identity;

pub use identity::Identity;

use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::protocol::UserId;
use crate::redis_link::Commands;

/// What a connection token stands for; the JSON record of docs/protocol.md.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenRecord {
    pub user_id: UserId,
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<String>,
    /// Unix seconds.
    #[serde(default)]
    pub created_at: f64,
    #[serde(default)]
    pub used: bool,
    /// Patterns; `None` = every channel that the route gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_expires_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<serde_json::Value>,
}

/// The engine that keeps tokens cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineDown;

/// Where connection tokens live. Cheap to clone, shared by all threads.
#[derive(Clone)]
pub enum TokenStore {
    Memory,
    Redis,
}

impl TokenStore {
    pub fn memory(ttl: Duration) -> Self {
        let _ = ttl;
        todo!()
    }

    pub fn redis(commands: Commands, key_prefix: &str, ttl: Duration) -> Self {
        let _ = (commands, key_prefix, ttl);
        todo!()
    }

    /// Stores `record` under a new token for `ttl` and returns the token: 43 URL-safe characters.
    pub async fn issue(&self, record: &TokenRecord) -> Result<String, EngineDown> {
        let _ = record;
        todo!()
    }

    /// Takes the record out, so that no second call finds it. `None`: unknown, expired, used,
    /// malformed or already taken.
    pub async fn consume(&self, token: &str) -> Result<Option<TokenRecord>, EngineDown> {
        let _ = token;
        todo!()
    }
}

/// Verifies JWTs against configured keys and a JWKS. Cheap to clone, shared by all threads.
#[derive(Clone)]
pub struct JwtVerifier {}

/// Why a JWT is not accepted; the label goes to logs and metrics, never to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtRejection {
    Malformed,
    Expired,
    WrongClaims,
    WrongSignature,
    /// The JWKS could not be fetched, so the key is not known.
    KeysUnavailable,
}

impl JwtVerifier {
    pub fn new(settings: &crate::config::Jwt) -> Result<Self, String> {
        let _ = settings;
        todo!()
    }

    /// Checks signature, times, issuer, audience and token type; asymmetric signatures off this thread.
    pub async fn verify(&self, token: &str) -> Result<Identity, JwtRejection> {
        let _ = token;
        todo!()
    }
}
