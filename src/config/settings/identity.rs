//! `[tokens]` and `[jwt]`.

use std::time::Duration;

use url::Url;

use super::{Rate, RedisUrl, Secret};
use crate::protocol::Template;

/// `[tokens]`: single-use connection tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens {
    pub ttl: Duration,
    pub key_prefix: String,
    /// The format of the records in Redis.
    pub format: TokenFormat,
    /// `None` = the gateway issues no tokens to browsers.
    pub issue_path: Option<String>,
    pub csrf: Csrf,
    /// The pattern over the route's parameters that a record's `connection_id` must match; `None` = any.
    pub binding: Option<Template>,
    /// Requests to the token endpoint of one user, over all nodes; `None` = not limited.
    pub requests_per_user: Option<Rate>,
    /// The same of one address.
    pub requests_per_ip: Option<Rate>,
    /// The most tokens of one user that wait to be used, if the endpoint has issued them; `None` = not limited.
    pub outstanding_per_user: Option<u32>,
}

/// The format of a token's record in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    Json,
    /// Pickled, as Django's cache stores a dict. JSON is read as well.
    Django,
}

/// The names for the double-submit check: if a cookie authenticates a request, the value of the CSRF cookie
/// must be repeated in the header.
#[derive(Debug, Clone, PartialEq)]
pub struct Csrf {
    pub cookie: String,
    pub header: String,
}

/// `[jwt]`: who a client is.
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

/// A number per user in Redis that a JWT must contain, so that a backend can revoke JWTs.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionVersion {
    pub claim: String,
    /// The Redis key of the number; contains `{user_id}`.
    pub key: Template,
    /// Already resolved to the engine's `tokens_url` if it is empty.
    pub redis_url: RedisUrl,
}

#[derive(Debug, Clone, PartialEq)]
pub struct JwtKey {
    pub alg: jsonwebtoken::Algorithm,
    /// The key is used only for tokens with this `kid`; `None` = for every token.
    pub kid: Option<String>,
    pub material: JwtKeyMaterial,
}

#[derive(Debug, Clone, PartialEq)]
pub enum JwtKeyMaterial {
    /// For HS256, HS384 and HS512.
    Secret(Secret),
    /// The PEM text of a public key, already read from its file: for RS256, PS256, ES256 and EdDSA.
    PublicPem(String),
}
