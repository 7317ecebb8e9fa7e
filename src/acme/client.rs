//! The HTTP client of orders: only https, with a deadline and a bound for each request.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::http::HeaderValue;
use hyper::{Method, Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error};
use tokio::time::timeout;

use crate::config::Acme;
use crate::http_client::{self, HttpClient, ServerTrust, error_chain};

/// From the start of the connection to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// The most bytes of an answer. The longest is a chain of certificates.
const MAX_BYTES: usize = 256 * 1024;

type Body = BodyWrapper<Bytes>;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    http: HttpClient<Body>,
    /// What the last answer that refused something asks for.
    retry_after: Arc<Mutex<Option<Duration>>>,
}

impl Client {
    /// # Errors
    /// The trusted authorities cannot be used.
    pub fn new(acme: &Acme) -> Result<Self, String> {
        let trust = match &acme.directory_ca {
            Some(authorities) => ServerTrust::Authorities(authorities.clone()),
            None => ServerTrust::System,
        };
        let tls = http_client::trusting(&trust, None)?;
        // One connection, which the next request of the same order uses.
        Ok(Self { http: http_client::new(&tls, DEADLINE, 1), retry_after: Arc::default() })
    }

    /// How long the authority wants to be left alone, if it has refused the last request.
    pub fn retry_after(&self) -> Option<Duration> {
        *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, mut request: Request<Body>) -> Result<Response<Full<Bytes>>, String> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        if request.uri().scheme_str() != Some("https") {
            return Err(format!("the authority names a URL at {host} that is not https"));
        }
        let agent = HeaderValue::from_static(http_client::USER_AGENT);
        request.headers_mut().insert(USER_AGENT, agent);
        let response = self.http.request(request).await;
        let response = response.map_err(|error| format!("{host}: {}", error_chain(&error)))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = http_client::read_body(response, MAX_BYTES).await;
        let body = body.map_err(|error| format!("{host}: {error}"))?;
        let is_refused = status.is_client_error() || status.is_server_error();
        let wanted = if is_refused { wanted(&headers) } else { None };
        *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        if is_refused {
            // Anything else than a problem document is not the authority's.
            if !is_problem(&headers) {
                return Err(format!("{host} answered {status}"));
            }
        }
        let mut response = Response::new(Full::new(body));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

impl instant_acme::HttpClient for Client {
    fn request(
        &self,
        request: Request<Body>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let answer = timeout(DEADLINE, client.send(request)).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {DEADLINE:?}")));
            answer.map(BytesResponse::from).map_err(|reason| Error::Other(reason.into()))
        })
    }
}

/// Asks for the directory. `Err` says why it cannot be used.
pub(super) async fn check_directory(acme: &Acme) -> Result<(), String> {
    let client = Client::new(acme)?;
    let request = Request::builder().method(Method::GET).uri(acme.directory.as_str());
    let request = request.body(Body::default()).map_err(|error| error.to_string())?;
    let answer = timeout(DEADLINE, client.send(request)).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {DEADLINE:?}")))?;
    if !answer.status().is_success() {
        return Err(format!("answered {}", answer.status()));
    }
    use http_body_util::BodyExt as _;
    let body = answer.into_body().collect().await.map(|body| body.to_bytes());
    let Ok(body) = body;
    let directory: serde_json::Value =
        serde_json::from_slice(&body).map_err(|_| "the answer is not JSON".to_owned())?;
    match directory.get("newOrder").is_some_and(serde_json::Value::is_string) {
        true => Ok(()),
        false => Err("the answer is no ACME directory: it has no newOrder".to_owned()),
    }
}

fn is_problem(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/problem+json"))
}

/// The time that a `Retry-After` asks for: seconds or a date (RFC 9110 section 10.2.3).
fn wanted(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    date.duration_since(SystemTime::now()).ok()
}

#[cfg(test)]
mod tests;
