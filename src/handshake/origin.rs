//! Checks the `Origin` of a request against the allowlist.

use hyper::HeaderMap;
use hyper::header::ORIGIN;

use super::Rejection;
use crate::config::{AllowedOrigin, MissingOrigin, Origins};
use crate::protocol::{ClientAddress, Origin, OriginTag, own_origins};

/// The origin of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestOrigin {
    Missing,
    /// The header is `null`, malformed, or present more than once. The text is for the log.
    Opaque(String),
    Known {
        origin: Origin,
        text: String,
    },
}

impl RequestOrigin {
    pub fn read(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(ORIGIN).iter();
        let Some(first) = given.next() else { return Self::Missing };
        let text = first.to_str().unwrap_or_default();
        match (Origin::parse(text), given.next()) {
            (Some(origin), None) => Self::Known { origin, text: text.to_owned() },
            (_, None) => Self::Opaque(String::from_utf8_lossy(first.as_bytes()).into_owned()),
            (_, Some(_)) => Self::Opaque(format!("several, the first {text}")),
        }
    }

    /// Returns the text of the header, if it names an origin.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Known { text, .. } => Some(text),
            Self::Missing | Self::Opaque(_) => None,
        }
    }

    /// Returns the header for the log, whatever it is.
    pub fn logged(&self) -> Option<&str> {
        match self {
            Self::Known { text, .. } | Self::Opaque(text) => Some(text),
            Self::Missing => None,
        }
    }

    /// Returns the form that token records are compared with.
    pub fn tag(&self) -> Option<OriginTag> {
        match self {
            Self::Known { origin, .. } => Some(origin.into()),
            Self::Missing | Self::Opaque(_) => None,
        }
    }
}

/// Checks the origin of a request with these headers, which come from a trusted proxy or from anybody at `address`.
pub fn check(
    origins: &Origins,
    origin: &RequestOrigin,
    headers: &HeaderMap,
    address: ClientAddress,
) -> Result<(), Rejection> {
    let allowed = match origin {
        RequestOrigin::Missing => origins.missing == MissingOrigin::Allow,
        RequestOrigin::Opaque(_) => false,
        RequestOrigin::Known { origin, .. } => origins.allow.iter().any(|allowed| match allowed {
            AllowedOrigin::Own => {
                let own = own_origins(headers, address.through_proxy, address.scheme());
                own.into_iter().any(|own| own == *origin)
            }
            AllowedOrigin::Matching(pattern) => pattern.matches(origin),
        }),
    };
    if allowed { Ok(()) } else { Err(Rejection::origin()) }
}
