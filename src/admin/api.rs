//! What all calls of the server API share: keys, request bodies, queries, errors.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::Answer;
use super::body::Body;
use super::code::Code;
use crate::config::Secret;
use crate::protocol::{ChannelName, UserId, json_text};

const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Rows of one answer: the default and the maximum of `limit`.
pub const DEFAULT_LIMIT: usize = 100;
pub const MAX_LIMIT: usize = 1000;

/// The longest user id in a query.
pub const MAX_USER_BYTES: usize = 1024;

/// The longest path pattern of a route in a query.
pub const MAX_ROUTE_BYTES: usize = 1024;

const MAX_PARAMETERS: usize = 16;

/// `{"error":{"code":"…","message":"…"}}`.
pub fn error(code: Code, message: &str) -> Answer {
    let body = serde_json::json!({ "error": { "code": code.label(), "message": message } });
    json(code.status(), &body)
}

pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    json_text_answer(status, serde_json::to_string(body).expect("strings and numbers serialize"))
}

/// An answer whose body is JSON already.
pub fn json_text_answer(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

pub fn bad_request(message: &str) -> Answer {
    error(Code::BadRequest, message)
}

pub fn engine_down() -> Answer {
    error(Code::EngineDown, "the engine cannot be reached")
}

/// Which of `keys` the request carries in `Authorization: Bearer` or `X-API-Key`, counted from 1. Without any key the
/// answer is 403.
pub fn authenticate(headers: &HeaderMap, keys: &[Secret]) -> Result<usize, Answer> {
    if keys.is_empty() {
        let message = "the server API is off: no [admin] api_keys are set";
        return Err(error(Code::ApiDisabled, message));
    }
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let given = given_key(text("authorization"), text("x-api-key"));
    find_key(given, keys).ok_or_else(|| {
        let message = "give an API key by Authorization: Bearer or X-API-Key";
        let mut refusal = error(Code::Unauthorized, message);
        let scheme = HeaderValue::from_static("Bearer");
        refusal.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        refusal
    })
}

/// The key that a request gives, by the values of its headers; empty if it gives none.
pub fn given_key<'a>(authorization: Option<&'a str>, api_key: Option<&'a str>) -> &'a str {
    let bearer = authorization
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    bearer.or(api_key).unwrap_or_default()
}

/// Which of `keys` was given, counted from 1. Every key is compared, so that the time does not tell which one fits.
pub fn find_key(given: &str, keys: &[Secret]) -> Option<usize> {
    let fits = keys.iter().zip(1..).fold(
        0,
        |fits, (key, number)| {
            if key.matches(given) { number } else { fits }
        },
    );
    (fits > 0).then_some(fits)
}

/// Reads the request body, which has at most `limit` bytes, as `T`.
pub async fn read<T: DeserializeOwned>(
    request: Request<Incoming>,
    limit: usize,
) -> Result<T, Answer> {
    parse(&collect(request, limit).await?)
}

/// Reads the request body like [`read`]; an empty body means an empty object.
pub async fn read_if_any<T: DeserializeOwned + Default>(
    request: Request<Incoming>,
    limit: usize,
) -> Result<T, Answer> {
    let body = collect(request, limit).await?;
    if body.is_empty() { Ok(T::default()) } else { parse(&body) }
}

/// Reads the request body, which has at most `limit` bytes.
pub async fn collect(request: Request<Incoming>, limit: usize) -> Result<Bytes, Answer> {
    Query::of(&request)?.finish(&[])?;
    let body = Limited::new(request.into_body(), limit).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(broken)) if broken.is::<http_body_util::LengthLimitError>() => {
            let message = format!("the body has more than {limit} bytes");
            Err(error(Code::TooLarge, &message))
        }
        Ok(Err(_)) => Err(error(Code::Broken, "the request body ended early")),
        Err(_) => Err(error(Code::Timeout, "timed out reading the request body")),
    }
}

/// The query parameters of a request, each at most once.
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn of<B>(request: &Request<B>) -> Result<Self, Answer> {
        Self::parse(request.uri().query().unwrap_or_default())
    }

    fn parse(query: &str) -> Result<Self, Answer> {
        let mut given: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if given.len() >= MAX_PARAMETERS || given.iter().any(|(other, _)| *other == name) {
                return Err(bad_request("each query parameter may occur only once"));
            }
            given.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(given))
    }

    /// Takes the parameter `name` and converts it with `read`; `wrong` completes the error text "NAME …".
    pub fn take<T>(
        &mut self,
        name: &str,
        wrong: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Answer> {
        let Some(at) = self.0.iter().position(|(given, _)| given == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.swap_remove(at);
        read(&value).map(Some).ok_or_else(|| bad_request(&format!("{name} {wrong}")))
    }

    /// Takes `limit`, the number of rows.
    pub fn take_limit(&mut self) -> Result<usize, Answer> {
        let wrong = "must be a number from 1 to 1000";
        let read = |text: &str| text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
        Ok(self.take("limit", wrong, read)?.unwrap_or(DEFAULT_LIMIT))
    }

    /// Takes `user_id`. Credentials may carry it as a number or as text, which name the same user.
    pub fn take_user(&mut self) -> Result<Option<UserId>, Answer> {
        self.take("user_id", "must have 1 to 1024 bytes", |text| {
            let fits = (1..=MAX_USER_BYTES).contains(&text.len());
            fits.then(|| UserId::Text(text.into()))
        })
    }

    pub fn take_channel(&mut self) -> Result<Option<ChannelName>, Answer> {
        let Some(name) = self.take("channel", "", |text| Some(text.to_owned()))? else {
            return Ok(None);
        };
        let channel = ChannelName::new(&name);
        channel.map(Some).map_err(|invalid| bad_channel(&invalid.to_string()))
    }

    /// Fails if parameters are left that were not taken; `known` lists all names.
    pub fn finish(self, known: &[&str]) -> Result<(), Answer> {
        match (self.0.first(), known) {
            (None, _) => Ok(()),
            (Some(_), []) => Err(bad_request("this call has no query parameters")),
            (Some(_), known) => {
                Err(bad_request(&format!("query parameters must be among: {}", known.join(", "))))
            }
        }
    }
}

/// Decodes a channel's name from a path.
pub fn channel(encoded: &str) -> Result<ChannelName, Answer> {
    let name = percent_decode_str(encoded)
        .decode_utf8()
        .map_err(|_| bad_channel("a channel name must be percent-encoded UTF-8"))?;
    ChannelName::new(&name).map_err(|invalid| bad_channel(&invalid.to_string()))
}

pub fn bad_channel(message: &str) -> Answer {
    error(Code::BadChannel, message)
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Answer> {
    parse_object(body).or_else(|wrong| parse_object(&quote_floats(body).ok_or(wrong)?))
}

/// Reads a JSON object, of which the result may borrow parts.
pub fn parse_object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Answer> {
    // serde would accept an array of the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad_request("the request body must be a JSON object"));
    }
    serde_json::from_slice(body).map_err(|wrong| bad_request(&wrong.to_string()))
}

/// Returns a body as JSON if it has NaN or infinities without quotes, as Python's `json.dumps` writes them.
pub fn quote_floats(body: &[u8]) -> Option<Bytes> {
    match json_text(str::from_utf8(body).ok()?)? {
        Cow::Borrowed(_) => None,
        Cow::Owned(quoted) => Some(quoted.into()),
    }
}
