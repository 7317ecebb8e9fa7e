//! The URL of a Redis server in the syntax of redis-py, kombu and Celery, which set TLS by URL parameters.
//!
//! Owns what each form means, which parameters have a meaning, and which are ignored because they only concern Python
//! clients. Every other parameter is a mistake, because one that changes keys or checks must not be dropped silently.
//! A form that redis-py and Celery read differently is a mistake too.
//! Invariant: no error text shows a part of the URL except the names of parameters.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use url::form_urlencoded;

use self::certificates::{certificate_check, client_certificate, file, has_certificates};
use self::parts::Parts;
use self::sentinel::{DEFAULT_PORT as SENTINEL_PORT, Sentinel};
use self::server::{address, credentials, database, first_node, has_scheme};
use super::Secret;
use super::mistakes::nearest;

mod certificates;
mod parts;
mod sentinel;
mod server;

/// The parameters that every scheme has. `virtual_host` is Celery's name for the database of a socket.
const SERVER: [&str; 6] = ["db", "username", "password", "user", "pass", "virtual_host"];

/// The schemes of a cluster, whose nodes are separated by commas.
const CLUSTER: &str = "redis-cluster";
const TLS_CLUSTER: &str = "rediss-cluster";

/// The schemes of a server that is found through its sentinels, which are separated by commas.
const SENTINEL: &str = "redis-sentinel";
const TLS_SENTINEL: &str = "rediss-sentinel";

/// The parameters of the connections to the sentinels.
const OF_SENTINEL: [&str; 2] = ["sentinel_username", "sentinel_password"];

/// The most nodes of a cluster, or sentinels, that a URL names.
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
    /// The servers of a cluster that are asked for the others, or the sentinels; empty = the URL names the only server.
    seeds: Vec<ConnectionAddr>,
    /// `Some` if `seeds` are sentinels.
    sentinel: Option<Sentinel>,
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
        !self.0.seeds.is_empty() && self.0.sentinel.is_none()
    }

    /// The name by which sentinels know the server; `None` if the URL names no sentinels.
    pub fn sentinel_name(&self) -> Option<&str> {
        self.0.sentinel.as_ref().map(|sentinel| &*sentinel.name)
    }

    /// The sentinels that the URL names, each as the URL of it alone, with the user for sentinels; none if it names none.
    pub fn sentinels(&self) -> impl Iterator<Item = Self> {
        let seeds = self.0.sentinel.iter().flat_map(|sentinel| {
            self.0.seeds.iter().map(move |seed| (sentinel.settings.clone(), seed.clone()))
        });
        seeds.map(|(settings, seed)| {
            self.with_info(self.0.info.clone().set_redis_settings(settings).set_addr(seed))
        })
    }

    /// The nodes of a cluster that the URL names, each as the URL of this node alone.
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
        self.with_info(self.0.info.clone().set_addr(addr))
    }

    fn with_info(&self, info: ConnectionInfo) -> Self {
        let Checked { text, check, certificates, .. } = &*self.0;
        Self(Arc::new(Checked {
            text: Secret::new(format!("{} {}", text.expose(), info.addr())),
            info,
            seeds: Vec::new(),
            sentinel: None,
            check: *check,
            certificates: certificates.clone(),
        }))
    }

    /// The address for people: of the server, or of the nodes of a cluster or the sentinels that the URL names.
    pub fn address(&self) -> String {
        let seeds: Vec<String> = self.0.seeds.iter().map(ToString::to_string).collect();
        match self.sentinel_name() {
            Some(name) => format!("{name} of the sentinels {}", seeds.join(", ")),
            None if self.is_cluster() => format!("the cluster of {}", seeds.join(", ")),
            None => self.info().addr().to_string(),
        }
    }

    /// The address, user, password and database. The address is that of the first node of a cluster, or the first sentinel,
    /// that the URL names; all else is of the servers that keep the data.
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
    sentinel: Option<Sentinel>,
    check: CertificateCheck,
    ca: Option<String>,
    /// The paths of the client certificate and of its key, which may be the same file.
    client: Option<(String, String)>,
}

impl UnloadedRedisUrl {
    pub(super) fn parse(text: &str) -> Result<Self, RedisUrlError> {
        let whole = text;
        let is_cluster = has_scheme(text, [CLUSTER, TLS_CLUSTER]);
        let is_sentinel = has_scheme(text, [SENTINEL, TLS_SENTINEL]);
        let has_seeds = is_cluster || is_sentinel;
        // Celery tries the brokers of such a list in turn.
        if !has_seeds && (text.contains(";redis") || text.contains(",redis")) {
            return reject("write the URL of one server, not a list".to_owned());
        }
        if has_seeds && text.matches("://").count() > 1 {
            let nodes = match is_cluster {
                true => "nodes behind it: redis-cluster://a:6379,b:6379",
                false => "sentinels behind it: redis-sentinel://a:26379,b:26379/mymaster",
            };
            return reject(format!("write the scheme once, and all {nodes}"));
        }
        match text.split_once('#') {
            None => {}
            Some((_, "insecure")) => {
                return reject("write ?ssl_cert_reqs=none instead of #insecure".to_owned());
            }
            Some(_) => return reject("write a # in a user name or password as %23".to_owned()),
        }
        let (text, nodes) = if has_seeds { first_node(text) } else { (text.into(), Vec::new()) };
        let mut parts = Parts::split(&text).ok_or(RedisUrlError::Invalid)?;
        let scheme = parts.scheme.clone();
        let scheme = scheme.as_str();
        if scheme.contains("sentinel") && !is_sentinel {
            let fix = "write sentinels as redis-sentinel://a:26379,b:26379/mymaster, or rediss-sentinel://";
            return reject(fix.to_owned());
        }
        if scheme.contains("cluster") && !is_cluster {
            let fix = "write the nodes of a cluster as redis-cluster://a:6379,b:6379, or rediss-cluster://";
            return reject(fix.to_owned());
        }
        let is_socket = matches!(scheme, "unix" | "redis+unix" | "redis+socket" | "socket");
        let is_tls = matches!(scheme, "rediss" | TLS_CLUSTER | TLS_SENTINEL);
        if !is_socket && !is_tls && !matches!(scheme, "redis" | CLUSTER | SENTINEL) {
            return Err(RedisUrlError::Invalid);
        }
        let mut parameters = parameters(parts.query, is_sentinel)?;
        let sentinel = match is_sentinel {
            true => Some(Sentinel::take(&mut parts, &mut parameters)?),
            false => None,
        };
        let database = database(&parts, is_socket, &mut parameters)?;
        if is_cluster && database != 0 {
            return reject("a cluster has only database 0; remove the number".to_owned());
        }
        let address = address(&parts, is_socket, is_tls)?;
        let mut seeds = Vec::new();
        if has_seeds {
            seeds.push(address.clone());
            for node in nodes {
                let node = format!("{scheme}://{node}");
                let node = Parts::split(&node).filter(|node| node.host.is_some());
                let mut node = node.ok_or(RedisUrlError::Invalid)?;
                if is_sentinel {
                    node.port = node.port.or(Some(SENTINEL_PORT));
                }
                seeds.push(server::address(&node, false, is_tls)?);
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
        Ok(Self { text: Secret::new(whole), info, seeds, sentinel, check, ca, client })
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
        let Self { text, info, seeds, sentinel, check, .. } = self;
        Ok(RedisUrl(Arc::new(Checked { text, info, seeds, sentinel, check, certificates })))
    }
}

fn reject<T>(sentence: String) -> Result<T, RedisUrlError> {
    Err(RedisUrlError::Reason(sentence))
}

/// The parameters of the query, without the ignored ones.
fn parameters(query: &str, is_sentinel: bool) -> Result<BTreeMap<String, String>, RedisUrlError> {
    // After an unescaped `?` in a password the rest of the password is parsed as the query.
    let may_be_shown = !query.contains('@');
    let mut found = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if IGNORED.contains(&&*name) {
            continue;
        }
        let of_sentinel = if is_sentinel { &OF_SENTINEL[..] } else { &[] };
        if ![&SERVER[..], &TLS, of_sentinel].concat().contains(&&*name) {
            let of_sentinel = of_sentinel.iter().copied();
            let known = SERVER.into_iter().take(3).chain(TLS).chain(of_sentinel);
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
