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
