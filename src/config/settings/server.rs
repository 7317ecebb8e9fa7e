//! `[server]`, `[admin]`, `[shutdown]`, `[origins]`, `[proxy]`, `[reload]`, `[tracing]` and `[log]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::{Balance, Circuit, Rate, Secret};
use crate::clock;
use crate::protocol::{ForwardingHeader, OriginPattern};
use crate::tls::{Certificate, MinVersion, ServerCertificates};

/// `[server]`: the public port.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    pub listen: SocketAddr,
    /// `None` = the port speaks plain HTTP.
    pub tls: Option<ServerTls>,
    /// Whether another gateway may listen on the same address (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The number of worker threads, each with its own runtime and listener socket. Already resolved, never
    /// 0.
    pub threads: usize,
    /// The maximum number of open public connections of the process.
    pub max_connections: usize,
    /// The maximum number of open public connections per client address; 0 = no limit.
    pub max_connections_per_ip: usize,
    /// The most bytes that queues, partial messages, histories and messages in progress may take together; 0 = no limit.
    pub max_memory: usize,
    /// The longest that the close of a refused client waits; zero = it does not.
    pub refusal_delay: Duration,
    /// The peers that are trusted to say who their clients are.
    pub trusted_proxies: Vec<IpNet>,
    /// Which headers those proxies set.
    pub forwarding_header: ForwardingHeader,
    /// Whether connections begin with a header of the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
    /// The time limit of a request head: from accept for the first one, then from its first byte.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub keep_alive: Duration,
    /// How fast clients must send request bodies and take responses.
    pub min_pace: MinPace,
    /// Larger request heads are refused with 431.
    pub max_header_bytes: usize,
}

/// `[server.tls]`: TLS on the public port.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerTls {
    pub certificates: ServerCertificates,
    /// The table of each certificate in the config.
    pub tables: Vec<String>,
    pub min_version: MinVersion,
    /// From accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// The most handshakes in progress; those of one client address take at most a quarter.
    pub max_handshakes: usize,
    pub redirect: Option<Redirect>,
    /// What the gateway orders a certificate with; `None` = it orders none.
    pub acme: Option<Acme>,
}

impl ServerTls {
    /// Puts the certificate that was ordered in the place of the one before. `None` = there is none that can be used.
    pub fn replace_ordered(&mut self, certificate: Option<Certificate>) {
        let tables = self.tables.iter().map(String::as_str).zip(self.certificates.iter().cloned());
        let others = tables.filter(|(table, _)| *table != Acme::TABLE);
        let ordered = certificate.map(|certificate| (Acme::TABLE, certificate));
        let (tables, certificates): (Vec<&str>, _) = others.chain(ordered).unzip();
        let tables = tables.into_iter().map(str::to_owned).collect();
        (self.tables, self.certificates) = (tables, ServerCertificates::new(certificates));
    }

    /// The certificate in use that was ordered.
    pub fn ordered(&self) -> Option<&Certificate> {
        let mut all = self.tables.iter().zip(self.certificates.iter());
        all.find(|(table, _)| *table == Acme::TABLE).map(|(_, certificate)| certificate)
    }
}

/// `[server.tls] acme`: a certificate that the gateway orders (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The names in the certificate, in lower case; at least one.
    pub domains: Vec<String>,
    /// The URLs that the account has, which begin with `mailto:`.
    pub contact: Vec<String>,
    /// Where the account and the certificate are kept. Several gateways may share it.
    pub cache_dir: PathBuf,
    /// The URL of the directory (RFC 8555 section 7.1.1).
    pub directory: Url,
    /// The authorities, in PEM, that the directory's server is trusted by; `None` = those of the system.
    pub directory_ca: Option<String>,
}

/// How many bytes of a name the names of files show.
const MAX_SHOWN: usize = 100;

impl Acme {
    /// The table that its certificate has in logs and metrics.
    pub const TABLE: &str = "server.tls.acme";

    /// Reads the certificate that was ordered before. `None` = there is none that can be used.
    pub fn ordered(&self) -> Option<Certificate> {
        let text = std::fs::read_to_string(self.certificate_file()).ok()?;
        Certificate::load(&text, &text, clock::unix_seconds()).ok()
    }

    /// The file with the certificate and its private key. Other names, or another directory, have another file.
    pub fn certificate_file(&self) -> PathBuf {
        self.file_of_names("pem")
    }

    /// The file that says when an order that has failed is tried again.
    pub fn failures_file(&self) -> PathBuf {
        self.file_of_names("failures.json")
    }

    /// The order of the names does not matter.
    fn file_of_names(&self, extension: &str) -> PathBuf {
        let mut names: Vec<&str> = self.domains.iter().map(String::as_str).collect();
        let first = names.first().copied().unwrap_or_default();
        // A file's name has at most 255 bytes, and a temporary one is longer.
        let first = first.get(..MAX_SHOWN).unwrap_or(first).to_owned();
        names.sort_unstable();
        let mut hash = Sha256::new_with_prefix(self.directory.as_str());
        for name in names {
            hash.update([0]);
            hash.update(name);
        }
        self.cache_dir.join(format!("{first}-{}.{extension}", short(hash)))
    }

    /// The file with the account at this directory.
    pub fn account_file(&self) -> PathBuf {
        let hash = Sha256::new_with_prefix(self.directory.as_str());
        self.cache_dir.join(format!("account-{}.json", short(hash)))
    }

    /// The file with the digest that proves to be the host of a name, which is one of the domains.
    pub fn challenge_file(&self, domain: &str) -> PathBuf {
        self.cache_dir.join(format!("challenge-{}", short(Sha256::new_with_prefix(domain))))
    }
}

/// The first bytes of a hash, in hexadecimal.
fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Where plain requests are redirected to https.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    pub listen: SocketAddr,
    /// The port of the URLs that they are redirected to.
    pub port: u16,
}

/// `[admin.tls]`: TLS on the admin port.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminTls {
    /// Exactly one.
    pub certificates: ServerCertificates,
    pub min_version: MinVersion,
    /// The authorities, in PEM, of which clients need a certificate; `None` = they need none.
    pub client_ca: Option<String>,
}

/// `[server] proxy_protocol`: who names the client of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    Off,
    /// The load balancer, in a header. Only peers in `trusted_proxies` may connect.
    Required,
}

/// A client must move at least `min_rate` bytes a second, measured over `timeout` of waiting for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinPace {
    pub timeout: Duration,
    /// 0 = one byte in `timeout` is enough.
    pub min_rate: usize,
}

impl Server {
    /// Whether addresses tell clients apart. Who does not count the connections of an address, and trusts no proxy, has
    /// all clients behind one.
    pub fn tells_addresses_apart(&self) -> bool {
        self.max_connections_per_ip > 0 || !self.trusted_proxies.is_empty()
    }
}

/// `[limits]`: rates of each client address on the public port, and what counts as one address.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClientLimits {
    /// New connections; behind a trusted proxy WebSocket handshakes. `None` = no limit.
    pub connects_per_ip: Option<Rate>,
    /// HTTP requests that are not WebSocket handshakes. `None` = no limit.
    pub requests_per_ip: Option<Rate>,
    /// New channels, for the clients of one address. `None` = no limit.
    pub channels_per_ip: Option<Rate>,
    /// How many bits of an IPv6 address count.
    pub ipv6_prefix: u8,
}

/// `[admin]`: metrics, health and the server API.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    pub listen: SocketAddr,
    /// The keys of the server API. Without any it answers 403.
    pub api_keys: Vec<Secret>,
    /// `None` = the port speaks plain HTTP.
    pub tls: Option<AdminTls>,
}

/// What commands need of `[admin]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminAccess {
    pub listen: SocketAddr,
    pub api_keys: Vec<Secret>,
    /// The contents of the certificate's file; `None` = the port speaks plain HTTP.
    pub certificate: Option<String>,
}

/// `[shutdown]`: what happens on SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shutdown {
    /// Open sockets are closed with 1012, spread evenly over this time.
    pub drain: Duration,
    /// What is still running after `drain` has this long to end before it is aborted.
    pub grace: Duration,
}

impl Shutdown {
    /// How long after the start of a drain ended replies are still posted: until the process ends, but for the time that
    /// it takes to log the others.
    pub fn abandon_posts_after(&self) -> Duration {
        (self.drain + self.grace).saturating_sub(Duration::from_millis(100))
    }

    /// How long after the start of a drain running replies are ended with an error: as late as possible,
    /// but early enough for the error to be published.
    pub fn abort_replies_after(&self) -> Duration {
        const TIME_TO_PUBLISH: Duration = Duration::from_millis(250);
        let end = self.drain + self.grace;
        (self.drain + self.grace / 2).min(end.saturating_sub(TIME_TO_PUBLISH))
    }
}

/// `[origins]`: the allowlist of RFC 6454 origins.
#[derive(Debug, Clone, PartialEq)]
pub struct Origins {
    pub allow: Vec<AllowedOrigin>,
    pub missing: MissingOrigin,
}

/// An entry of the allowlist.
#[derive(Debug, Clone, PartialEq)]
pub enum AllowedOrigin {
    /// The scheme, host and port that the request itself was made for.
    Own,
    Matching(OriginPattern),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingOrigin {
    Allow,
    Reject,
}

/// `[proxy]`: where requests go that are no WebSocket handshakes.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// Those of the replicas, in the order of the config; none = such requests get 404.
    pub urls: Vec<Url>,
    /// [`Balance::User`] = by the client's address.
    pub balance: Balance,
    /// Each of several replicas has one with these settings.
    pub circuit: Circuit,
    /// The time limit for the head of the response. The body has none while data flows.
    pub timeout: Duration,
    /// How many requests may be in flight, and of them those of one client address; 0 = a quarter.
    pub max_in_flight: usize,
    pub max_in_flight_per_ip: usize,
}

/// `[reload]`: when the config is reloaded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reload {
    /// How often the file is checked for changes; `None` = it is reloaded on SIGHUP only.
    pub watch: Option<Duration>,
}

/// `[tracing]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// `None` = no spans.
    pub otlp_endpoint: Option<Url>,
    /// The headers of export requests. Their values are secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// From 0 to 1.
    pub sample_ratio: f64,
    pub service_name: String,
    pub timeout: Duration,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    /// A `tracing-subscriber` filter: `info`, `tidegate=debug,warn`.
    pub level: String,
    /// How many similar lines are written per interval; `None` = all.
    pub repeats: Option<Rate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
