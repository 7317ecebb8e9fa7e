//! Credentials: why they are rejected, connection tokens issued and consumed, and credentials renewed on open
//! connections.
//!
//! A token appears only as its log id, the first 8 hex digits of its SHA-256.

use std::net::IpAddr;

use tracing::field::display;
use tracing::{debug, info, warn};

use super::definitions::{metrics, words};
use super::jwts::JwtFailure;
use super::log::{AUDIT, ConnectionFields, connection_event};
use crate::protocol::{UserId, label_enum};

metrics! {
    /// Connection tokens: issued, or why they were not issued.
    ISSUED = counter "tidegate_tokens_issued_total" [outcome: words(&[Issue::LABELS])];
    /// Requests to the token endpoint that were refused.
    REQUESTS_REFUSED = counter "tidegate_token_requests_refused_total" [
        cause: words(&[TokenRequestRefusal::LABELS]),
    ];
    /// Connection tokens that clients presented, by outcome.
    CONSUMED = counter "tidegate_tokens_consumed_total" [outcome: words(&[Consumption::LABELS])];
    /// Credentials that clients presented to renew an open connection: accepted, or the reason of the refusal.
    REFRESHES = counter "tidegate_refreshes_total" [outcome: words(&[RefreshOutcome::LABELS])];
    /// Notices to clients that their credentials expire soon.
    EXPIRY_NOTICES = counter "tidegate_expiry_notices_total";
}

label_enum! {
    /// Why the credentials of a client are rejected.
    pub enum CredentialCause {
        /// The connection token is unknown, expired, used or malformed.
        Token => "token",
        /// The connection token is bound to another origin.
        TokenOrigin => "token_origin",
        /// The `connection_id` of the connection token does not fit `[tokens] binding`.
        TokenBinding => "token_binding",
        /// The keys that verify the JWT could not be fetched.
        JwtKeys => "jwt_keys",
        JwtExpired => "jwt_expired",
        /// The JWT is not valid for another reason.
        Jwt => "jwt",
        /// The JWT is valid, but its session has ended.
        SessionOver => "session_over",
        /// The engine that stores tokens, session versions or limits is unavailable.
        Engine => "engine",
    }
}

label_enum! {
    /// Why a client is rejected.
    pub enum RejectionCause {
        Origin => "origin",
        NoCredentials => "no_credentials",
        /// The request has several session cookies.
        SeveralCookies => "several_cookies",
        /// The credentials do not allow the channel.
        Channel => "channel",
        /// The authorize URL does not allow the channel.
        Authorize => "authorize",
        /// The authorize URL gave no decision.
        AuthorizeUnavailable => "authorize_unavailable",
        /// Too many clients, or too many of this user or address, wait for the authorize URL.
        AuthorizeBusy => "authorize_busy",
        /// The limit `connects_per_user`.
        Connects => "connects",
        /// The limit `[limits] channels_per_ip`.
        Channels => "channels_per_ip",
        /// The limit `connections_per_user`.
        Connections => "connections",
        /// The limit `connects_per_ip`.
        ConnectsPerIp => "connects_per_ip",
        ConnectionsPerIp => "connections_per_ip",
        /// The limit `requests_per_ip`.
        RequestsPerIp => "requests_per_ip",
        /// The headers and cookies for `forward_headers` and `forward_cookies` are larger than 8 KiB.
        ForwardedTooLarge => "forwarded_too_large",
        /// The limit `max_connections`, for a socket over HTTP/2.
        ConnectionsTotal => "connections_total",
        /// The limit `max_memory`.
        Memory => "memory",
        /// The upstream of a pass route answered otherwise than with a socket.
        UpstreamRefused => "upstream_refused",
        /// It cannot be reached, its answer is not valid, or its circuit is open.
        UpstreamUnavailable => "upstream_unavailable",
        /// It did not answer in time.
        UpstreamTimeout => "upstream_timeout",
        /// `max_in_flight`, or the client's share of it, is reached.
        UpstreamBusy => "upstream_busy",
        /// The client gave up while its upstream was asked.
        Gone => "gone";
        Credential(CredentialCause),
    }
}

label_enum! {
    /// Why the token endpoint refuses a request.
    pub enum TokenRequestRefusal {
        BadRequest => "bad_request",
        Method => "method",
        Csrf => "csrf",
        /// The body is too large, or did not arrive in time.
        Body => "body",
        /// The limit `[tokens] requests_per_user`.
        UserRate => "token_requests_per_user",
        /// The limit `[tokens] requests_per_ip`.
        IpRate => "token_requests_per_ip",
        /// The limit `[tokens] outstanding_per_user`.
        Outstanding => "outstanding_per_user";
        Rejected(RejectionCause),
    }
}

label_enum! {
    enum Issue {
        Issued => "issued",
        EngineDown => "engine_down",
        /// The user has too many that wait to be used.
        TooManyOfUser => "too_many_of_user",
        /// The store in memory is full.
        StoreFull => "store_full",
    }
}

/// A token was issued to this user.
pub fn token_issued(token: &str, user: &UserId) {
    ISSUED.at([Issue::Issued.label()]).increment(1);
    info!(target: AUDIT, event = "token_issued", token, %user, "a connection token was issued");
}

/// A token was not issued, because the engine is unavailable or full.
pub fn token_not_issued(reason: &str) {
    ISSUED.at([Issue::EngineDown.label()]).increment(1);
    debug!(target: AUDIT, event = "token_not_issued", reason, "no connection token was issued");
}

/// A token was not issued, because the user has as many as may wait to be used.
pub fn user_has_too_many_tokens(user: &UserId) {
    ISSUED.at([Issue::TooManyOfUser.label()]).increment(1);
    info!(target: AUDIT, event = "user_has_too_many_tokens", %user, "no connection token was issued");
}

/// A token was not issued, because the store in memory has as many as it may have.
pub fn token_store_full() {
    ISSUED.at([Issue::StoreFull.label()]).increment(1);
    warn!(
        event = "token_store_full",
        "no connection token was issued: too many in memory wait to be used"
    );
}

/// The token endpoint refused a request of the client at `ip`. It is an audit event, but for what anybody can cause any
/// number of times: such lines are throttled.
pub fn token_request_refused(cause: TokenRequestRefusal, ip: IpAddr, details: RefusalDetails<'_>) {
    let is_bounded = !matches!(
        cause,
        TokenRequestRefusal::IpRate
            | TokenRequestRefusal::Method
            | TokenRequestRefusal::Rejected(RejectionCause::Origin)
    );
    let cause = cause.label();
    REQUESTS_REFUSED.at([cause]).increment(1);
    let (check, claim) = (details.check(), details.claim());
    let (user, channel, origin) = (details.user.map(display), details.channel, details.origin);
    if is_bounded {
        info!(
            target: AUDIT,
            event = "issue_refused",
            %ip,
            cause,
            origin,
            user,
            channel,
            check,
            claim,
            "{ISSUE_REFUSED}"
        );
    } else {
        info!(event = "issue_refused", %ip, cause, origin, "{ISSUE_REFUSED}");
    }
}

const ISSUE_REFUSED: &str = "the token endpoint refused a request";

label_enum! {
    /// What became of a connection token that a client presented.
    pub enum Consumption {
        Consumed => "consumed",
        /// It was never issued, has expired or was used before. The store cannot tell these apart.
        UnknownOrReplayed => "unknown_or_replayed",
        /// Its record is marked as used.
        Used => "used",
        /// The session that it was issued for has ended.
        SessionOver => "session_over",
        /// It does not have the form of a token; the store was not asked.
        MalformedToken => "malformed_token",
        /// The store holds something under it that is not a record.
        MalformedRecord => "malformed_record",
        EngineDown => "engine_down",
    }
}

const TOKEN_REFUSED: &str = "a connection token was refused";

/// A client presented a connection token. `user` is the one of its record, if there is a record; `reason` says what is
/// wrong with a record.
pub fn token_consumed(
    token: &str,
    user: Option<&UserId>,
    outcome: Consumption,
    reason: Option<&str>,
) {
    let (label, user) = (outcome.label(), user.map(display));
    CONSUMED.at([label]).increment(1);
    match outcome {
        // Anybody can send garbage, so it is not logged at `info`.
        Consumption::MalformedToken => {
            debug!(target: AUDIT, event = "token_refused", outcome = label, "{TOKEN_REFUSED}");
        }
        // The engine logs its own failure once; this is one line for each client.
        Consumption::EngineDown => {
            debug!(target: AUDIT, event = "token_refused", token, outcome = label, "{TOKEN_REFUSED}");
        }
        Consumption::Consumed => {
            info!(target: AUDIT, event = "token_consumed", token, user, "a connection token was used");
        }
        Consumption::MalformedRecord => {
            warn!(target: AUDIT, event = "token_refused", token, outcome = label, reason, "{TOKEN_REFUSED}");
        }
        _ => {
            info!(target: AUDIT, event = "token_refused", token, outcome = label, "{TOKEN_REFUSED}")
        }
    }
}

/// What a person needs to know about a refused client. The client is told none of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct RefusalDetails<'a> {
    /// The `Origin` header, as far as it can be shown.
    pub origin: Option<&'a str>,
    /// Who the client is, if that is known.
    pub user: Option<&'a UserId>,
    /// The channel that it wanted to join.
    pub channel: Option<&'a str>,
    pub jwt: Option<JwtFailure>,
}

impl RefusalDetails<'_> {
    /// The label of the check of the JWT that failed.
    pub(super) fn check(&self) -> Option<&'static str> {
        self.jwt.map(|failure| failure.rejection.label())
    }

    /// The claim that the check is about.
    pub(super) fn claim(&self) -> Option<&'static str> {
        Some(self.jwt?.claim?.label())
    }
}

label_enum! {
    /// What became of new credentials for an open connection.
    pub enum RefreshOutcome {
        Refreshed => "refreshed",
        /// The route does not accept this kind of credentials.
        Kind => "kind",
        /// The connection is anonymous and stays so.
        Anonymous => "anonymous",
        /// They are those of another user.
        OtherUser => "other_user",
        /// They do not allow the channel of the connection.
        Channel => "channel";
        Credential(CredentialCause),
    }
}

/// An audit event: a client presented new credentials for its connection. `failure` is the one of a JWT.
pub fn refreshed(
    fields: ConnectionFields<'_>,
    result: RefreshOutcome,
    failure: Option<JwtFailure>,
) {
    let outcome = result.label();
    let details = RefusalDetails { jwt: failure, ..RefusalDetails::default() };
    let (check, claim) = (details.check(), details.claim());
    REFRESHES.at([outcome]).increment(1);
    match result {
        RefreshOutcome::Refreshed => {
            connection_event!(audit info, fields, event = "credentials_refreshed", "credentials renewed");
        }
        // The engine logs its own failure once; this is one line for each client.
        RefreshOutcome::Credential(CredentialCause::Engine) => {
            connection_event!(audit debug, fields, event = "refresh_refused", outcome, "{REFRESH_REFUSED}");
        }
        _ => {
            connection_event!(audit info, fields, event = "refresh_refused", outcome, check, claim, "{REFRESH_REFUSED}");
        }
    }
}

const REFRESH_REFUSED: &str = "credentials for an open connection were refused";

/// A client was notified that its credentials expire in `expires_in` seconds.
pub fn expiry_notice_sent(fields: ConnectionFields<'_>, expires_in: u64) {
    EXPIRY_NOTICES.get().increment(1);
    connection_event!(
        debug,
        fields,
        event = "expiry_notice_sent",
        expires_in,
        "notified a client that its credentials expire soon"
    );
}
