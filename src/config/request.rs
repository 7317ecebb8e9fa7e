//! Keys of an HTTP upstream that say what it is sent: method, headers and body.

use std::str::FromStr;

use hyper::Method;
use hyper::header::{self, HeaderName, HeaderValue};
use toml::Value;

use super::kinds::{Kind, ValueError, choice, kind, words};
use super::section::{SecretEntry, Section};
use super::value_template::TemplateReader;
use super::{
    ClientField, ForwardedNames, HttpRequest, Missing, ReadBy, RequestBody, ValueTemplate,
    method_has_body,
};
use crate::protocol::{Template, is_hop_by_hop, is_identity_header};

const METHOD: Kind<Method> = words(r#""POST", "PUT", "PATCH", "GET" or "DELETE""#, |value| {
    let methods = [
        ("POST", &Method::POST),
        ("PUT", &Method::PUT),
        ("PATCH", &Method::PATCH),
        ("GET", &Method::GET),
        ("DELETE", &Method::DELETE),
    ];
    choice(value, &methods).cloned()
});

/// The plain forms. The other form is a table or a list.
const BODY: Kind<RequestBody> = words(r#""envelope", "data" or { … }"#, |value| match value {
    Value::String(text) if text == "envelope" => Ok(RequestBody::Envelope),
    Value::String(text) if text == "data" => Ok(RequestBody::Data),
    _ => Err(ValueError::WrongKind),
});

const BODY_DOC: &str = "\"envelope\": the gateway's object with message, user and channel. \"data\": the client's object as it \
    is. A table or list: JSON of these values, see [ai-apis.md](ai-apis.md#the-request).";

const FORWARDED_HEADER: Kind<HeaderName> =
    kind("name", r#"the name of a header such as "Accept-Language""#, |value| {
        let name = value.as_str().and_then(|name| HeaderName::from_str(name).ok());
        let name = name.ok_or(ValueError::WrongKind)?;
        match why_not_forwarded(&name) {
            Some(why) => Err(ValueError::Rule(why.to_owned())),
            None => Ok(name),
        }
    });

const FORWARDED_COOKIE: Kind<String> =
    kind("name", r#"the name of a cookie such as "sessionid""#, |value| {
        let name = value.as_str().filter(|name| HeaderName::from_str(name).is_ok());
        name.map(str::to_owned).ok_or(ValueError::WrongKind)
    });

/// The most names in each list: whatever is forwarded is kept for every connection.
const MAX_FORWARDED: usize = 32;

/// `urls` are those of the upstream.
pub(super) fn request(s: &mut Section<'_>, urls: &[Template]) -> Option<HttpRequest> {
    let method = s.key(
        "method",
        METHOD,
        "POST",
        "The method of the requests. GET and DELETE have no body; their url can take {message} in its query.",
    );
    let headers = headers(s, HEADERS_DOC);
    let forward = forward(s);
    let body = body(s);
    let (method, headers, forward, body) = (method?, headers?, forward?, body?);
    let mut is_valid = true;
    for (name, _) in &headers {
        let is_forwarded = match *name {
            header::COOKIE => !forward.cookies.is_empty(),
            _ => forward.headers.contains(name),
        };
        if is_forwarded {
            let fix = "the client's own is forwarded; write it here or there, not both";
            s.mistake(&format!("headers.{name}"), None, fix);
            is_valid = false;
        }
    }
    if !method_has_body(&method) && body != RequestBody::Envelope {
        let fix = format!(
            "no effect: a {method} request has no body; remove it, or write method = \"POST\""
        );
        s.mistake("body", None, fix);
        is_valid = false;
    }
    let needs_text = has_text(&body, method_has_body(&method)) || has_message(urls);
    is_valid.then_some(HttpRequest { method, headers, forward, body, needs_text })
}

/// Whether the client's `message` is a part of the body.
fn has_text(body: &RequestBody, has_body: bool) -> bool {
    match body {
        RequestBody::Envelope => has_body,
        RequestBody::Data => false,
        RequestBody::Template(template) => {
            let mut found = false;
            template.for_each_text("", &mut |_, text| found |= has_message([text]));
            found
        }
    }
}

fn has_message<'a>(templates: impl IntoIterator<Item = &'a Template>) -> bool {
    templates.into_iter().flat_map(Template::names).any(|name| name == "message")
}

const HEADERS_DOC: &str = "Headers of each request, such as { \"anthropic-version\" = \"2023-06-01\", \"x-api-key\" = \"${API_KEY}\" }. A value \
    from a file: { authorization = { file = \"/run/secrets/key\", prefix = \"Bearer \" } }, or NAME_file = \"path\". No value \
    is ever shown or logged.";

/// Reads the headers that each request has.
pub(super) fn headers(
    s: &mut Section<'_>,
    doc: &'static str,
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let entries = s.secret_table("headers", "secret", doc);
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let mut is_valid = entries.iter().all(Option::is_some);
    for entry in entries.into_iter().flatten() {
        match parse_header(&entry) {
            Ok((name, _)) if headers.iter().any(|(other, _)| *other == name) => {
                s.mistake(&entry.key, None, "write each header only once");
                is_valid = false;
            }
            Ok(header) => headers.push(header),
            Err((found, fix)) => {
                s.mistake(&entry.key, found.map(str::to_owned), fix);
                is_valid = false;
            }
        }
    }
    is_valid.then_some(headers)
}

/// `Err` has what may be shown of the value, if it is wrong, and how to fix the header.
fn parse_header(
    entry: &SecretEntry,
) -> Result<(HeaderName, HeaderValue), (Option<&'static str>, &'static str)> {
    let name = HeaderName::from_bytes(entry.name.as_bytes());
    let name =
        name.map_err(|_| (None, "write a name of letters, digits and - such as \"x-api-key\""))?;
    if let Some(why) = why_not_set(&name) {
        return Err((None, why));
    }
    let value = Some(&entry.value).filter(|value| !value.trim().is_empty());
    let value = value.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
    let mut value = value
        .ok_or((Some(entry.display), "write a text that is not empty and has no line breaks"))?;
    // Debug output of a sensitive header does not show it.
    value.set_sensitive(true);
    Ok((name, value))
}

/// Says why a header cannot be set; `None` = it can.
fn why_not_set(name: &HeaderName) -> Option<&'static str> {
    why_of_gateway(name).or(match name.as_str() {
        "forwarded" | "x-forwarded-for" | "x-real-ip" => {
            Some("remove it: it says who the client is, and would say the same of all clients")
        }
        _ => None,
    })
}

/// Says why a client's header cannot be forwarded; `None` = it can.
fn why_not_forwarded(name: &HeaderName) -> Option<&'static str> {
    match name.as_str() {
        "cookie" => return Some("write the names of the cookies in forward_cookies"),
        "accept" | "content-type" => {
            return Some(
                "remove it: this header belongs to the message, and can be written in headers",
            );
        }
        name if name.starts_with("sec-websocket-") => {
            return Some(
                "remove it: it belongs to the WebSocket, and may carry a connection token",
            );
        }
        _ => {}
    }
    why_of_gateway(name).or_else(|| {
        is_identity_header(name).then_some(
            "remove it: a client could write anything in it. The envelope says who the client is",
        )
    })
}

/// Says why nobody but the gateway sets a header; `None` = others can.
fn why_of_gateway(name: &HeaderName) -> Option<&'static str> {
    let of_message = "remove it: the gateway sets this header for each message";
    let of_connection = "remove it: this header belongs to the connection";
    match name.as_str() {
        "content-length" | "host" | "accept-encoding" | "idempotency-key" | "x-request-id"
        | "traceparent" | "tracestate" => Some(of_message),
        name if name.starts_with("x-tidegate-") => Some(of_message),
        "te" | "trailer" | "expect" | "http2-settings" => Some(of_connection),
        _ => is_hop_by_hop(name).then_some(of_connection),
    }
}

fn forward(s: &mut Section<'_>) -> Option<ForwardedNames> {
    let headers = s.list(
        "forward_headers",
        FORWARDED_HEADER,
        &[],
        "Headers of the client's handshake that each of its messages is sent with. They are kept as long as the connection, \
         up to 8 KiB with the cookies: a handshake with more is refused with 431.",
    );
    let cookies = s.list(
        "forward_cookies",
        FORWARDED_COOKIE,
        &[],
        "The same for cookies. A session cookie of the gateway (jwt.cookie) is forwarded only if it is named here.",
    );
    let (headers, cookies) = (headers?, cookies?);
    let mut is_valid = true;
    let mut check = |name: &str, is_repeated: bool, count: usize| {
        let fix = match (is_repeated, count > MAX_FORWARDED) {
            (true, _) => "write each name only once",
            (_, true) => "write at most 32 names",
            _ => return,
        };
        s.mistake(name, None, fix);
        is_valid = false;
    };
    check("forward_headers", has_repeated(&headers), headers.len());
    check("forward_cookies", has_repeated(&cookies), cookies.len());
    is_valid.then_some(ForwardedNames { headers, cookies })
}

fn has_repeated<T: PartialEq>(names: &[T]) -> bool {
    names.iter().enumerate().any(|(index, name)| names[..index].contains(name))
}

fn body(s: &mut Section<'_>) -> Option<RequestBody> {
    if !s.is_nested("body") {
        return s.key("body", BODY, "envelope", BODY_DOC);
    }
    let value = s.nested("body", BODY.name, "envelope", BODY_DOC)?;
    let template = TemplateReader::new(s, ReadBy::HttpServer).value("body", &value)?;
    let may_be_missing =
        matches!(&template, ValueTemplate::Field(ClientField { missing: Missing::Omit, .. }));
    if may_be_missing {
        let fix = "write required = true or another default: a request has a body";
        s.mistake("body", Some("a table".to_owned()), fix);
        return None;
    }
    Some(RequestBody::Template(template))
}

#[cfg(test)]
mod tests;
