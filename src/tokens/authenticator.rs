//! Whom a credential names, and whether it is good where it is presented: when a socket is opened, and when
//! an open one is to live on.
//!
//! Which credentials a route takes, and whether their channels fit, is for those who ask.

use std::sync::Arc;

use super::{Identity, JwtRejection, JwtVerifier, SessionVersions, TokenStore};
use crate::config;
use crate::protocol::{ChannelPattern, ErrorCode, OriginTag, Params, Template, TemplateContext};
use crate::telemetry::credentials::CredentialCause;

/// Accepts connection tokens and JWTs. Cheap to clone, shared by all threads.
#[derive(Clone)]
pub struct Authenticator {
    store: TokenStore,
    jwts: JwtVerifier,
    /// `[tokens] binding`.
    binding: Option<Arc<Template>>,
    /// `[jwt] session_version`.
    versions: Option<Arc<SessionVersions>>,
}

/// Where a credential is presented.
#[derive(Debug, Clone, Copy)]
pub struct CredentialContext<'a> {
    /// Of the connection's path.
    pub params: &'a Params,
    /// Of the connection's handshake; `None` = it named none.
    pub origin: Option<OriginTag>,
}

/// Why a credential is not accepted; never told to the client in so many words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialRejection {
    /// Unknown, expired, used or malformed.
    Token,
    /// Its record is bound to another origin.
    TokenOrigin,
    /// Its record's `connection_id` does not fit `[tokens] binding`.
    TokenBinding,
    Jwt(JwtRejection),
    /// The JWT is good, but its session has been ended since.
    SessionOver,
    /// The engine that keeps tokens, or session versions, could not be asked.
    EngineUnavailable,
}

impl CredentialRejection {
    /// The cause for logs and metrics.
    pub fn cause(self) -> CredentialCause {
        match self {
            Self::Token => CredentialCause::Token,
            Self::TokenOrigin => CredentialCause::TokenOrigin,
            Self::TokenBinding => CredentialCause::TokenBinding,
            Self::Jwt(JwtRejection::KeysUnavailable) => CredentialCause::JwtKeys,
            Self::Jwt(JwtRejection::Expired) => CredentialCause::JwtExpired,
            Self::Jwt(_) => CredentialCause::Jwt,
            Self::SessionOver => CredentialCause::SessionOver,
            Self::EngineUnavailable => CredentialCause::Engine,
        }
    }

    /// Where nothing is known against the credential, since who knows cannot be asked: what is away.
    pub fn unavailable(self) -> Option<ErrorCode> {
        match self {
            Self::EngineUnavailable => Some(ErrorCode::EngineUnavailable),
            Self::Jwt(JwtRejection::KeysUnavailable) => Some(ErrorCode::UpstreamUnavailable),
            _ => None,
        }
    }
}

impl Authenticator {
    /// `Err` names the key that cannot be used.
    pub fn new(
        tokens: &config::Tokens,
        jwt: &config::Jwt,
        store: TokenStore,
    ) -> Result<Self, String> {
        let binding = tokens.binding.clone().map(Arc::new);
        Ok(Self { store, jwts: JwtVerifier::new(jwt)?, binding, versions: None })
    }

    /// The same, and a JWT's session must not have been ended since.
    pub fn with_session_versions(self, versions: Option<SessionVersions>) -> Self {
        Self { versions: versions.map(Arc::new), ..self }
    }

    /// Consumes a connection token and compares what it is bound to, but for its channels.
    pub async fn redeem(
        &self,
        token: &str,
        context: CredentialContext<'_>,
    ) -> Result<Identity, CredentialRejection> {
        let consumed = self.store.consume(token).await;
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
            if !is_bound(binding, id, context.params, &identity) {
                return Err(CredentialRejection::TokenBinding);
            }
        }
        Ok(identity)
    }

    /// See [`JwtVerifier::verify`]; and that its session is not over, where that is kept.
    pub async fn verify(&self, jwt: &str) -> Result<Identity, CredentialRejection> {
        let verified = self.jwts.verify(jwt).await;
        let (identity, claims) = verified.map_err(CredentialRejection::Jwt)?;
        if let (Some(versions), Some(user_id)) = (&self.versions, &identity.user_id) {
            versions.check(user_id, &claims).await?;
        }
        Ok(identity)
    }

    /// Where connection tokens are kept.
    pub fn store(&self) -> &TokenStore {
        &self.store
    }
}

/// Whether a record's connection id fits `[tokens] binding`, a template with `*` for any run of
/// characters. A parameter with a star of its own fits nothing, since it would stand for anything.
fn is_bound(binding: &Template, id: &str, params: &Params, identity: &Identity) -> bool {
    let user = identity.key();
    if params.iter().any(|(_, value)| value.contains('*')) || user.contains('*') {
        return false;
    }
    let filled = binding.fill(TemplateContext { params, user_id: &user, channel: None });
    ChannelPattern::new(filled).matches(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PathPattern;

    #[test]
    fn a_binding_is_no_wildcard_for_clients() {
        let binding = Template::parse("chat-{id}-*").unwrap();
        let path = PathPattern::parse("/{id}").unwrap();
        let fits = |path_text: &str, id: &str| {
            let params = path.matches(path_text).unwrap();
            is_bound(&binding, id, &params, &Identity::anonymous())
        };
        assert!(fits("/42", "chat-42-1764500000"));
        assert!(!fits("/42", "chat-421-1764500000"));
        assert!(!fits("/42", ""));
        assert!(!fits("/*", "chat-42-1764500000"));
    }
}
