//! Who a session cookie says that it is, where a browser sends several of its name.
//!
//! It does so where one was set for the host and one for its domain, or for two paths; which comes first
//! tells nothing, and a page of a sibling host can set one as well. Invariants: one that is not good (an old
//! one, mostly) takes nothing away from one that is; those of two users are nobody's, so that no page can
//! sign somebody in as somebody else; of one user's the last is taken, as Django's parser does.

use hyper::HeaderMap;

use super::credentials::cookies;
use super::{Handshake, Rejection};
use crate::tokens::Identity;

/// More different ones of one name are not looked at: each costs a signature check.
const MAX: usize = 4;

impl Handshake {
    /// `None` = there is no such cookie.
    pub(super) async fn identify_by_cookie(
        &self,
        headers: &HeaderMap,
    ) -> Option<Result<Identity, Rejection>> {
        let offered = self.session_cookies(headers);
        if offered.len() > MAX {
            return Some(Err(Rejection::several_cookies()));
        }
        let mut found: Option<Result<Identity, Rejection>> = None;
        for jwt in offered {
            let judged = self.authenticator.verify(jwt).await.map_err(Rejection::credential);
            found = Some(match (found, judged) {
                (Some(Ok(one)), Ok(other)) if one.user_id != other.user_id => {
                    return Some(Err(Rejection::several_cookies()));
                }
                (Some(Ok(good)), Err(_)) => Ok(good),
                (_, judged) => judged,
            });
        }
        found
    }

    /// Each different value once; an empty one is what signing out leaves.
    fn session_cookies<'h>(&self, headers: &'h HeaderMap) -> Vec<&'h str> {
        let mut offered = Vec::new();
        for value in cookies(headers, &self.session_cookie) {
            if !offered.contains(&value) && offered.len() <= MAX {
                offered.push(value);
            }
        }
        offered
    }
}
