//! What a server offers in its handshakes: versions, certificates by name, and tickets to resume a session with.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use super::certificate::{Certificate, read_chain};
use super::challenge::{self, ACME_PROTOCOL, ChallengeDigests};

/// The lowest version that clients may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    Tls12,
    Tls13,
}

/// The keys with which sessions are resumed. They live as long as the process and replace themselves every six hours; no
/// other node has them. Cheap to clone.
#[derive(Clone)]
pub struct Tickets(Arc<dyn ProducesTickets>);

impl Tickets {
    /// # Errors
    /// The system has no randomness.
    pub fn new() -> Result<Self, String> {
        let tickets = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        Ok(Self(tickets))
    }
}

/// The certificates of a port. The first is for clients that name no server, or one that no certificate is for.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerCertificates(Vec<Certificate>);

impl ServerCertificates {
    /// Without certificates all handshakes fail, but for those that answer challenges.
    pub fn new(certificates: Vec<Certificate>) -> Self {
        Self(certificates)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Certificate> {
        self.0.iter()
    }

    /// Whether one of the certificates is for this host, by its name or by one with `*.`.
    pub fn are_for(&self, host: &str) -> bool {
        let (host, parent) = lookup_names(host);
        let mut names = self.0.iter().flat_map(Certificate::names);
        names.any(|name| *name == host || Some(name) == parent.as_ref())
    }

    /// Builds what handshakes use. `protocols` are offered in ALPN, the preferred one first. With `client_ca`, in PEM,
    /// clients need a certificate of one of these authorities. With `challenges` those of ACME are answered.
    ///
    /// # Errors
    /// A text that says what is wrong with `client_ca`.
    pub fn server_config(
        &self,
        min_version: MinVersion,
        protocols: &[&[u8]],
        tickets: Option<&Tickets>,
        client_ca: Option<&str>,
        challenges: Option<ChallengeDigests>,
    ) -> Result<Arc<ServerConfig>, String> {
        let versions: &[_] = match min_version {
            MinVersion::Tls12 => &[&TLS13, &TLS12],
            MinVersion::Tls13 => &[&TLS13],
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = rustls::RootCertStore::empty();
                for authority in read_chain(authorities)? {
                    let malformed = |_| "has a malformed certificate".to_owned();
                    roots.add(authority).map_err(malformed)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(|error| error.to_string())?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let acme = challenges.as_ref().map(|_| ACME_PROTOCOL);
        let by_name = ByName { challenges, ..ByName::new(&self.0) };
        let mut config = builder.with_cert_resolver(Arc::new(by_name));
        // Who knows another protocol too is no server of ACME.
        let protocols = protocols.iter().copied().chain(acme);
        config.alpn_protocols = protocols.map(<[u8]>::to_vec).collect();
        // Sessions are resumed by tickets alone, which cost the server no memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if let Some(Tickets(tickets)) = tickets {
            config.ticketer = Arc::clone(tickets);
        }
        config.enable_secret_extraction = true;
        Ok(Arc::new(config))
    }
}

/// Finds the certificate for the name that a client asks for (RFC 6066 section 3).
struct ByName {
    /// In the order of the config. Several may have the same name, with keys of different kinds.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// All certificates.
    all: Vec<Arc<CertifiedKey>>,
    challenges: Option<ChallengeDigests>,
}

impl ByName {
    fn new(certificates: &[Certificate]) -> Self {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        for certificate in certificates {
            for name in certificate.names() {
                let of_name = by_name.entry(name.clone()).or_default();
                of_name.push(Arc::clone(certificate.certified()));
            }
        }
        let all = certificates.iter().map(|one| Arc::clone(one.certified())).collect();
        Self { by_name, all, challenges: None }
    }

    /// The certificates for a name: its own, those for all names of its domain, or the first one.
    fn find(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let found = name.and_then(|name| {
            let (name, parent) = lookup_names(name);
            let of_parent = || self.by_name.get(&parent?);
            self.by_name.get(&name).or_else(of_parent)
        });
        found.unwrap_or(&self.all)
    }
}

/// A name as certificates write it, and the one with a wildcard in the place of its first label.
fn lookup_names(name: &str) -> (String, Option<String>) {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let parent = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    (name, parent)
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(digests) = &self.challenges
            && challenge::is_asked(&hello)
        {
            return challenge::answer(hello.server_name()?, digests).map(Arc::new);
        }
        let found = self.find(hello.server_name());
        // The first whose key the client can check.
        let usable =
            found.iter().find(|it| it.key.choose_scheme(hello.signature_schemes()).is_some());
        usable.or(found.first()).map(Arc::clone)
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName").field("names", &self.by_name.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
