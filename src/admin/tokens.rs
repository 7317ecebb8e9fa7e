//! `POST /v1/tokens`: a connection token for a user that the caller has authenticated.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::connection::Caller;
use super::{Admin, Answer, api};
use crate::clock;
use crate::protocol::{Origin, UserId};
use crate::telemetry::admin::Action;
use crate::tokens::TokenRecord;

const MAX_BODY_BYTES: usize = 12 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    user_id: Value,
    username: Option<String>,
    channels: Option<Vec<String>>,
    origin: Option<String>,
    connection_id: Option<String>,
    /// Seconds from now.
    session_expires_in: Option<u64>,
}

impl Body {
    /// Checks the fields and returns the user. A token that nobody could use is refused here, where its
    /// issuer sees the reason.
    fn check(&self) -> Result<UserId, &'static str> {
        let user_id = UserId::from_json(&self.user_id)
            .ok_or("user_id must be an integer or a non-empty string")?;
        if self.origin.as_deref().is_some_and(|origin| Origin::parse(origin).is_none()) {
            return Err("origin must be scheme://host[:port]");
        }
        if self.session_expires_in == Some(0) {
            return Err("session_expires_in must be at least 1 second");
        }
        Ok(user_id)
    }
}

impl Admin {
    pub(super) async fn issue_token(
        &self,
        request: Request<Incoming>,
        caller: &Caller<'_>,
    ) -> Result<Answer, Answer> {
        let body: Body = api::read(request, MAX_BODY_BYTES).await?;
        let user_id = body.check().map_err(api::bad_request)?;
        let now = clock::since_unix_epoch();
        let record = TokenRecord {
            user_id,
            username: body.username,
            connection_id: body.connection_id,
            created_at: now.as_secs_f64(),
            used: false,
            channels: body.channels,
            origin: body.origin,
            session_expires_at: body
                .session_expires_in
                .map(|seconds| now.as_secs().saturating_add(seconds)),
            claims: None,
        };
        let token = self.tokens.issue(&record).await.map_err(|_| api::engine_down())?;
        caller.audit(Action::TokenIssued, &record.user_id);
        let answer = serde_json::json!({
            "connection_token": token,
            "expires_in": self.token_ttl.as_secs(),
        });
        Ok(api::json(StatusCode::OK, &answer))
    }
}

#[cfg(test)]
mod tests;
