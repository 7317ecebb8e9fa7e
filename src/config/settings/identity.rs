//! `[tokens]` and `[jwt]`.

use std::time::Duration;

use url::Url;

use super::{RedisUrl, Secret};
use crate::protocol::Template;

/// `[tokens]`: single-use connection tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens {
    pub ttl: Duration,
    pub key_prefix: String,
    /// How records are kept in Redis.
    pub format: TokenFormat,
    /// `None` = this gateway issues none to browsers.
    pub issue_path: Option<String>,
    pub csrf: Csrf,
    /// The record's `connection_id` must match this glob over the route's parameters; `None` = unbound.
    pub binding: Option<Template>,
}

/// How a token's record is kept in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    Json,
    /// As Django's cache keeps a dict: pickled. JSON is read as well.
    Django,
}

/// Double-submit names: the cookie's value must be repeated in the header where a cookie authenticates.
#[derive(Debug, Clone, PartialEq)]
pub struct Csrf {
    pub cookie: String,
    pub header: String,
}

/// `[jwt]`: who the caller is.
#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    pub keys: Vec<JwtKey>,
    pub jwks_url: Option<Url>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    pub leeway: Duration,
    pub cookie: String,
    pub user_claim: String,
    pub name_claim: String,
    pub channels_claim: String,
    pub session_version: Option<SessionVersion>,
}

/// Where a number is kept of each user that the JWTs of its sessions must name.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionVersion {
    pub claim: String,
    /// Of the number in Redis; has a `{user_id}`.
    pub key: Template,
    /// Already resolved to the engine's `tokens_url` where it is empty.
    pub redis_url: RedisUrl,
}

impl Jwt {
    /// Whether any JWT could be accepted at all.
    pub fn is_enabled(&self) -> bool {
        !self.keys.is_empty() || self.jwks_url.is_some()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct JwtKey {
    pub alg: jsonwebtoken::Algorithm,
    /// Only tokens with this `kid` are tried with it; `None` = every token.
    pub kid: Option<String>,
    pub material: JwtKeyMaterial,
}

#[derive(Debug, Clone, PartialEq)]
pub enum JwtKeyMaterial {
    /// HS256, HS384, HS512.
    Secret(Secret),
    /// PEM text of a public key: RS256, PS256, ES256, EdDSA. Already read from its file.
    PublicPem(String),
}
