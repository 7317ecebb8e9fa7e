//! Authentication of clients: single-use connection tokens, and JWTs.
//!
//! This module decides which user a credential names, what it is limited to, and whether it may be used
//! where it is presented. The handshake and the session decide which credentials a route accepts and
//! compare channels. Invariants: of any number of simultaneous uses of one connection token exactly one
//! succeeds; a credential that cannot be checked is refused; no token is logged.

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
#[cfg(test)]
pub use jwt::JwtRejection;
pub use jwt::{JwtFailure, JwtVerifier, sign_hs, usable_keys};
pub use record::TokenRecord;
pub use redis::TokenUse;
pub use session_version::SessionVersions;
pub use store::{NotIssued, TokenStore};
