//! The URL of a Redis server in the syntax of redis-py, kombu and Celery, which set TLS by URL parameters.
//!
//! Owns what each form means, which parameters have a meaning, and which are ignored because they only concern Python
//! clients. Every other parameter is a mistake, because one that changes keys or checks must not be dropped silently.
//! A form that redis-py and Celery read differently is a mistake too.
//! Invariant: no error text shows a part of the URL except the names of parameters.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use redis::{ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use url::form_urlencoded;

use self::parts::{Parts, decode};
use super::Secret;
use super::mistakes::nearest;

mod parts;

/// The parameters that every scheme has. `virtual_host` is Celery's name for the database of a socket.
const SERVER: [&str; 6] = ["db", "username", "password", "user", "pass", "virtual_host"];

/// What redis-py and Celery use if the URL does not say.
const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 6379;

/// The parameters of `rediss://`.
const TLS: [&str; 5] =
    ["ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"];

/// Parameters for waiting, pooling and decoding in Python clients, which the gateway ignores.
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

/// How a server certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateCheck {
    /// The chain and the host name.
    Full,
    /// The chain only.
    Chain,
    /// Not at all: the connection is encrypted, but the server is not authenticated.
    Nothing,
}

/// A checked URL with the contents of the files that it names. Cheap to clone.
#[derive(Clone)]
pub struct RedisUrl(Arc<Checked>);

struct Checked {
    text: Secret,
    info: ConnectionInfo,
    check: CertificateCheck,
    certificates: Option<TlsCertificates>,
}

impl RedisUrl {
    /// The URL as it is written, which identifies it.
    pub fn text(&self) -> &Secret {
        &self.0.text
    }

    /// The address, user, password and database.
    pub fn info(&self) -> &ConnectionInfo {
        &self.0.info
    }

    /// The check that a `rediss://` URL asks for.
    pub fn check(&self) -> CertificateCheck {
        self.0.check
    }

    /// The valid contents of the certificate files that the URL names.
    pub fn certificates(&self) -> Option<&TlsCertificates> {
        self.0.certificates.as_ref()
    }

    /// A URL without files, for tests.
    #[cfg(test)]
    pub fn example(text: &str) -> Self {
        let url = UnloadedRedisUrl::parse(text).unwrap_or_else(|error| panic!("{error:?}"));
        url.load(|_| Err("it names a file".to_owned())).unwrap()
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

/// Why a text is not the URL of a Redis server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RedisUrlError {
    /// It is not a Redis URL at all.
    Invalid,
    /// A sentence that says which part of it is wrong.
    Reason(String),
}

/// A parsed URL, whose certificate files have not been read yet.
pub(super) struct UnloadedRedisUrl {
    text: Secret,
    info: ConnectionInfo,
    check: CertificateCheck,
    ca: Option<String>,
    /// The paths of the client certificate and of its key, which may be the same file.
    client: Option<(String, String)>,
}

impl UnloadedRedisUrl {
    pub(super) fn parse(text: &str) -> Result<Self, RedisUrlError> {
        // Celery tries the brokers of such a list in turn.
        if text.contains(";redis") || text.contains(",redis") {
            return reject("write the URL of one server, not a list".to_owned());
        }
        match text.split_once('#') {
            None => {}
            Some((_, "insecure")) => {
                return reject("write ?ssl_cert_reqs=none instead of #insecure".to_owned());
            }
            Some(_) => return reject("write a # in a user name or password as %23".to_owned()),
        }
        let parts = Parts::split(text).ok_or(RedisUrlError::Invalid)?;
        let scheme = parts.scheme.as_str();
        for (word, name) in [("sentinel", "Sentinel"), ("cluster", "Cluster")] {
            if scheme.contains(word) {
                return reject(format!(
                    "Redis {name} is not supported; write the redis:// URL of one Redis server"
                ));
            }
        }
        let is_socket = matches!(scheme, "unix" | "redis+unix" | "redis+socket" | "socket");
        let is_tls = scheme == "rediss";
        if !is_socket && !is_tls && scheme != "redis" {
            return Err(RedisUrlError::Invalid);
        }
        let mut parameters = parameters(parts.query)?;
        let database = database(&parts, is_socket, &mut parameters)?;
        let address = address(&parts, is_socket, is_tls)?;
        // The error of the library may quote the URL.
        let info = address.into_connection_info().map_err(|_| RedisUrlError::Invalid)?;
        let mut settings = info.redis_settings().clone().set_db(database);
        let [username, password] = credentials(&parts, &mut parameters)?;
        if let Some(username) = username {
            // Like redis-py, a user without a password is one whose password is empty.
            settings = settings.set_username(username).set_password(String::new());
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        let info = info.set_redis_settings(settings);
        if let Some(name) = parameters.keys().find(|name| TLS.contains(&name.as_str()) && !is_tls) {
            return reject(format!("{name} needs TLS; write rediss://, or remove it"));
        }
        let check = certificate_check(&mut parameters)?;
        let ca = file(&mut parameters, "ssl_ca_certs")?;
        let certificate = file(&mut parameters, "ssl_certfile")?;
        let key = file(&mut parameters, "ssl_keyfile")?;
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            // Python reads the key from the certificate file if no other file is named.
            (Some(both), None) => Some((both.clone(), both)),
            (None, None) => None,
            (None, Some(_)) => {
                return reject("write ssl_certfile as well as ssl_keyfile".to_owned());
            }
        };
        Ok(Self { text: Secret::new(text), info, check, ca, client })
    }

    /// Reads the certificate files. The error names the parameter of a file that cannot be used.
    pub(super) fn load(
        self,
        read: impl Fn(&str) -> Result<String, String>,
    ) -> Result<RedisUrl, String> {
        let read = |name: &str, path: &str| {
            read(path).map(String::into_bytes).map_err(|error| format!("{name}: {error}"))
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

fn reject<T>(sentence: String) -> Result<T, RedisUrlError> {
    Err(RedisUrlError::Reason(sentence))
}

/// The parameters of the query, without the ignored ones.
fn parameters(query: &str) -> Result<BTreeMap<String, String>, RedisUrlError> {
    // After an unescaped `?` in a password the rest of the password is parsed as the query.
    let may_be_shown = !query.contains('@');
    let mut found = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if IGNORED.contains(&&*name) {
            continue;
        }
        if !SERVER.contains(&&*name) && !TLS.contains(&&*name) {
            let known = SERVER.into_iter().take(3).chain(TLS);
            let unknown = match name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                true if may_be_shown => format!("unknown parameter {name}"),
                _ => "unknown parameter".to_owned(),
            };
            return reject(match nearest(&name, known.clone().chain(IGNORED)) {
                Some(nearest) => format!("{unknown}; did you mean {nearest}?"),
                None => {
                    let known: Vec<&str> = known.collect();
                    format!("{unknown}; the known ones are {}", known.join(", "))
                }
            });
        }
        // Python drops empty parameters.
        if value.is_empty() && SERVER.contains(&&*name) {
            continue;
        }
        if found.insert(name.to_string(), value.into_owned()).is_some() {
            return reject(format!("write the parameter {name} only once"));
        }
    }
    Ok(found)
}

/// The database: the parameter `db`, or else the path of a server, or `virtual_host` of a socket.
fn database(
    parts: &Parts<'_>,
    is_socket: bool,
    parameters: &mut BTreeMap<String, String>,
) -> Result<i64, RedisUrlError> {
    let number = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_number)
    };
    let virtual_host = parameters.remove("virtual_host");
    let virtual_host = virtual_host.as_deref().map(|text| text.trim_matches('/').to_owned());
    if virtual_host.is_some() && !is_socket {
        return reject("virtual_host is for sockets; write the database as the path".to_owned());
    }
    let path = decode(parts.path).trim_matches('/').to_owned();
    let path = (!is_socket && !path.is_empty()).then_some(path);
    let other =
        path.as_deref().map(|path| number(path).ok_or(RedisUrlError::Invalid)).transpose()?;
    let named = |name: &str, text: Option<String>| match text.as_deref().map(number) {
        None => Ok(None),
        Some(Some(number)) => Ok(Some(number)),
        Some(None) => reject(format!("write {name} as a number such as 3")),
    };
    let other = other.or(named("virtual_host", virtual_host)?);
    let db = named("db", parameters.remove("db"))?;
    Ok(db.or(other).map_or(0, i64::from))
}

fn address(
    parts: &Parts<'_>,
    is_socket: bool,
    is_tls: bool,
) -> Result<ConnectionAddr, RedisUrlError> {
    if is_socket {
        // Python clients drop the host, and with it the first part of a path that is written with two slashes.
        if parts.host.as_deref().is_some_and(|host| host != DEFAULT_HOST) || parts.port.is_some() {
            let fix = "write a socket with three slashes, such as unix:///run/redis.sock";
            return reject(fix.to_owned());
        }
        return match decode(parts.path) {
            path if path.len() > 1 => Ok(ConnectionAddr::Unix(path.into())),
            _ => reject("write the path of the socket, such as unix:///run/redis.sock".to_owned()),
        };
    }
    let host = parts.host.clone().unwrap_or_else(|| DEFAULT_HOST.to_owned());
    let port = parts.port.unwrap_or(DEFAULT_PORT);
    Ok(match is_tls {
        true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host, port),
    })
}

/// The user name and the password, which may stand in front of the host or be parameters.
fn credentials(
    parts: &Parts<'_>,
    parameters: &mut BTreeMap<String, String>,
) -> Result<[Option<String>; 2], RedisUrlError> {
    let mut one = |name: &str, short: &str, in_front: &Option<String>| {
        let given = [in_front.clone(), parameters.remove(name), parameters.remove(short)];
        let mut given = given.into_iter().flatten();
        let first = given.next();
        // If both are there, redis-py takes the one in front of the host, and Celery takes the parameter.
        match given.all(|other| Some(&other) == first.as_ref()) {
            true => Ok(first),
            false => reject(format!("write the {name} only once")),
        }
    };
    Ok([one("username", "user", &parts.username)?, one("password", "pass", &parts.password)?])
}

fn certificate_check(
    parameters: &mut BTreeMap<String, String>,
) -> Result<CertificateCheck, RedisUrlError> {
    let host = parameters.remove("ssl_check_hostname").map(|value| {
        match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "t" | "y" => Ok(true),
            "false" | "0" | "no" | "f" | "n" => Ok(false),
            _ => reject("write ssl_check_hostname as true or false".to_owned()),
        }
    });
    let host = host.transpose()?;
    let reqs = parameters.remove("ssl_cert_reqs").map(|value| value.to_ascii_lowercase());
    match reqs.as_deref().map(|reqs| reqs.strip_prefix("cert_").unwrap_or(reqs)) {
        // A server always sends a certificate, so that "optional" means "required" for a client.
        None | Some("required" | "optional") => Ok(match host {
            Some(false) => CertificateCheck::Chain,
            Some(true) | None => CertificateCheck::Full,
        }),
        Some("none") if host == Some(true) => {
            reject("ssl_check_hostname=true cannot be combined with ssl_cert_reqs=none".to_owned())
        }
        Some("none") => Ok(CertificateCheck::Nothing),
        Some(_) => reject("write ssl_cert_reqs as none, optional or required".to_owned()),
    }
}

fn file(
    parameters: &mut BTreeMap<String, String>,
    name: &str,
) -> Result<Option<String>, RedisUrlError> {
    match parameters.remove(name) {
        Some(path) if path.is_empty() => reject(format!("write {name} as the path of a file")),
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
        let fix = "ssl_keyfile: write the path of a PEM file with an unencrypted private key";
        return Err(fix.to_owned());
    }
    Ok(ClientTlsConfig { client_cert, client_key })
}

#[cfg(test)]
mod tests;
