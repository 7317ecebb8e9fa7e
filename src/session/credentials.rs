//! The credentials behind a connection: their expiry, the notice of it, and their refresh while the socket
//! stays open.
//!
//! No connection has a timer for them: the registry's sweep checks. Credentials are verified in `tokens`,
//! like those of a handshake. Invariants: a connection never changes its user; credentials that are refused
//! change nothing; no more than one refresh of a connection is in progress.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::tick::Tick;
use super::{CredentialKind, Session};
use crate::clock;
use crate::config::AuthSource;
use crate::protocol::{
    CloseReason, ErrorCode, ErrorEvent, OriginTag, Renewal, refreshed, token_expiring_soon,
};
use crate::telemetry;
use crate::telemetry::credentials::RefreshOutcome;
use crate::tokens::{CredentialContext, CredentialRejection, Identity, JwtFailure};

/// How long a client waits when it is not known how long the engine or the key set will be unavailable.
const RETRY_SECONDS: u64 = 5;

pub(super) struct CredentialState {
    /// When the credentials were accepted: `max_session` counts from here.
    accepted_at: Cell<Tick>,
    /// Whether the client is to be notified before its credentials expire, and has not been yet.
    is_notice_due: Cell<bool>,
    is_refreshing: Cell<bool>,
}

impl CredentialState {
    pub fn new(now: Tick) -> Self {
        Self {
            accepted_at: Cell::new(now),
            is_notice_due: Cell::new(false),
            is_refreshing: Cell::new(false),
        }
    }

    /// The client was sent `connected` or `refreshed`: notify it before its credentials expire.
    pub fn expect_notice(&self) {
        self.is_notice_due.set(true);
    }

    /// Until the credentials expire or `max_session` is over, whichever is first. `None` if neither happens.
    fn time_left(
        &self,
        expires_at: Option<Duration>,
        max_session: Option<Duration>,
        unix_now: Duration,
        elapsed: Duration,
    ) -> Option<Duration> {
        let by_credentials = expires_at.map(|expires_at| expires_at.saturating_sub(unix_now));
        let by_session =
            max_session.map(|max| max.saturating_sub(self.accepted_at.get().elapsed(elapsed)));
        by_credentials.into_iter().chain(by_session).min()
    }
}

/// A refresh in progress, until it is dropped.
struct Refresh(Rc<Session>);

impl Refresh {
    /// `None` if another refresh of the session is in progress.
    fn begin(session: &Rc<Session>) -> Option<Self> {
        let was_refreshing = session.credentials.is_refreshing.replace(true);
        (!was_refreshing).then(|| Self(Rc::clone(session)))
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        self.0.credentials.is_refreshing.set(false);
    }
}

/// Why new credentials are not accepted.
enum RefreshRefusal {
    /// The route does not take credentials of this kind.
    Kind,
    /// The connection is anonymous, and stays so.
    Anonymous,
    Credential(CredentialRejection),
    OtherUser,
    /// They do not allow the channel.
    Channel,
}

impl RefreshRefusal {
    fn jwt_failure(&self) -> Option<JwtFailure> {
        match self {
            Self::Credential(rejection) => rejection.jwt_failure(),
            _ => None,
        }
    }

    fn outcome(&self) -> RefreshOutcome {
        match self {
            Self::Kind => RefreshOutcome::Kind,
            Self::Anonymous => RefreshOutcome::Anonymous,
            Self::Credential(rejection) => RefreshOutcome::Credential(rejection.cause()),
            Self::OtherUser => RefreshOutcome::OtherUser,
            Self::Channel => RefreshOutcome::Channel,
        }
    }

    /// One text for all reasons, so that it reveals nothing about the credentials.
    fn event(&self) -> ErrorEvent<'static> {
        let unavailable = match self {
            Self::Credential(rejection) => rejection.unavailable(),
            _ => None,
        };
        match unavailable {
            Some(code) => {
                let text = "credentials cannot be checked at the moment; try again";
                ErrorEvent::new(code, text).retry_after(RETRY_SECONDS)
            }
            None => {
                let text = "these credentials are not accepted for this connection";
                ErrorEvent::new(ErrorCode::InvalidCredentials, text)
            }
        }
    }
}

impl Session {
    /// Closes the connection when its credentials expire, and notifies the client before.
    pub(super) fn check_credentials(&self, now: Instant, unix_now: Duration) {
        let Some(left) = self.time_left(now, unix_now) else { return };
        if left.is_zero() {
            return self.socket.close(CloseReason::Unauthenticated);
        }
        let is_near = self.client.route.borrow().expiry_notice.is_some_and(|notice| left <= notice);
        if is_near && self.credentials.is_notice_due.replace(false) && self.socket.is_open() {
            let seconds = whole_seconds(left);
            telemetry::credentials::expiry_notice_sent(self.log_fields(), seconds);
            self.send_event(&token_expiring_soon(seconds));
        }
    }

    pub(super) fn time_left(&self, now: Instant, unix_now: Duration) -> Option<Duration> {
        let expires_at = self.client.expires_at().map(Duration::from_secs);
        let max_session = self.client.route.borrow().max_session;
        let elapsed = now.duration_since(self.services.started);
        self.credentials.time_left(expires_at, max_session, unix_now, elapsed)
    }

    /// A `refresh` frame, which has been counted like a message.
    pub(super) fn on_refresh(self: &Rc<Self>, renewal: Renewal) {
        match Refresh::begin(self) {
            Some(refresh) => {
                self.spawn(Rc::clone(self).refresh(renewal, refresh));
            }
            None => {
                let text = "a refresh of this connection is in progress";
                self.refuse(&ErrorEvent::new(ErrorCode::Busy, text).retry_after(1));
            }
        }
    }

    async fn refresh(self: Rc<Self>, renewal: Renewal, refresh: Refresh) {
        let kind = match renewal {
            Renewal::ConnectionToken(_) => CredentialKind::ConnectionToken,
            Renewal::Jwt(_) => CredentialKind::Jwt,
        };
        let verified = self.verify_renewal(renewal).await;
        drop(refresh);
        let outcome =
            verified.as_ref().err().map_or(RefreshOutcome::Refreshed, RefreshRefusal::outcome);
        let failure = verified.as_ref().err().and_then(RefreshRefusal::jwt_failure);
        telemetry::credentials::refreshed(self.log_fields(), outcome, failure);
        match verified {
            Ok(identity) => {
                self.client.refresh(identity, kind);
                self.credentials.accepted_at.set(Tick::at(self.services.now()));
                self.credentials.expect_notice();
                let left = self.time_left(Instant::now(), clock::since_unix_epoch());
                self.send_event(&refreshed(left.map(whole_seconds)));
            }
            Err(refusal) => self.refuse(&refusal.event()),
        }
    }

    /// Returns the identity of the new credentials, which must be of the same user and allow the same
    /// channel.
    async fn verify_renewal(&self, renewal: Renewal) -> Result<Identity, RefreshRefusal> {
        let client = &self.client;
        let accepts =
            |sources: &[AuthSource]| client.route.borrow().auth.iter().any(|s| sources.contains(s));
        let user_id = client.user_id().ok_or(RefreshRefusal::Anonymous)?;
        let config = self.services.config();
        let authenticator = &config.authenticator;
        let identity = match renewal {
            Renewal::ConnectionToken(token) if accepts(&[AuthSource::ConnectionToken]) => {
                let origin = client.origin().and_then(OriginTag::parse);
                let context = CredentialContext { params: &client.params, origin };
                authenticator.redeem(&token, context).await
            }
            Renewal::Jwt(jwt)
                if accepts(&[AuthSource::Cookie, AuthSource::Bearer, AuthSource::Query]) =>
            {
                authenticator.verify(&jwt).await
            }
            _ => return Err(RefreshRefusal::Kind),
        };
        let identity = identity.map_err(RefreshRefusal::Credential)?;
        if identity.user_id.as_ref() != Some(user_id) {
            Err(RefreshRefusal::OtherUser)
        } else if !identity.may_join_route(client.channel.as_ref()) {
            Err(RefreshRefusal::Channel)
        } else {
            Ok(identity)
        }
    }
}

/// Rounded up, so that credentials which were just issued for 900 seconds are reported as 900.
fn whole_seconds(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}
