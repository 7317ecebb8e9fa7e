//! Checks credentials when a connection is opened, and when an open connection renews them.
//!
//! The callers decide which credentials a route accepts, and compare channels.

use std::sync::Arc;

use super::jwt::JwtRejection;
use super::{
    Identity, JwtFailure, JwtVerifier, SessionVersions, TokenRecord, TokenStore, TokenUse,
};
use crate::config;
use crate::protocol::{ChannelPattern, ErrorCode, OriginTag, Params, Template, TemplateContext};
use crate::redis_link::{EngineUnavailable, RedisFailure, Step, StepAnswer};
use crate::telemetry::credentials::CredentialCause;

/// Accepts connection tokens and JWTs. Cheap to clone, shared by all threads.
#[derive(Clone)]
pub struct Authenticator {
    store: TokenStore,
    jwts: JwtVerifier,
    /// The setting `[tokens] binding`.
    binding: Option<Arc<Template>>,
    /// The check of `[jwt] session_version`; `None` = it is not configured.
    versions: Option<Arc<SessionVersions>>,
}

/// The connection that a credential is presented for.
#[derive(Debug, Clone, Copy)]
pub struct CredentialContext<'a> {
    /// The parameters of the connection's path.
    pub params: &'a Params,
    /// The `Origin` of the connection's handshake; `None` = it had none.
    pub origin: Option<OriginTag>,
}

/// Why a credential is not accepted. Clients are not told the exact reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialRejection {
    /// The connection token is unknown, expired, used or malformed.
    Token,
    /// The token's record is bound to another origin.
    TokenOrigin,
    /// The `connection_id` of the token's record does not match `[tokens] binding`.
    TokenBinding,
    Jwt(JwtFailure),
    /// The JWT is valid, but its session has been ended since it was issued.
    SessionOver,
    /// The engine that stores tokens, or the Redis with session versions, is not available.
    EngineUnavailable,
}

impl CredentialRejection {
    /// Which check of a JWT failed; `None` = the credential is a token, or was not checked.
    pub fn jwt_failure(self) -> Option<JwtFailure> {
        match self {
            Self::Jwt(failure) => Some(failure),
            _ => None,
        }
    }

    /// The cause for logs and metrics.
    pub fn cause(self) -> CredentialCause {
        match self {
            Self::Token => CredentialCause::Token,
            Self::TokenOrigin => CredentialCause::TokenOrigin,
            Self::TokenBinding => CredentialCause::TokenBinding,
            Self::Jwt(failure) => match failure.rejection {
                JwtRejection::KeysUnavailable => CredentialCause::JwtKeys,
                JwtRejection::Expired => CredentialCause::JwtExpired,
                _ => CredentialCause::Jwt,
            },
            Self::SessionOver => CredentialCause::SessionOver,
            Self::EngineUnavailable => CredentialCause::Engine,
        }
    }

    /// Returns the error code for a credential that could not be checked because a backend is not
    /// available; `None` = it was checked and refused.
    pub fn unavailable(self) -> Option<ErrorCode> {
        match self {
            Self::EngineUnavailable => Some(ErrorCode::EngineUnavailable),
            Self::Jwt(JwtFailure { rejection: JwtRejection::KeysUnavailable, .. }) => {
                Some(ErrorCode::UpstreamUnavailable)
            }
            _ => None,
        }
    }
}

impl Authenticator {
    /// `Err` names the configured key that cannot be used.
    pub fn new(
        tokens: &config::Tokens,
        jwt: &config::Jwt,
        store: TokenStore,
    ) -> Result<Self, String> {
        let binding = tokens.binding.clone().map(Arc::new);
        Ok(Self { store, jwts: JwtVerifier::new(jwt)?, binding, versions: None })
    }

    /// Adds the check that the session of a JWT has not been ended since it was issued.
    pub fn with_session_versions(self, versions: Option<SessionVersions>) -> Self {
        Self { versions: versions.map(Arc::new), ..self }
    }

    /// Consumes a connection token and checks its origin and binding; the caller compares its channels.
    pub async fn redeem(
        &self,
        token: &str,
        context: CredentialContext<'_>,
    ) -> Result<Identity, CredentialRejection> {
        self.accept(self.store.consume(token).await, context)
    }

    /// [`Authenticator::redeem`] as the first step of a chain, see [`TokenStore::consume_step`]. `None` = this is not
    /// possible.
    pub fn redeem_step(&self, token: &str, purpose: TokenUse<'_>) -> Option<Step> {
        // The binding of a record is only compared here.
        self.binding.is_none().then(|| self.store.consume_step(token, purpose))?
    }

    /// Returns what [`Authenticator::redeem`] would have returned, from the answer to its step.
    pub fn read_redeemed(
        &self,
        token: &str,
        context: CredentialContext<'_>,
        answer: Result<StepAnswer, RedisFailure>,
    ) -> Result<Identity, CredentialRejection> {
        self.accept(self.store.read_consumed(token, answer), context)
    }

    /// Compares the record of a token that is used up with the connection.
    fn accept(
        &self,
        consumed: Result<Option<TokenRecord>, EngineUnavailable>,
        context: CredentialContext<'_>,
    ) -> Result<Identity, CredentialRejection> {
        let record = consumed.map_err(|_| CredentialRejection::EngineUnavailable)?;
        let record = record.ok_or(CredentialRejection::Token)?;
        let identity = Identity::from(&record);
        if let Some(bound) = &record.origin
            && (context.origin.is_none() || context.origin != OriginTag::parse(bound))
        {
            return Err(CredentialRejection::TokenOrigin);
        }
        if let Some(binding) = &self.binding {
            let id = record.connection_id.as_deref().unwrap_or_default();
            if !matches_binding(binding, id, context.params, &identity) {
                return Err(CredentialRejection::TokenBinding);
            }
        }
        Ok(identity)
    }

    /// Verifies a JWT (see [`JwtVerifier::verify`]) and, where configured, that its session has not ended.
    pub async fn verify(&self, jwt: &str) -> Result<Identity, CredentialRejection> {
        let verified = self.jwts.verify(jwt).await;
        let verified = verified.map_err(CredentialRejection::Jwt)?;
        if let (Some(versions), Some(user_id)) = (&self.versions, &verified.identity.user_id) {
            let claims = verified.claims().map_err(|why| CredentialRejection::Jwt(why.into()))?;
            versions.check(user_id, &claims).await?;
        }
        Ok(verified.identity.clone())
    }

    /// Returns the store of connection tokens.
    pub fn store(&self) -> &TokenStore {
        &self.store
    }
}

/// Whether a record's connection id matches `[tokens] binding`, a template with `*` for any run of
/// characters. A parameter or user id that contains a star matches nothing, because it would act as a
/// wildcard.
fn matches_binding(binding: &Template, id: &str, params: &Params, identity: &Identity) -> bool {
    let user = identity.key();
    if params.iter().any(|(_, value)| value.contains('*')) || user.contains('*') {
        return false;
    }
    let filled = binding.fill(TemplateContext { params, user_id: &user, channel: None });
    ChannelPattern::new(filled).matches(id)
}

#[cfg(test)]
mod tests;
