//! Origins (RFC 6454) and the patterns of the allowlist.

use std::fmt;

use sha2::{Digest, Sha256};

/// The schemes of other URLs that have hosts. No page has such an origin.
const NOT_OF_PAGES: [&str; 4] = ["ftp", "file", "ws", "wss"];

/// The scheme, host and port of an `Origin` header. The opaque origin `null` has none.
///
/// Besides web pages, apps and browser extensions have origins, such as `capacitor://localhost` and
/// `chrome-extension://<id>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: Box<str>,
    host: Box<str>,
    /// `None` = the scheme is not that of a web page, and the origin names no port.
    port: Option<u16>,
}

impl Origin {
    /// Parses an `Origin` header, `scheme://host[:port]`. `None` for `null`, for a URL with a path, query, fragment or
    /// user info, and for anything malformed.
    pub fn parse(header: &str) -> Option<Self> {
        let is_plain = |origin: &Self| origin.is_written_as(header) && !origin.has_empty_label();
        Self::parse_leniently(header).filter(is_plain)
    }

    /// Whether two dots follow each other in the host, or one begins it: no page is there.
    fn has_empty_label(&self) -> bool {
        self.host.starts_with('.') || self.host.contains("..")
    }

    /// The origin of a server that is named by a URL without a path. `None` for anything malformed.
    pub fn of_server(url: &str) -> Option<Self> {
        Self::parse_leniently(url)
    }

    /// Whether `header` has nothing but this origin, whose default port may be written or not. Readers of URLs pass
    /// over tabs, and take `127.1` and `0x7f.1` for addresses; a browser writes none of these.
    fn is_written_as(&self, header: &str) -> bool {
        let Self { scheme, host, port } = self;
        let start = format!("{scheme}://{host}");
        let is = |text: &str| header.eq_ignore_ascii_case(text);
        let is_default = match &**scheme {
            "http" => *port == Some(80),
            "https" => *port == Some(443),
            _ => port.is_none(),
        };
        (is_default && is(&start)) || port.is_some_and(|port| is(&format!("{start}:{port}")))
    }

    /// Parses an origin in the ways that URLs can be written.
    fn parse_leniently(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once("://")?;
        if rest.is_empty() || rest.contains(['/', '?', '#', '@', '\\', ' ', ',', '*', '%']) {
            return None;
        }
        if !matches!(&*scheme.to_ascii_lowercase(), "http" | "https") {
            return Self::parse_app(&scheme.to_ascii_lowercase(), rest);
        }
        let url = url::Url::parse(header).ok()?;
        if !url.scheme().eq_ignore_ascii_case(scheme) {
            return None;
        }
        let port = Some(url.port_or_known_default()?);
        Some(Self { scheme: url.scheme().into(), host: url.host_str()?.into(), port })
    }

    /// Parses the origin of an app or of a browser extension. Its host is a name or an id.
    fn parse_app(scheme: &str, rest: &str) -> Option<Self> {
        let (host, port) = match rest.split_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
                (host, Some(port.parse().ok()?))
            }
            Some(_) => return None,
            None => (rest, None),
        };
        let is_in_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if !is_scheme(scheme) || host.is_empty() || !host.bytes().all(is_in_host) {
            return None;
        }
        Some(Self { scheme: scheme.into(), host: host.to_ascii_lowercase().into(), port })
    }

    fn is_of_page(&self) -> bool {
        matches!(&*self.scheme, "http" | "https")
    }
}

/// Whether this is a scheme that an app or an extension can have (RFC 3986 section 3.1).
fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        && !NOT_OF_PAGES.contains(&scheme)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
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
/// (any subdomain, but not the domain itself) and whose port may be `*`. The origin of an app or of an extension has no
/// wildcards.
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
    Exactly(Option<u16>),
    /// The default port of the origin's scheme.
    Default,
}

impl PortPattern {
    fn matches(self, origin: &Origin) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(port) => origin.port == port,
            Self::Default => origin.port == Some(if &*origin.scheme == "https" { 443 } else { 80 }),
        }
    }
}

impl OriginPattern {
    /// `Err` describes the mistake and the correct form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a valid origin: {}; write scheme://host[:port], for example https://app.example.com, \
                 https://*.example.com, *://app.example.com or http://localhost:*, or for an app or an extension \
                 capacitor://localhost or chrome-extension://<id>, or self for the gateway's own",
                mistake(text)
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
        let origin = Origin::parse_leniently(&format!("{scheme}://{rest}")).ok_or_else(wrong)?;
        if !origin.is_of_page() && (subdomains || any_port) {
            return Err(wrong());
        }
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
        let scheme_fits = match &self.scheme {
            Some(scheme) => *scheme == origin.scheme,
            None => origin.is_of_page(),
        };
        host_fits && scheme_fits && self.port.matches(origin)
    }
}

/// Says what is wrong with an entry that is not a pattern.
fn mistake(text: &str) -> String {
    if text.eq_ignore_ascii_case("null") {
        return "null is the origin of every sandboxed frame and local file, and cannot be allowed"
            .to_owned();
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return "the scheme is missing".to_owned();
    };
    if scheme != "*" && !is_scheme(&scheme.to_ascii_lowercase()) {
        return format!("no page has an origin of the scheme {scheme:?}");
    }
    if let Some(start) = rest.find(['/', '?', '#', '\\']) {
        return format!("an origin ends with its host or port, without {:?}", &rest[start..]);
    }
    if rest.contains('@') {
        return "an origin has no user name".to_owned();
    }
    let is_of_page = matches!(&*scheme.to_ascii_lowercase(), "http" | "https" | "*");
    if rest.contains('*') {
        return match is_of_page {
            true => {
                "a * stands for the scheme, for the port, or for subdomains as in *.example.com"
                    .to_owned()
            }
            false => format!(
                "a * would allow every app or extension; write {scheme}:// and the name or id of yours"
            ),
        };
    }
    match rest.is_empty() {
        true => "the host is missing".to_owned(),
        false => "the host or the port is malformed".to_owned(),
    }
}

#[cfg(test)]
mod tests;
