//! Who may connect to a route: the sources of credentials, and who decides about a channel.

use super::values::{AUTH, CLAIMS};
use crate::config::kinds;
use crate::config::section::Section;
use crate::config::{AuthSource, Authorize, AuthorizeUrl};

pub fn auth(s: &mut Section<'_>) -> Option<Vec<AuthSource>> {
    let auth = s.list(
        "auth",
        AUTH,
        &["connection_token", "cookie", "bearer", "query"],
        "Sources of credentials, tried in this order; \"anonymous\" may only be last.",
    )?;
    let fix = if auth.is_empty() {
        "write at least one; \"anonymous\" admits everybody"
    } else if auth.iter().enumerate().any(|(index, source)| auth[..index].contains(source)) {
        "write each source only once"
    } else if auth.iter().rev().skip(1).any(|source| *source == AuthSource::Anonymous) {
        "write \"anonymous\" last: sources after it are never tried"
    } else {
        return Some(auth);
    };
    s.mistake("auth", None, fix);
    None
}

pub fn authorize(s: &mut Section<'_>) -> Option<Authorize> {
    if !s.is_table("authorize") {
        return s.key(
            "authorize",
            CLAIMS,
            "claims",
            "\"claims\": the channel patterns of the credentials, if they have any. \"none\": the same, and whoever has \
             credentials without patterns may join every channel of this route on purpose. A table: the backend is \
             asked as well.",
        );
    }
    s.inline("authorize", |s| {
        let url = s.required(
            "url",
            kinds::HTTP_URL,
            "Asked by POST after the claims; only a 2xx response admits the client.",
        );
        let timeout = s.key(
            "timeout",
            kinds::POSITIVE_DURATION,
            "2s",
            "Without a response in this time, the client is rejected.",
        );
        let max_in_flight = s.key(
            "max_in_flight",
            kinds::POSITIVE_COUNT,
            64,
            "Questions in progress. Sixteen times as many may wait; beyond it clients are rejected with 1013.",
        );
        let max_in_flight_per_user = s.key(
            "max_in_flight_per_user",
            kinds::COUNT,
            0,
            "The same for one user, or for the anonymous clients of one address; 0 = a quarter of max_in_flight.",
        );
        let cache = s.key(
            "cache",
            kinds::DURATION,
            "0s",
            "How long a 2xx or 4xx for a user is used for the same channel, parameters and origin; \"0s\" = each client \
             is asked about.",
        );
        let signing_secret = s.secret(
            "signing_secret",
            kinds::OPTIONAL_SECRET,
            "",
            "Signs questions as messages are signed: HMAC-SHA256 of time and body; \"\" = not signed.",
        );
        Some(Authorize::Url(Box::new(AuthorizeUrl {
            url: url?,
            timeout: timeout?,
            max_in_flight: max_in_flight?,
            max_in_flight_per_user: max_in_flight_per_user?,
            cache: cache?,
            signing_secret: signing_secret?,
        })))
    })
}
