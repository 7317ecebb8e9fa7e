//! The endpoint where browsers get connection tokens: session JWT by cookie or bearer, Origin and CSRF
//! checks, CORS.
//!
//! Invariant: a page of another site gets no token. Its Origin is not on the allowlist; and where the
//! request has none, the session cookie counts only together with the CSRF header, which other sites
//! can neither read nor send.

use std::error::Error;
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
use super::rejection::json_error;
use super::{Found, Handshake, Rejection};
use crate::clock;
use crate::protocol::ChannelName;
use crate::telemetry;
use crate::telemetry::credentials::TokenRequestRefusal;
use crate::tokens::{Identity, TokenRecord};

const MAX_BODY_BYTES: usize = 8 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CONNECTION_ID_BYTES: usize = 256;

/// How long a browser may remember the preflight's answer.
const PREFLIGHT_SECONDS: &str = "600";

/// What a client may say of the token it wants; all of it optional.
#[derive(Default, Deserialize)]
struct Wish {
    connection_id: Option<String>,
    /// Binds the token to one channel.
    channel: Option<String>,
    /// Binds the token to the channel of this path.
    path: Option<String>,
}

type Answer = Response<Full<Bytes>>;

/// Why there is no token, and the answer that says so.
struct Refusal {
    cause: TokenRequestRefusal,
    answer: Answer,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self { cause: TokenRequestRefusal::Rejected(rejection.cause), answer: rejection.to_http() }
    }
}

impl Refusal {
    fn new(status: StatusCode, cause: TokenRequestRefusal, error: &str) -> Self {
        Self { cause, answer: json_error(status, error, cause.label()) }
    }

    fn bad_request(error: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, TokenRequestRefusal::BadRequest, error)
    }
}

impl Handshake {
    /// Whether this path is the token endpoint; with and without the last slash.
    pub fn issues_at(&self, path: &str) -> bool {
        self.tokens
            .issue_path
            .as_ref()
            .is_some_and(|issue| without_slash(issue) == without_slash(path))
    }

    /// POST, and its CORS preflight.
    pub async fn issue<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let origin = RequestOrigin::read(request.headers());
        let checked = origin::check(&self.origins, &origin);
        let is_allowed = checked.is_ok();
        let answered = match checked {
            Ok(()) => self.answer(request, &origin).await,
            Err(rejection) => Err(Refusal::from(rejection)),
        };
        let mut answer = answered.unwrap_or_else(|refusal| {
            telemetry::credentials::token_request_refused(refusal.cause);
            refusal.answer
        });
        let headers = answer.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        if is_allowed && let Some(origin) = origin.text() {
            allow_origin(headers, origin);
        }
        answer
    }

    async fn answer<B>(
        &self,
        request: Request<B>,
        origin: &RequestOrigin,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        match *request.method() {
            Method::OPTIONS => Ok(self.preflight()),
            Method::POST => self.issue_checked(request, origin).await,
            _ => {
                let mut refusal = Refusal::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    TokenRequestRefusal::Method,
                    "POST only",
                );
                let allow = HeaderValue::from_static("POST, OPTIONS");
                refusal.answer.headers_mut().insert(header::ALLOW, allow);
                Err(refusal)
            }
        }
    }

    fn preflight(&self) -> Answer {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        let methods = HeaderValue::from_static("POST, OPTIONS");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        let allowed = format!("content-type, authorization, {}", self.tokens.csrf.header);
        if let Ok(allowed) = HeaderValue::from_str(&allowed.to_lowercase()) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        let age = HeaderValue::from_static(PREFLIGHT_SECONDS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, age);
        answer
    }

    async fn issue_checked<B>(
        &self,
        request: Request<B>,
        origin: &RequestOrigin,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let identity = self.caller(request.headers()).await?;
        let user_id = identity.user_id.clone().ok_or_else(Rejection::no_credentials)?;
        let wish = read_wish(request.into_body()).await?;
        let bound = self.bound_channel(&wish, &identity)?;
        let record = TokenRecord {
            user_id,
            username: identity.username.as_deref().map(str::to_owned),
            connection_id: wish.connection_id.clone(),
            created_at: clock::since_unix_epoch().as_secs_f64(),
            used: false,
            channels: bound
                .map(|channel| vec![channel.to_string()])
                .or_else(|| identity.patterns()),
            origin: origin.text().map(str::to_owned),
            session_expires_at: identity.expires_at,
            claims: None,
        };
        let token = self.authenticator.store().issue(&record).await;
        let token = token.map_err(|_| Rejection::engine())?;
        Ok(self.token_answer(&token, wish.connection_id.as_deref()))
    }

    fn token_answer(&self, token: &str, connection_id: Option<&str>) -> Answer {
        let mut body = serde_json::json!({
            "connection_token": token,
            "expires_in": self.tokens.ttl.as_secs(),
        });
        if let Some(id) = connection_id {
            body["connection_id"] = id.into();
        }
        let mut answer = Response::new(Full::from(body.to_string()));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    /// Who asks. A bearer header cannot be sent by a page of another site; a cookie can, so it must be
    /// accompanied by the CSRF header.
    async fn caller(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        if let Some(jwt) = bearer(headers) {
            return Ok(self.authenticator.verify(jwt).await.map_err(Rejection::credential)?);
        }
        if cookie(headers, &self.session_cookie).is_some() && !self.csrf_holds(headers) {
            let error = "the CSRF header does not equal the CSRF cookie";
            return Err(Refusal::new(StatusCode::FORBIDDEN, TokenRequestRefusal::Csrf, error));
        }
        let identified = self.identify_by_cookie(headers).await;
        Ok(identified.ok_or_else(Rejection::no_credentials)??)
    }

    fn csrf_holds(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(&self.tokens.csrf.header).map(HeaderValue::as_bytes);
        match (cookie(headers, &self.tokens.csrf.cookie), given) {
            (Some(cookie), Some(given)) => {
                !cookie.is_empty() && bool::from(cookie.as_bytes().ct_eq(given))
            }
            _ => false,
        }
    }

    /// The channel that the wish names, if this caller may join it.
    fn bound_channel(
        &self,
        wish: &Wish,
        identity: &Identity,
    ) -> Result<Option<ChannelName>, Refusal> {
        let named = match (&wish.channel, &wish.path) {
            (None, None) => return Ok(None),
            (Some(name), None) => ChannelName::new(name).map_err(|_| Rejection::channel())?,
            (None, Some(path)) => {
                let path = path.split('?').next().unwrap_or_default();
                let Some(Found::Route(route, params)) = self.route(path) else {
                    return Err(Rejection::channel().into());
                };
                self.channel(&route, &params, identity)?
            }
            (Some(_), Some(_)) => return Err(Refusal::bad_request("give either channel or path")),
        };
        // A star in a record would be a pattern.
        if self.may_join(identity, &named) && !named.as_str().contains('*') {
            Ok(Some(named))
        } else {
            Err(Rejection::channel().into())
        }
    }
}

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

async fn read_wish<B>(body: B) -> Result<Wish, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let body = Limited::new(body, MAX_BODY_BYTES).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let error = "the body has more than 8 KiB";
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                TokenRequestRefusal::Body,
                error,
            ));
        }
        Ok(Err(_)) => return Err(Refusal::bad_request("the body broke off")),
        Err(_) => {
            let error = "the body did not come";
            return Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                TokenRequestRefusal::Body,
                error,
            ));
        }
    };
    if body.trim_ascii().is_empty() {
        return Ok(Wish::default());
    }
    // serde would take an array for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::bad_request("the body is not a JSON object"));
    }
    let wish: Wish = serde_json::from_slice(&body)
        .map_err(|_| Refusal::bad_request("the body is not the JSON it should be"))?;
    if wish.connection_id.as_ref().is_some_and(|id| id.len() > MAX_CONNECTION_ID_BYTES) {
        return Err(Refusal::bad_request("connection_id has more than 256 bytes"));
    }
    Ok(wish)
}

/// CORS, with credentials. Only for origins that are allowed.
fn allow_origin(headers: &mut HeaderMap, origin: &str) {
    if let Ok(origin) = HeaderValue::from_str(origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let with_credentials = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, with_credentials);
    }
}
