//! Origins (RFC 6454) and the patterns of the allowlist.

use std::fmt;

use sha2::{Digest, Sha256};

/// The scheme, host and port of an `Origin` header. The opaque origin `null` has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: Box<str>,
    host: Box<str>,
    port: u16,
}

impl Origin {
    /// Parses an `Origin` header, `scheme://host[:port]`. `None` for `null`, for a URL with a path, query, fragment or
    /// user info, and for anything malformed.
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once("://")?;
        if rest.is_empty() || rest.contains(['/', '?', '#', '@', '\\', ' ', ',', '*', '%']) {
            return None;
        }
        let url = url::Url::parse(header).ok()?;
        if !url.scheme().eq_ignore_ascii_case(scheme) || !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        Some(Self {
            scheme: url.scheme().into(),
            host: url.host_str()?.into(),
            port: url.port_or_known_default()?,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

/// Half of the SHA-256 of an origin. A connection keeps it in place of the origin, which takes more memory, to compare
/// it later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginTag([u8; 16]);

impl OriginTag {
    /// The tag of an `Origin` header; `None` where [`Origin::parse`] returns `None`.
    pub fn parse(header: &str) -> Option<Self> {
        Origin::parse(header).map(|origin| Self::from(&origin))
    }
}

impl From<&Origin> for OriginTag {
    fn from(origin: &Origin) -> Self {
        let digest = Sha256::digest(origin.to_string());
        Self(std::array::from_fn(|index| digest[index]))
    }
}

/// An entry of `[origins] allow`: an origin whose scheme may be `*` (http or https), whose host may start with `*.`
/// (any subdomain, but not the domain itself) and whose port may be `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPattern {
    /// `None` = http or https.
    scheme: Option<Box<str>>,
    host: Box<str>,
    subdomains: bool,
    port: PortPattern,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortPattern {
    Any,
    Exactly(u16),
    /// The default port of the origin's scheme.
    Default,
}

impl PortPattern {
    fn matches(self, origin: &Origin) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(port) => origin.port == port,
            Self::Default => origin.port == if &*origin.scheme == "https" { 443 } else { 80 },
        }
    }
}

impl OriginPattern {
    /// `Err` describes the mistake and the correct form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a valid origin: write scheme://host[:port], for example https://app.example.com, \
                 https://*.example.com, *://app.example.com or http://localhost:*"
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (rest, subdomains) = match rest.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (rest, any_port) = match rest.strip_suffix(":*") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let any_scheme = scheme == "*";
        let scheme = if any_scheme { "http" } else { scheme };
        let origin = Origin::parse(&format!("{scheme}://{rest}")).ok_or_else(wrong)?;
        if subdomains && !origin.host.contains('.') {
            return Err(format!("{text:?} would allow every host of a top-level domain"));
        }
        // The URL parser drops an explicit port 80, because it is the default of http.
        let has_port = || rest.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let port = match (any_port, any_scheme) {
            (true, _) => PortPattern::Any,
            (false, true) if !has_port() => PortPattern::Default,
            (false, _) => PortPattern::Exactly(origin.port),
        };
        let scheme = (!any_scheme).then_some(origin.scheme);
        Ok(Self { scheme, host: origin.host, subdomains, port })
    }

    pub fn matches(&self, origin: &Origin) -> bool {
        let host_fits = if self.subdomains {
            origin
                .host
                .strip_suffix(&*self.host)
                .is_some_and(|label| label.len() > 1 && label.ends_with('.'))
        } else {
            origin.host == self.host
        };
        host_fits
            && self.scheme.as_ref().is_none_or(|scheme| *scheme == origin.scheme)
            && self.port.matches(origin)
    }
}

#[cfg(test)]
mod tests;
