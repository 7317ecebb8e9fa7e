//! Who a client is: single-use connection tokens, and JWTs.
//!
//! This module says whom a credential names, what it is limited to, and whether it may be used where it is
//! presented. Which credentials a route takes, and whether their channels fit, is for the handshake and
//! the session to compare. Invariants: of any
//! number of simultaneous uses of one connection token exactly one wins; what cannot be checked is
//! refused; no token is logged.

mod authenticator;
mod identity;
mod jwt;
mod memory;
mod record;
mod redis;
mod session_version;
mod store;
mod token;

pub use authenticator::{Authenticator, CredentialContext, CredentialRejection};
pub use identity::Identity;
pub use jwt::{JwtRejection, JwtVerifier, sign_hs};
pub use record::TokenRecord;
pub use session_version::SessionVersions;
pub use store::TokenStore;

/// The engine that keeps tokens cannot be reached, is full, or refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineDown;

impl std::fmt::Display for EngineDown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the engine that keeps tokens is not available")
    }
}

impl std::error::Error for EngineDown {}
