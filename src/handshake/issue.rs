//! The endpoint where browsers get connection tokens: session JWT by cookie or bearer, `Origin` and CSRF
//! checks, CORS.
//!
//! Invariant: a page of another site gets no token. Its `Origin` is not on the allowlist; and if the request
//! has no `Origin`, the session cookie is valid only together with the CSRF header, which other sites can
//! neither read nor send.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::credentials::{bearer, cookie};
use super::origin::{self, RequestOrigin};
use super::rejection::{json_error, seconds as retry_after_seconds};
use super::{Found, Handshake, Rejection};
use crate::clock;
use crate::limits::{LimitName, Verdict};
use crate::protocol::{ChannelName, ClientAddress, ClientNetwork, UserId};
use crate::redis_link::EngineUnavailable;
use crate::telemetry;
use crate::telemetry::credentials::TokenRequestRefusal;
use crate::tokens::{Identity, NotIssued, TokenRecord};

const MAX_BODY_BYTES: usize = 8 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CONNECTION_ID_BYTES: usize = 256;

/// How long a browser may cache the response to the preflight.
const PREFLIGHT_SECONDS: &str = "600";

/// The body of a token request. Every field is optional.
#[derive(Default, Deserialize)]
struct TokenRequest {
    connection_id: Option<String>,
    /// Binds the token to one channel.
    channel: Option<String>,
    /// Binds the token to the channel of this path.
    path: Option<String>,
}

/// A request body, whose type differs between the listener and the tests.
pub trait RequestBody: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> {}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>> RequestBody for B {}

type HttpResponse = Response<Full<Bytes>>;

/// Why no token is issued, and the response with the reason.
struct Refusal {
    cause: TokenRequestRefusal,
    response: HttpResponse,
    /// For the log.
    rejection: Option<Rejection>,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self {
            cause: TokenRequestRefusal::Rejected(rejection.cause),
            response: rejection.to_response(),
            rejection: Some(rejection),
        }
    }
}

impl Refusal {
    fn new(status: StatusCode, cause: TokenRequestRefusal, error: &str) -> Self {
        Self { cause, response: json_error(status, error, cause.label()), rejection: None }
    }

    fn too_many(cause: TokenRequestRefusal, retry_after: Duration) -> Self {
        let mut refusal =
            Self::new(StatusCode::TOO_MANY_REQUESTS, cause, "too many connection tokens");
        let seconds = retry_after_seconds(retry_after);
        refusal.response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        refusal
    }

    /// Adds the user for the log, if it is not there yet.
    fn of_user(mut self, user: &UserId) -> Self {
        let rejection = self.rejection.unwrap_or_else(Rejection::no_credentials);
        self.rejection = Some(match rejection.log_details().user {
            Some(_) => rejection,
            None => rejection.with_user(Some(user), None),
        });
        self
    }

    fn bad_request(error: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, TokenRequestRefusal::BadRequest, error)
    }
}

impl Handshake {
    /// Whether this path is the token endpoint, with or without a trailing slash.
    pub fn is_token_endpoint(&self, path: &str) -> bool {
        self.tokens
            .issue_path
            .as_ref()
            .is_some_and(|issue| without_slash(issue) == without_slash(path))
    }

    /// Serves the token endpoint: POST, and its CORS preflight.
    pub async fn issue(
        &self,
        request: Request<impl RequestBody>,
        client: ClientAddress,
    ) -> HttpResponse {
        let origin = RequestOrigin::read(request.headers());
        let checked = origin::check(&self.origins, &origin, request.headers(), client);
        let is_allowed = checked.is_ok();
        let result = match checked {
            Ok(()) => self.dispatch(request, &origin, client.ip).await,
            Err(rejection) => Err(Refusal::from(rejection)),
        };
        let mut response = result.unwrap_or_else(|refusal| {
            let rejection = refusal.rejection.unwrap_or_else(Rejection::no_credentials);
            let rejection = rejection.with_origin(origin.logged());
            let details = rejection.log_details();
            telemetry::credentials::token_request_refused(refusal.cause, client.ip, details);
            refusal.response
        });
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        if is_allowed && let Some(origin) = origin.text() {
            allow_origin(headers, origin);
        }
        response
    }

    async fn dispatch(
        &self,
        request: Request<impl RequestBody>,
        origin: &RequestOrigin,
        ip: IpAddr,
    ) -> Result<HttpResponse, Refusal> {
        match *request.method() {
            Method::OPTIONS => Ok(self.preflight()),
            Method::POST => {
                self.check_ip_rate(ip).await?;
                self.issue_token(request, origin).await
            }
            _ => {
                let mut refusal = Refusal::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    TokenRequestRefusal::Method,
                    "POST only",
                );
                let allow = HeaderValue::from_static("POST, OPTIONS");
                refusal.response.headers_mut().insert(header::ALLOW, allow);
                Err(refusal)
            }
        }
    }

    fn preflight(&self) -> HttpResponse {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        let methods = HeaderValue::from_static("POST, OPTIONS");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        let allowed = format!("content-type, authorization, {}", self.tokens.csrf.header);
        if let Ok(allowed) = HeaderValue::from_str(&allowed.to_lowercase()) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        let age = HeaderValue::from_static(PREFLIGHT_SECONDS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, age);
        response
    }

    async fn issue_token(
        &self,
        request: Request<impl RequestBody>,
        origin: &RequestOrigin,
    ) -> Result<HttpResponse, Refusal> {
        let identity = self.identify_caller(request.headers()).await?;
        let user_id = identity.user_id.clone().ok_or_else(Rejection::no_credentials)?;
        let issued = self.issue_to(&user_id, &identity, request.into_body(), origin).await;
        issued.map_err(|refusal| refusal.of_user(&user_id))
    }

    async fn issue_to(
        &self,
        user_id: &UserId,
        identity: &Identity,
        body: impl RequestBody,
        origin: &RequestOrigin,
    ) -> Result<HttpResponse, Refusal> {
        self.check_user_rate(user_id).await?;
        let body = read_token_request(body).await?;
        let bound = self.bound_channel(&body, identity)?;
        let record = TokenRecord {
            user_id: user_id.clone(),
            username: identity.username.as_deref().map(str::to_owned),
            connection_id: body.connection_id.clone(),
            created_at: clock::since_unix_epoch().as_secs_f64(),
            used: false,
            channels: bound
                .map(|channel| vec![channel.to_string()])
                .or_else(|| identity.patterns()),
            origin: origin.text().map(str::to_owned),
            session_expires_at: identity.expires_at,
            claims: None,
        };
        let max = self.tokens.outstanding_per_user;
        let token = self.authenticator.store().issue_to_user(&record, max).await;
        let token = token.map_err(|reason| match reason {
            NotIssued::TooManyOfUser { retry_after } => {
                Refusal::too_many(TokenRequestRefusal::Outstanding, retry_after)
            }
            NotIssued::StoreFull | NotIssued::Failed(_) => Rejection::engine().into(),
        })?;
        Ok(self.token_response(&token, body.connection_id.as_deref()))
    }

    /// Counts a request of an address, before anything is done for it.
    async fn check_ip_rate(&self, ip: IpAddr) -> Result<(), Refusal> {
        if !self.tells_addresses_apart {
            return Ok(());
        }
        let network = ClientNetwork::of(ip, self.client_limits.ipv6_prefix).to_string();
        let (limit, rate) = (LimitName::TokenRequestsOfIp, self.tokens.requests_per_ip);
        let verdict = self.limits.take_anywhere(limit, &network, rate).await;
        refuse_beyond_rate(verdict, TokenRequestRefusal::IpRate)
    }

    async fn check_user_rate(&self, user: &UserId) -> Result<(), Refusal> {
        let (limit, rate) = (LimitName::TokenRequests, self.tokens.requests_per_user);
        let verdict = self.limits.take_anywhere(limit, &user.to_string(), rate).await;
        refuse_beyond_rate(verdict, TokenRequestRefusal::UserRate)
    }

    fn token_response(&self, token: &str, connection_id: Option<&str>) -> HttpResponse {
        let mut body = serde_json::json!({
            "connection_token": token,
            "expires_in": self.tokens.ttl.as_secs(),
        });
        if let Some(id) = connection_id {
            body["connection_id"] = id.into();
        }
        let mut response = Response::new(Full::from(body.to_string()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// Identifies the caller. A page of another site cannot send a bearer header. It can send a cookie, which
    /// therefore requires the CSRF header.
    async fn identify_caller(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        if let Some(jwt) = bearer(headers) {
            return Ok(self.authenticator.verify(jwt).await.map_err(Rejection::credential)?);
        }
        if cookie(headers, &self.session_cookie).is_some() && !self.has_valid_csrf(headers) {
            let error = "the CSRF header does not equal the CSRF cookie";
            return Err(Refusal::new(StatusCode::FORBIDDEN, TokenRequestRefusal::Csrf, error));
        }
        let identified = self.identify_by_cookie(headers).await;
        Ok(identified.ok_or_else(Rejection::no_credentials)??)
    }

    fn has_valid_csrf(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(&self.tokens.csrf.header).iter().map(HeaderValue::as_bytes);
        match (cookie(headers, &self.tokens.csrf.cookie), given.next(), given.next()) {
            (Some(cookie), Some(given), None) => {
                !cookie.is_empty() && bool::from(cookie.as_bytes().ct_eq(given))
            }
            _ => false,
        }
    }

    /// Returns the channel that the request names, if this caller may join it.
    fn bound_channel(
        &self,
        body: &TokenRequest,
        identity: &Identity,
    ) -> Result<Option<ChannelName>, Refusal> {
        let refused =
            |name: &str| Rejection::channel().with_user(identity.user_id.as_ref(), Some(name));
        let named = match (&body.channel, &body.path) {
            (None, None) => return Ok(None),
            (Some(name), None) => ChannelName::new(name).map_err(|_| refused(name))?,
            (None, Some(path)) => {
                let path = path.split('?').next().unwrap_or_default();
                let Some(Found::Route(route, params)) = self.find_route(path) else {
                    return Err(refused(path).into());
                };
                // There is nothing that a token could be bound to on a route without a channel.
                self.channel_of(&route, &params, identity)?.ok_or_else(|| refused(path))?
            }
            (Some(_), Some(_)) => return Err(Refusal::bad_request("set either channel or path")),
        };
        // A star in a record would be read as a pattern.
        if self.may_join(identity, &named) && !named.as_str().contains('*') {
            Ok(Some(named))
        } else {
            Err(refused(named.as_str()).into())
        }
    }
}

fn refuse_beyond_rate(
    verdict: Result<Verdict, EngineUnavailable>,
    cause: TokenRequestRefusal,
) -> Result<(), Refusal> {
    match verdict {
        Ok(Verdict::Allowed) => Ok(()),
        Ok(Verdict::Refused { retry_after }) => Err(Refusal::too_many(cause, retry_after)),
        Err(EngineUnavailable) => Err(Rejection::engine().into()),
    }
}

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

async fn read_token_request(body: impl RequestBody) -> Result<TokenRequest, Refusal> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let error = "the body is larger than 8 KiB";
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                TokenRequestRefusal::Body,
                error,
            ));
        }
        Ok(Err(_)) => return Err(Refusal::bad_request("the request body is incomplete")),
        Err(_) => {
            let error = "timed out reading the request body";
            return Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                TokenRequestRefusal::Body,
                error,
            ));
        }
    };
    if body.trim_ascii().is_empty() {
        return Ok(TokenRequest::default());
    }
    // serde would also accept an array with the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::bad_request("the body is not a JSON object"));
    }
    let body: TokenRequest = serde_json::from_slice(&body).map_err(|_| {
        Refusal::bad_request("the body is not valid JSON, or a field has the wrong type")
    })?;
    if body.connection_id.as_ref().is_some_and(|id| id.len() > MAX_CONNECTION_ID_BYTES) {
        return Err(Refusal::bad_request("connection_id is longer than 256 bytes"));
    }
    Ok(body)
}

/// Sets the CORS headers that allow credentials. Call it only for allowed origins.
fn allow_origin(headers: &mut HeaderMap, origin: &str) {
    if let Ok(origin) = HeaderValue::from_str(origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let with_credentials = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, with_credentials);
    }
}

#[cfg(test)]
mod tests;
