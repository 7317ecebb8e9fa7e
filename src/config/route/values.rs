//! The values that keys of a route may have.

use hyper::Method;

use crate::config::kinds::{Kind, ValueError, choice, kind, words};
use crate::config::{
    AuthSource, Authorize, Binary, Compact, Compression, Concurrent, DuplicateTerminal, FixedReply,
    HostHeader, PlainRequests, Presence, Protocol, Reject,
};

pub const AUTH: Kind<AuthSource> =
    words(r#""connection_token", "cookie", "bearer", "query" or "anonymous""#, |value| {
        choice(
            value,
            &[
                ("connection_token", AuthSource::ConnectionToken),
                ("cookie", AuthSource::Cookie),
                ("bearer", AuthSource::Bearer),
                ("query", AuthSource::Query),
                ("anonymous", AuthSource::Anonymous),
            ],
        )
    });

pub const REJECT: Kind<Reject> = words(r#""close" or "http""#, |value| {
    choice(value, &[("close", Reject::Close), ("http", Reject::Http)])
});

pub const PLAIN_REQUESTS: Kind<PlainRequests> = words(r#""proxy", "upstream" or "off""#, |value| {
    choice(
        value,
        &[
            ("proxy", PlainRequests::Proxy),
            ("upstream", PlainRequests::Upstream),
            ("off", PlainRequests::Refused),
        ],
    )
});

pub const METHOD: Kind<Method> = kind("method", r#"a method such as "GET""#, |value| {
    let text = value.as_str().ok_or(ValueError::WrongKind)?;
    let is_upper = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| is_upper);
    method.filter(|method| *method != Method::CONNECT).ok_or(ValueError::WrongKind)
});

pub const PROTOCOL: Kind<Protocol> = words(r#""json", "raw" or "pass""#, |value| {
    choice(value, &[("json", Protocol::Json), ("raw", Protocol::Raw), ("pass", Protocol::Pass)])
});

pub const HOST: Kind<HostHeader> = words(r#""client" or "upstream""#, |value| {
    choice(value, &[("client", HostHeader::Client), ("upstream", HostHeader::Upstream)])
});

pub const BINARY: Kind<Binary> = words(r#""reject" or "relay""#, |value| {
    choice(value, &[("reject", Binary::Reject), ("relay", Binary::Relay)])
});

pub const COMPRESSION: Kind<Compression> = words(r#""off" or "deflate""#, |value| {
    choice(value, &[("off", Compression::Off), ("deflate", Compression::Deflate)])
});

pub const COMPACT: Kind<Compact> = words(r#""off" or "chunks""#, |value| {
    choice(value, &[("off", Compact::Off), ("chunks", Compact::Chunks)])
});

pub const PRESENCE: Kind<Presence> = words(r#""off", "on" or "events""#, |value| {
    choice(value, &[("off", Presence::Off), ("on", Presence::On), ("events", Presence::Events)])
});

pub const DUPLICATE_TERMINAL: Kind<DuplicateTerminal> = words(r#""drop" or "pass""#, |value| {
    choice(value, &[("drop", DuplicateTerminal::Drop), ("pass", DuplicateTerminal::Pass)])
});

pub const CONCURRENT: Kind<Concurrent> = words(r#""parallel", "queue" or "reject""#, |value| {
    choice(
        value,
        &[
            ("parallel", Concurrent::Parallel),
            ("queue", Concurrent::Queue),
            ("reject", Concurrent::Reject),
        ],
    )
});

/// `""` stands for `None`.
pub const REPLY: Kind<Option<Box<str>>> =
    kind("JSON text", r#"JSON of at most 4096 bytes such as '{"status":"ok"}'"#, |value| {
        let text = value.as_str().ok_or(ValueError::WrongKind)?;
        if text.is_empty() {
            return Ok(None);
        }
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        let fits = is_json && text.len() <= FixedReply::MAX_BYTES;
        fits.then(|| Some(text.into())).ok_or(ValueError::WrongKind)
    });

/// The plain forms. The other form is a table.
pub const CLAIMS: Kind<Authorize> =
    words(r#""claims", "none" or { url = "http://…", timeout = "2s" }"#, |value| {
        match value.as_str() {
            Some("claims") => Ok(Authorize::Claims),
            Some("none") => Ok(Authorize::None),
            _ => Err(ValueError::WrongKind),
        }
    });
