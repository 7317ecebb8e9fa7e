//! What the calls of the server API have in common: keys, bodies, errors.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Answer;
use crate::config::Secret;

/// The keys that open the server API, which a reload replaces. Cheap to clone.
#[derive(Clone)]
pub struct ApiKeys(Arc<ArcSwap<Vec<Secret>>>);

impl ApiKeys {
    /// None = the API answers 403.
    pub fn new(keys: Vec<Secret>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(keys)))
    }

    /// From the next call on.
    pub fn replace(&self, keys: Vec<Secret>) {
        self.0.store(Arc::new(keys));
    }
}

const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// `{"error":{"code":"…","message":"…"}}`.
pub fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    json(status, &serde_json::json!({ "error": { "code": code, "message": message } }))
}

pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let body = serde_json::to_string(body).expect("strings and numbers serialize");
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

pub fn bad_request(message: &str) -> Answer {
    error(StatusCode::BAD_REQUEST, "bad_request", message)
}

pub fn engine_down() -> Answer {
    error(StatusCode::SERVICE_UNAVAILABLE, "engine_down", "the engine cannot be reached")
}

/// `Authorization: Bearer` or `X-API-Key`. Every key is compared, whichever fits.
pub fn authenticate(headers: &HeaderMap, keys: &ApiKeys) -> Result<(), Answer> {
    let keys = keys.0.load();
    if keys.is_empty() {
        let message = "the server API is off: no [admin] api_keys are set";
        return Err(error(StatusCode::FORBIDDEN, "api_disabled", message));
    }
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    let given = bearer.or_else(|| headers.get("x-api-key")?.to_str().ok()).unwrap_or_default();
    let fits = keys.iter().fold(false, |fits, key| fits | key.matches(given));
    if fits {
        Ok(())
    } else {
        let message = "give an API key by Authorization: Bearer or X-API-Key";
        let mut refusal = error(StatusCode::UNAUTHORIZED, "unauthorized", message);
        let scheme = HeaderValue::from_static("Bearer");
        refusal.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        Err(refusal)
    }
}

/// The body as `T`, at most `limit` bytes of it.
pub async fn read<T: DeserializeOwned>(
    request: Request<Incoming>,
    limit: usize,
) -> Result<T, Answer> {
    let body = Limited::new(request.into_body(), limit).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(broken)) if broken.is::<http_body_util::LengthLimitError>() => {
            let message = format!("the body has more than {limit} bytes");
            return Err(error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &message));
        }
        Ok(Err(_)) => return Err(error(StatusCode::BAD_REQUEST, "broken", "the body broke off")),
        Err(_) => {
            return Err(error(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not come"));
        }
    };
    parse(&body)
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Answer> {
    // serde would take an array for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad_request("the body is no JSON object"));
    }
    serde_json::from_slice(body).map_err(|wrong| bad_request(&wrong.to_string()))
}
