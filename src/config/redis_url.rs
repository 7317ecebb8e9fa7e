//! The URL of a Redis server in the syntax of redis-py, kombu and Celery, which set TLS by URL parameters.
//!
//! Owns what each form means, which parameters have a meaning, and which are ignored because they only concern Python
//! clients. Every other parameter is a mistake, because one that changes keys or checks must not be dropped silently.
//! A form that redis-py and Celery read differently is a mistake too.
//! Invariant: no error text shows a part of the URL except the names of parameters.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use url::form_urlencoded;

use self::certificates::{certificate_check, client_certificate, file, has_certificates};
use self::parts::Parts;
use self::server::{address, credentials, database};
use super::Secret;
use super::mistakes::nearest;

mod certificates;
mod parts;
mod server;

/// The parameters that every scheme has. `virtual_host` is Celery's name for the database of a socket.
const SERVER: [&str; 6] = ["db", "username", "password", "user", "pass", "virtual_host"];

/// The schemes of a cluster, whose nodes are separated by commas.
const CLUSTER: &str = "redis-cluster";
const TLS_CLUSTER: &str = "rediss-cluster";

/// The most nodes of a cluster that a URL names.
const MAX_SEEDS: usize = 64;

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
    /// The servers of a cluster that are asked for the others; empty = the URL names the only server.
    seeds: Vec<ConnectionAddr>,
    check: CertificateCheck,
    certificates: Option<TlsCertificates>,
}

impl RedisUrl {
    /// The URL as it is written, which identifies it.
    pub fn text(&self) -> &Secret {
        &self.0.text
    }

    /// Whether the URL names nodes of a Redis Cluster.
    pub fn is_cluster(&self) -> bool {
        !self.0.seeds.is_empty()
    }

    /// The nodes of a cluster that the URL names, each as the URL of this node alone; none if it is no cluster.
    pub fn seeds(&self) -> impl Iterator<Item = Self> {
        self.0.seeds.iter().map(|seed| self.with_addr(seed.clone()))
    }

    /// The URL of another server with the same user, password, and checks of certificates: a node of the cluster.
    pub fn at(&self, host: &str, port: u16) -> Self {
        let host = host.to_owned();
        self.with_addr(match self.0.info.addr() {
            ConnectionAddr::TcpTls { .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            }
            _ => ConnectionAddr::Tcp(host, port),
        })
    }

    fn with_addr(&self, addr: ConnectionAddr) -> Self {
        let Checked { text, info, check, certificates, .. } = &*self.0;
        Self(Arc::new(Checked {
            text: Secret::new(format!("{} {addr}", text.expose())),
            info: info.clone().set_addr(addr),
            seeds: Vec::new(),
            check: *check,
            certificates: certificates.clone(),
        }))
    }

    /// The address for people: of the server, or of the nodes of a cluster that the URL names.
    pub fn address(&self) -> String {
        if self.is_cluster() {
            let seeds: Vec<String> = self.0.seeds.iter().map(ToString::to_string).collect();
            return format!("the cluster of {}", seeds.join(", "));
        }
        self.info().addr().to_string()
    }

    /// The address, user, password and database; of a cluster, those of the first node that the URL names.
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
    seeds: Vec<ConnectionAddr>,
    check: CertificateCheck,
    ca: Option<String>,
    /// The paths of the client certificate and of its key, which may be the same file.
    client: Option<(String, String)>,
}

impl UnloadedRedisUrl {
    pub(super) fn parse(text: &str) -> Result<Self, RedisUrlError> {
        let whole = text;
        let is_cluster = is_cluster(text);
        // Celery tries the brokers of such a list in turn.
        if !is_cluster && (text.contains(";redis") || text.contains(",redis")) {
            return reject("write the URL of one server, not a list".to_owned());
        }
        if is_cluster && text.matches("://").count() > 1 {
            let fix =
                "write the scheme once, and all nodes behind it: redis-cluster://a:6379,b:6379";
            return reject(fix.to_owned());
        }
        match text.split_once('#') {
            None => {}
            Some((_, "insecure")) => {
                return reject("write ?ssl_cert_reqs=none instead of #insecure".to_owned());
            }
            Some(_) => return reject("write a # in a user name or password as %23".to_owned()),
        }
        let (text, nodes) = if is_cluster { first_node(text) } else { (text.into(), Vec::new()) };
        let parts = Parts::split(&text).ok_or(RedisUrlError::Invalid)?;
        let scheme = parts.scheme.as_str();
        if scheme.contains("sentinel") {
            let fix = "Redis Sentinel is not supported; write the redis:// URL of one Redis server";
            return reject(fix.to_owned());
        }
        if scheme.contains("cluster") && !is_cluster {
            let fix = "write the nodes of a cluster as redis-cluster://a:6379,b:6379, or rediss-cluster://";
            return reject(fix.to_owned());
        }
        let is_socket = matches!(scheme, "unix" | "redis+unix" | "redis+socket" | "socket");
        let is_tls = matches!(scheme, "rediss" | TLS_CLUSTER);
        if !is_socket && !is_tls && !matches!(scheme, "redis" | CLUSTER) {
            return Err(RedisUrlError::Invalid);
        }
        let mut parameters = parameters(parts.query)?;
        let database = database(&parts, is_socket, &mut parameters)?;
        if is_cluster && database != 0 {
            return reject("a cluster has only database 0; remove the number".to_owned());
        }
        let address = address(&parts, is_socket, is_tls)?;
        let mut seeds = Vec::new();
        if is_cluster {
            seeds.push(address.clone());
            for node in nodes {
                let node = format!("{scheme}://{node}");
                let node = Parts::split(&node).filter(|node| node.host.is_some());
                seeds.push(server::address(&node.ok_or(RedisUrlError::Invalid)?, false, is_tls)?);
            }
            if seeds.len() > MAX_SEEDS {
                return reject(format!("write at most {MAX_SEEDS} nodes; the others are found"));
            }
        }
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
        Ok(Self { text: Secret::new(whole), info, seeds, check, ca, client })
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
        let Self { text, info, seeds, check, .. } = self;
        Ok(RedisUrl(Arc::new(Checked { text, info, seeds, check, certificates })))
    }
}

fn is_cluster(text: &str) -> bool {
    let scheme = text.trim().split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some(CLUSTER | TLS_CLUSTER))
}

/// Takes the nodes of a cluster apart: the URL with the first one alone, and the others.
fn first_node(text: &str) -> (Cow<'_, str>, Vec<&str>) {
    let begin = text.find("://").map_or(0, |at| at + "://".len());
    let end = text[begin..].find(['/', '?']).map_or(text.len(), |at| begin + at);
    // A password may have a comma in it.
    let begin = text[begin..end].rfind('@').map_or(begin, |at| begin + at + 1);
    let mut nodes = text[begin..end].split(',');
    let first = nodes.next().unwrap_or_default();
    (format!("{}{first}{}", &text[..begin], &text[end..]).into(), nodes.collect())
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

#[cfg(test)]
mod tests;
