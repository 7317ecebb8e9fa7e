//! The page and its session, which an API provides in the real world.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use hyper::{Method, Request, Response, StatusCode};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::json;

use super::responses::{Body, full, plain};
use crate::clock;
use crate::config::Secret;
use crate::protocol::random_hex;
use crate::tokens::sign_hs;

/// The lifetime of a guest's session. The page requests another one when it expires.
const SESSION_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How long a browser keeps the cookies.
const COOKIE_LIFETIME: Duration = Duration::from_secs(24 * 3600);

const HTML: &str = include_str!("page.html");

/// Allows only the content of the page and its WebSocket, which older browsers do not count as `'self'`.
const POLICY: &str = "default-src 'none'; script-src 'nonce-{{NONCE}}'; \
     style-src 'nonce-{{NONCE}}'; img-src data:; \
     connect-src 'self' ws://localhost:* ws://127.0.0.1:*; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub struct Page {
    jwt_secret: Secret,
}

impl Page {
    pub fn new(jwt_secret: Secret) -> Self {
        Self { jwt_secret }
    }

    pub fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/") => self.page(request.headers()).unwrap_or_else(|| {
                plain(StatusCode::INTERNAL_SERVER_ERROR, "failed to sign the session\n")
            }),
            (_, "/") => plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n"),
            _ => plain(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    /// The page with a new session. `None` if the session cannot be signed or a header is invalid.
    fn page(&self, headers: &HeaderMap) -> Option<Response<Body>> {
        let nonce = random_hex(16);
        let seconds = COOKIE_LIFETIME.as_secs();
        let session = self.session(self.guest(headers).or_else(new_guest)?)?;
        let cookies = [
            format!("access_token={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax"),
            // The page reads it and repeats it in a header, which pages of other sites cannot do.
            format!("csrftoken={}; Path=/; Max-Age={seconds}; SameSite=Lax", random_hex(16)),
        ];
        let mut response = Response::new(full(HTML.replace("{{NONCE}}", &nonce)));
        let headers = response.headers_mut();
        for cookie in cookies {
            headers.append(SET_COOKIE, HeaderValue::try_from(cookie).ok()?);
        }
        let policy = HeaderValue::try_from(POLICY.replace("{{NONCE}}", &nonce)).ok()?;
        headers.insert("content-security-policy", policy);
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        Some(response)
    }

    /// The guest of an earlier session, even an expired one, so that all tabs of a browser are the same user.
    fn guest(&self, headers: &HeaderMap) -> Option<u32> {
        #[derive(Deserialize)]
        struct Claims {
            user_id: u32,
        }
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|value| value.split("; "));
        let session = pairs.find_map(|pair| pair.strip_prefix("access_token="))?;
        let key = DecodingKey::from_secret(self.jwt_secret.expose().as_bytes());
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        let read = jsonwebtoken::decode::<Claims>(session, &key, &validation);
        read.ok().map(|session| session.claims.user_id)
    }

    /// Signs a JWT, as an identity service would.
    fn session(&self, user: u32) -> Option<String> {
        let now = clock::unix_seconds();
        let claims = json!({
            "user_id": user,
            "username": format!("guest-{user}"),
            "token_type": "access",
            "iat": now,
            "exp": now + SESSION_LIFETIME.as_secs(),
        });
        sign_hs(&self.jwt_secret, Algorithm::HS256, &claims).ok()
    }
}

fn new_guest() -> Option<u32> {
    let mut raw = [0u8; 4];
    getrandom::fill(&mut raw).ok()?;
    Some(u32::from_le_bytes(raw) % 900_000 + 100_000)
}

#[cfg(test)]
mod tests;
