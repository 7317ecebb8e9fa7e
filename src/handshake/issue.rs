//! The endpoint where browsers get connection tokens: session JWT by cookie or bearer, Origin and CSRF
//! checks, CORS.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::credentials::{bearer, cookie};
use super::origin::{self, RequestOrigin};
use super::rejection::json_error;
use super::{Handshake, Rejection, channel};
use crate::protocol::ChannelName;
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

impl Handshake {
    /// Whether this path is the token endpoint; with and without the last slash.
    pub fn issues_at(&self, path: &str) -> bool {
        let bare = |path: &str| path.trim_end_matches('/').to_owned();
        self.tokens.issue_path.as_ref().is_some_and(|issue| bare(issue) == bare(path))
    }

    /// POST, and its CORS preflight.
    pub async fn issue(&self, request: Request<Incoming>) -> Answer {
        let origin = RequestOrigin::read(request.headers());
        if origin::check(&self.origins, &origin).is_err() {
            return Rejection::origin().to_http();
        }
        let mut answer = match *request.method() {
            Method::OPTIONS => self.preflight(),
            Method::POST => self.issue_checked(request, &origin).await.unwrap_or_else(|no| no),
            _ => {
                let mut answer = json_error(StatusCode::METHOD_NOT_ALLOWED, "POST only", "method");
                answer
                    .headers_mut()
                    .insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
                answer
            }
        };
        allow_origin(answer.headers_mut(), &origin);
        answer
    }

    fn preflight(&self) -> Answer {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST, OPTIONS"),
        );
        let allowed = format!("content-type, authorization, {}", self.tokens.csrf.header);
        if let Ok(allowed) = HeaderValue::from_str(&allowed.to_lowercase()) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
        answer
    }

    async fn issue_checked(
        &self,
        request: Request<Incoming>,
        origin: &RequestOrigin,
    ) -> Result<Answer, Answer> {
        let identity = self.caller(request.headers()).await?;
        let user_id =
            identity.user_id.clone().ok_or_else(|| Rejection::no_credentials().to_http())?;
        let wish = read_wish(request).await?;
        let bound = self.bound_channel(&wish, &identity)?;
        let record = TokenRecord {
            user_id,
            username: identity.username.as_deref().map(str::to_owned),
            connection_id: wish.connection_id.clone(),
            created_at: unix_now(),
            used: false,
            channels: bound
                .map(|channel| vec![channel.to_string()])
                .or_else(|| identity.patterns()),
            origin: origin.text().map(str::to_owned),
            session_expires_at: identity.expires_at,
            claims: None,
        };
        let token = self.store.issue(&record).await.map_err(|_| Rejection::engine().to_http())?;
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
    async fn caller(&self, headers: &HeaderMap) -> Result<Identity, Answer> {
        let jwt = match bearer(headers) {
            Some(jwt) => jwt,
            None => {
                let jwt = cookie(headers, &self.session_cookie)
                    .ok_or_else(|| Rejection::no_credentials().to_http())?;
                if !self.csrf_holds(headers) {
                    let error = "the CSRF header does not equal the CSRF cookie";
                    return Err(json_error(StatusCode::FORBIDDEN, error, "csrf"));
                }
                jwt.to_owned()
            }
        };
        self.verifier.verify(&jwt).await.map_err(|no| Rejection::jwt(no).to_http())
    }

    fn csrf_holds(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(&self.tokens.csrf.header).map(HeaderValue::as_bytes);
        match (cookie(headers, &self.tokens.csrf.cookie), given) {
            (Some(cookie), Some(given)) => bool::from(cookie.as_bytes().ct_eq(given)),
            _ => false,
        }
    }

    /// The channel that the wish names, if this caller may join it.
    fn bound_channel(
        &self,
        wish: &Wish,
        identity: &Identity,
    ) -> Result<Option<ChannelName>, Answer> {
        let forbidden = || Rejection::channel().to_http();
        let named = match (&wish.channel, &wish.path) {
            (None, None) => return Ok(None),
            (Some(name), None) => ChannelName::new(name).map_err(|_| forbidden())?,
            (None, Some(path)) => {
                let path = path.split('?').next().unwrap_or_default();
                let (route, params) = self.route(path).ok_or_else(forbidden)?;
                channel(&route, &params, identity).map_err(|no| no.to_http())?
            }
            (Some(_), Some(_)) => {
                let error = "give either channel or path";
                return Err(json_error(StatusCode::BAD_REQUEST, error, "bad_request"));
            }
        };
        // A star in a record would be a pattern.
        let may = identity.may_join(named.as_str()) && !named.as_str().contains('*');
        if may { Ok(Some(named)) } else { Err(forbidden()) }
    }
}

async fn read_wish(request: Request<Incoming>) -> Result<Wish, Answer> {
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            let error = "the body is too large or broken";
            return Err(json_error(StatusCode::PAYLOAD_TOO_LARGE, error, "body"));
        }
        Err(_) => {
            return Err(json_error(StatusCode::REQUEST_TIMEOUT, "the body did not come", "body"));
        }
    };
    if body.trim_ascii().is_empty() {
        return Ok(Wish::default());
    }
    let wrong = |error| json_error(StatusCode::BAD_REQUEST, error, "bad_request");
    // serde would take an array for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong("the body is not a JSON object"));
    }
    let wish: Wish = serde_json::from_slice(&body)
        .map_err(|_| wrong("the body is not the JSON it should be"))?;
    if wish.connection_id.as_ref().is_some_and(|id| id.len() > MAX_CONNECTION_ID_BYTES) {
        return Err(wrong("connection_id has more than 256 bytes"));
    }
    Ok(wish)
}

/// CORS for the allowlist, with credentials. Called only for origins that are allowed.
fn allow_origin(headers: &mut HeaderMap, origin: &RequestOrigin) {
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(Ok(origin)) = origin.text().map(HeaderValue::from_str) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
