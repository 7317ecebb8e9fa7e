//! The credentials behind a connection: their end, the notice of it, and others in their place while the
//! socket stays open.
//!
//! No connection has a timer for it: the registry's sweep asks. What a credential is worth is judged in
//! `tokens`, like a handshake's. Invariants: a connection never changes its user; credentials that are
//! refused change nothing; no more than one refresh of a connection is under way.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Session;
use crate::clock;
use crate::config::AuthSource;
use crate::protocol::{
    CloseReason, ErrorCode, ErrorEvent, Renewal, refreshed, token_expiring_soon,
};
use crate::telemetry;
use crate::tokens::{CredentialContext, CredentialRejection, Identity};

/// Where it is not known for how long the engine or the key set is away.
const TRY_AGAIN_SECONDS: u64 = 5;

/// Why other credentials are not taken.
enum Refusal {
    /// The route takes none of this kind.
    Kind,
    /// The connection belongs to nobody, and stays so.
    Anonymous,
    Credential(CredentialRejection),
    OtherUser,
    /// They do not allow the channel.
    Channel,
}

impl Refusal {
    /// A stable word for logs and metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Anonymous => "anonymous",
            Self::Credential(rejection) => rejection.label(),
            Self::OtherUser => "other_user",
            Self::Channel => "channel",
        }
    }

    /// One text, whatever is wrong with them.
    fn event(&self) -> ErrorEvent<'static> {
        let unavailable = match self {
            Self::Credential(rejection) => rejection.unavailable(),
            _ => None,
        };
        match unavailable {
            Some(code) => {
                let text = "credentials cannot be checked at the moment; try again";
                ErrorEvent::new(code, text).retry_after(TRY_AGAIN_SECONDS)
            }
            None => {
                let text = "these credentials are not accepted for this connection";
                ErrorEvent::new(ErrorCode::InvalidCredentials, text)
            }
        }
    }
}

impl Session {
    /// Closes the connection at the end of its credentials, and gives notice before.
    pub(super) fn check_credentials(&self, now: Instant, unix_now: Duration) {
        let Some(left) = self.time_left(now, unix_now) else { return };
        if left.is_zero() {
            return self.socket.close(CloseReason::Unauthenticated);
        }
        let is_near = self.client.route.borrow().expiry_notice.is_some_and(|notice| left <= notice);
        if is_near && self.notice_due.replace(false) && self.socket.is_open() {
            let seconds = whole_seconds(left);
            telemetry::credentials::notice_sent(self.about(), seconds);
            self.say(&token_expiring_soon(seconds));
        }
    }

    /// Until the credentials expire or `max_session` is over, whichever is first; `None` = neither ever.
    fn time_left(&self, now: Instant, unix_now: Duration) -> Option<Duration> {
        let expires_at = self.client.identity.borrow().expires_at.map(Duration::from_secs);
        let by_credentials = expires_at.map(|expires_at| expires_at.saturating_sub(unix_now));
        let elapsed = now.duration_since(self.services.started);
        let max_session = self.client.route.borrow().max_session;
        let by_session = max_session.map(|max| (self.renewed.get() + max).saturating_sub(elapsed));
        by_credentials.into_iter().chain(by_session).min()
    }

    /// A `refresh` frame, which has been paid for as a message is.
    pub(super) fn on_refresh(self: &Rc<Self>, renewal: Renewal) {
        if self.refreshing.replace(true) {
            let text = "a refresh of this connection is under way";
            return self.refuse(&ErrorEvent::new(ErrorCode::Busy, text).retry_after(1));
        }
        tokio::task::spawn_local(Rc::clone(self).refresh(renewal));
    }

    async fn refresh(self: Rc<Self>, renewal: Renewal) {
        let renewed = self.identify(renewal).await;
        self.refreshing.set(false);
        let refused = renewed.as_ref().err().map(Refusal::label);
        telemetry::credentials::refreshed(self.about(), refused);
        match renewed {
            Ok(identity) => {
                *self.client.identity.borrow_mut() = identity;
                self.renewed.set(self.services.now());
                self.notice_due.set(true);
                let left = self.time_left(Instant::now(), clock::since_unix_epoch());
                self.say(&refreshed(left.map(whole_seconds)));
            }
            Err(refusal) => self.refuse(&refusal.event()),
        }
    }

    /// Whom the new credentials name: the same user, in the same channel.
    async fn identify(&self, renewal: Renewal) -> Result<Identity, Refusal> {
        let client = &self.client;
        let takes =
            |sources: &[AuthSource]| client.route.borrow().auth.iter().any(|s| sources.contains(s));
        let user_id = client.user_id.as_ref().ok_or(Refusal::Anonymous)?;
        let terms = self.services.terms();
        let authenticator = &terms.authenticator;
        let identity = match renewal {
            Renewal::ConnectionToken(token) if takes(&[AuthSource::ConnectionToken]) => {
                let context = CredentialContext { params: &client.params, origin: client.origin };
                authenticator.redeem(&token, context).await
            }
            Renewal::Jwt(jwt)
                if takes(&[AuthSource::Cookie, AuthSource::Bearer, AuthSource::Query]) =>
            {
                authenticator.verify(&jwt).await
            }
            _ => return Err(Refusal::Kind),
        };
        let identity = identity.map_err(Refusal::Credential)?;
        if identity.user_id.as_ref() != Some(user_id) {
            Err(Refusal::OtherUser)
        } else if !identity.may_join(client.channel.as_str()) {
            Err(Refusal::Channel)
        } else {
            // As the client and its upstream know it, whether as a number or as text.
            Ok(Identity { user_id: Some(user_id.clone()), ..identity })
        }
    }
}

/// Rounded up, so that what has just been given for 900 seconds is said to last 900.
fn whole_seconds(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}
