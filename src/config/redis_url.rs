//! The URL of a Redis server, as Python's clients write it: TLS is set by parameters of the URL.
//!
//! Owns which parameters are understood, which are ignored because they only concern those clients, and
//! that every other one is a mistake: a parameter that changes keys or checks must not be lost in silence.
//! Invariant: no text that comes out of here shows a part of the URL, except the names of parameters.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use redis::{ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;

use super::Secret;
use super::mistakes::nearest;

/// Understood on every scheme.
const SERVER: [&str; 5] = ["db", "username", "password", "user", "pass"];

/// Understood with `rediss://`.
const TLS: [&str; 5] =
    ["ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"];

/// They say how a Python client waits, pools and decodes; the gateway does that its own way.
const IGNORED: [&str; 21] = [
    "client_name",
    "decode_responses",
    "encoding",
    "encoding_errors",
    "health_check_interval",
    "legacy_responses",
    "lib_name",
    "lib_version",
    "max_connections",
    "protocol",
    "retry_on_error",
    "retry_on_timeout",
    "single_connection_client",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_keepalive_options",
    "socket_read_size",
    "socket_timeout",
    "socket_type",
    "timeout",
    "visibility_timeout",
];

/// What of the server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateCheck {
    /// Its chain, and that it is for the URL's host.
    Full,
    /// Its chain alone.
    Chain,
    /// Nothing: encrypted, to whoever answers.
    Nothing,
}

/// A checked URL with the files that it names. Cheap to clone.
#[derive(Clone)]
pub struct RedisUrl(Arc<Checked>);

struct Checked {
    text: Secret,
    info: ConnectionInfo,
    check: CertificateCheck,
    certificates: Option<TlsCertificates>,
}

impl RedisUrl {
    /// What tells one URL from another.
    pub fn text(&self) -> &Secret {
        &self.0.text
    }

    /// Address, user, password and database.
    pub fn info(&self) -> &ConnectionInfo {
        &self.0.info
    }

    /// What a `rediss://` URL asks for.
    pub fn check(&self) -> CertificateCheck {
        self.0.check
    }

    /// The contents of the files that the URL names, each of which holds what it should.
    pub fn certificates(&self) -> Option<&TlsCertificates> {
        self.0.certificates.as_ref()
    }

    /// A URL that names no files.
    #[cfg(test)]
    pub fn example(text: &str) -> Self {
        let written = Written::parse(text).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        written.load(|_| Err("it names a file".to_owned())).unwrap()
    }
}

impl PartialEq for RedisUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text().expose() == other.text().expose()
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why a text is no URL of a Redis server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRedisUrl {
    /// It is none at all.
    Other,
    /// A sentence that says what is wrong with a part of it.
    Because(String),
}

/// A URL as it was written: the files that it names have not been read.
pub(super) struct Written {
    text: Secret,
    info: ConnectionInfo,
    check: CertificateCheck,
    ca: Option<String>,
    /// The certificate's file and the key's, which may be the same.
    client: Option<(String, String)>,
}

impl Written {
    pub(super) fn parse(text: &str) -> Result<Self, NoRedisUrl> {
        let mut url = Url::parse(text).map_err(|_| NoRedisUrl::Other)?;
        let scheme = url.scheme();
        for (word, name) in [("sentinel", "Sentinel"), ("cluster", "Cluster")] {
            if scheme.contains(word) {
                return because(format!(
                    "Redis {name} is not supported; write the redis:// URL of one Redis server"
                ));
            }
        }
        if !matches!(scheme, "redis" | "rediss" | "redis+unix" | "unix") {
            return Err(NoRedisUrl::Other);
        }
        if url.fragment() == Some("insecure") {
            return because("write ?ssl_cert_reqs=none instead of #insecure".to_owned());
        }
        let is_tls = scheme == "rediss";
        let mut parameters = parameters(&url)?;
        url.set_query(None);
        // The library's own words may quote the URL.
        let info = url.clone().into_connection_info().map_err(|_| NoRedisUrl::Other)?;
        let info = with_server_parameters(info, &url, &mut parameters)?;
        if let Some(name) = parameters.keys().find(|name| TLS.contains(&name.as_str()) && !is_tls) {
            return because(format!("{name} is of TLS; write rediss:// or leave it out"));
        }
        let check = certificate_check(&mut parameters)?;
        let ca = file(&mut parameters, "ssl_ca_certs")?;
        let certificate = file(&mut parameters, "ssl_certfile")?;
        let key = file(&mut parameters, "ssl_keyfile")?;
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            // Python reads the key from the certificate's file where no other is named.
            (Some(both), None) => Some((both.clone(), both)),
            (None, None) => None,
            (None, Some(_)) => return because("write ssl_certfile beside ssl_keyfile".to_owned()),
        };
        Ok(Self { text: Secret::new(text), info, check, ca, client })
    }

    /// Reads the files; `Err` names the parameter of one that cannot be used.
    pub(super) fn load(
        self,
        read: impl Fn(&str) -> Result<String, String>,
    ) -> Result<RedisUrl, String> {
        let read = |name: &str, path: &str| {
            read(path).map(String::into_bytes).map_err(|wrong| format!("{name}: {wrong}"))
        };
        let root_cert = self.ca.as_deref().map(|path| read("ssl_ca_certs", path)).transpose()?;
        if root_cert.as_ref().is_some_and(|pem| !has_certificates(pem)) {
            return Err("ssl_ca_certs: write the path of a PEM file with certificates".to_owned());
        }
        let client_tls = match &self.client {
            None => None,
            Some((certificate, key)) => Some(client_certificate(
                read("ssl_certfile", certificate)?,
                read("ssl_keyfile", key)?,
            )?),
        };
        let certificates = (root_cert.is_some() || client_tls.is_some())
            .then_some(TlsCertificates { client_tls, root_cert });
        let Self { text, info, check, .. } = self;
        Ok(RedisUrl(Arc::new(Checked { text, info, check, certificates })))
    }
}

fn because<T>(sentence: String) -> Result<T, NoRedisUrl> {
    Err(NoRedisUrl::Because(sentence))
}

/// Those of the query that have a meaning here.
fn parameters(url: &Url) -> Result<BTreeMap<String, String>, NoRedisUrl> {
    // An unescaped `?` in a password makes the rest of it a query, which must not be shown.
    let may_be_shown = !url.query().unwrap_or_default().contains('@');
    let mut found = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        if IGNORED.contains(&&*name) {
            continue;
        }
        if !SERVER.contains(&&*name) && !TLS.contains(&&*name) {
            let known = SERVER.into_iter().take(3).chain(TLS);
            let unknown = match name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                true if may_be_shown => format!("its parameter {name} is not known"),
                _ => "it has a parameter that is not known".to_owned(),
            };
            return because(match nearest(&name, known.clone().chain(IGNORED)) {
                Some(nearest) => format!("{unknown}; did you mean {nearest}?"),
                None => {
                    let known: Vec<&str> = known.collect();
                    format!("{unknown}; those with a meaning are {}", known.join(", "))
                }
            });
        }
        if found.insert(name.to_string(), value.into_owned()).is_some() {
            return because(format!("write its parameter {name} only once"));
        }
    }
    Ok(found)
}

fn with_server_parameters(
    info: ConnectionInfo,
    url: &Url,
    parameters: &mut BTreeMap<String, String>,
) -> Result<ConnectionInfo, NoRedisUrl> {
    let mut settings = info.redis_settings().clone();
    if let Some(db) = parameters.remove("db") {
        let db = db.parse::<u16>().ok().map(i64::from);
        let Some(db) = db else { return because("db is a number such as 3".to_owned()) };
        let in_path = !matches!(info.addr(), ConnectionAddr::Unix(_)) && url.path().len() > 1;
        if in_path && settings.db() != db {
            return because("its path and its parameter db name two databases".to_owned());
        }
        settings = settings.set_db(db);
    }
    if settings.db() < 0 {
        return Err(NoRedisUrl::Other);
    }
    for (name, short) in [("username", "user"), ("password", "pass")] {
        let Some(value) = parameters.remove(name).or_else(|| parameters.remove(short)) else {
            continue;
        };
        if parameters.contains_key(short) || !url.username().is_empty() || url.password().is_some()
        {
            return because(format!("write the {name} only once"));
        }
        settings = if name == "username" {
            settings.set_username(value)
        } else {
            settings.set_password(value)
        };
    }
    Ok(info.set_redis_settings(settings))
}

fn certificate_check(
    parameters: &mut BTreeMap<String, String>,
) -> Result<CertificateCheck, NoRedisUrl> {
    let host = parameters.remove("ssl_check_hostname").map(|value| {
        match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "t" | "y" => Ok(true),
            "false" | "0" | "no" | "f" | "n" => Ok(false),
            _ => because("ssl_check_hostname is true or false".to_owned()),
        }
    });
    let host = host.transpose()?;
    let reqs = parameters.remove("ssl_cert_reqs").map(|value| value.to_ascii_lowercase());
    match reqs.as_deref().map(|reqs| reqs.strip_prefix("cert_").unwrap_or(reqs)) {
        // A server always shows a certificate, so that to a client "optional" is "required".
        None | Some("required" | "optional") => Ok(match host {
            Some(false) => CertificateCheck::Chain,
            Some(true) | None => CertificateCheck::Full,
        }),
        Some("none") if host == Some(true) => {
            because("ssl_check_hostname=true has no meaning with ssl_cert_reqs=none".to_owned())
        }
        Some("none") => Ok(CertificateCheck::Nothing),
        Some(_) => because("ssl_cert_reqs is none, optional or required".to_owned()),
    }
}

fn file(
    parameters: &mut BTreeMap<String, String>,
    name: &str,
) -> Result<Option<String>, NoRedisUrl> {
    match parameters.remove(name) {
        Some(path) if path.is_empty() => because(format!("{name} is the path of a file")),
        path => Ok(path),
    }
}

fn has_certificates(pem: &[u8]) -> bool {
    let mut certificates = CertificateDer::pem_slice_iter(pem).peekable();
    certificates.peek().is_some() && certificates.all(|certificate| certificate.is_ok())
}

fn client_certificate(
    client_cert: Vec<u8>,
    client_key: Vec<u8>,
) -> Result<ClientTlsConfig, String> {
    if !has_certificates(&client_cert) {
        return Err("ssl_certfile: write the path of a PEM file with certificates".to_owned());
    }
    if PrivateKeyDer::from_pem_slice(&client_key).is_err() {
        let right = "ssl_keyfile: write the path of a PEM file with a key that has no password";
        return Err(right.to_owned());
    }
    Ok(ClientTlsConfig { client_cert, client_key })
}

#[cfg(test)]
#[path = "redis_url_tests.rs"]
mod tests;
