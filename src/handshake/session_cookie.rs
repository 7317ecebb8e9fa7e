//! Identification by session cookies, of which a browser may send several with the same name.
//!
//! This happens if cookies were set for the host and for its domain, or for two paths. Their order has no
//! meaning, and a page of a sibling host can set one as well. Invariants: an invalid cookie, such as an
//! expired one, does not affect a valid one; cookies of two users are refused, so that no page can sign
//! somebody in as another user; of several cookies of one user the last one is used, as by Django's parser.

use hyper::HeaderMap;

use super::credentials::cookies;
use super::{Handshake, Rejection};
use crate::tokens::Identity;

/// The maximum number of different cookies of one name, because each costs a signature check.
const MAX_COOKIES: usize = 4;

impl Handshake {
    /// Verifies the session cookies; `None` = the request has none.
    pub(super) async fn identify_by_cookie(
        &self,
        headers: &HeaderMap,
    ) -> Option<Result<Identity, Rejection>> {
        let offered = self.session_cookies(headers);
        if offered.len() > MAX_COOKIES {
            return Some(Err(Rejection::several_cookies()));
        }
        let mut found: Option<Result<Identity, Rejection>> = None;
        for jwt in offered {
            let verified = self.authenticator.verify(jwt).await.map_err(Rejection::credential);
            found = Some(match (found, verified) {
                (Some(Ok(one)), Ok(other)) if one.user_id != other.user_id => {
                    return Some(Err(Rejection::several_cookies()));
                }
                (Some(Ok(good)), Err(_)) => Ok(good),
                (_, verified) => verified,
            });
        }
        found
    }

    /// Returns each different value once. Empty cookies, which signing out leaves behind, are ignored.
    fn session_cookies<'h>(&self, headers: &'h HeaderMap) -> Vec<&'h str> {
        let mut offered = Vec::new();
        for value in cookies(headers, &self.session_cookie) {
            if !offered.contains(&value) && offered.len() <= MAX_COOKIES {
                offered.push(value);
            }
        }
        offered
    }
}
