//! Keys of TLS: `[server.tls]` and `[admin.tls]`.

use std::collections::BTreeSet;

use super::kinds::{self, Kind, choice, words};
use super::section::Section;
use super::{Acme, AdminTls, Redirect, ServerTls};
use crate::clock;
use crate::tls::{
    Certificate, CertificateMistake, MinVersion, ServerCertificates, check_authorities,
};

const MIN_VERSION: Kind<MinVersion> = words(r#""1.2" or "1.3""#, |value| {
    choice(value, &[("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)])
});

/// The most names in a certificate that is ordered, which is what authorities allow.
const MAX_DOMAINS: usize = 100;

/// The inner `None` = the public port has no TLS. `is_written`: the table is there.
pub(super) fn server(s: &mut Section<'_>, is_written: bool) -> Option<Option<ServerTls>> {
    let is_written = is_written && !s.is_written("certificate") && !s.is_written("acme");
    let certificate = certificate_and_key(
        s,
        "Path of a PEM file with the certificate, followed by the intermediate ones. With it the public port speaks TLS \
         only. Clients that name no server, or an unknown one, get this certificate.",
    );
    let mut certificates = vec![certificate];
    certificates.extend(s.tables(
        "certificates",
        "[[server.tls.certificates]]",
        "Further certificates, for the names in each. A client gets the first that is for the name it asks for.",
        |s| {
            let doc = "Path of a PEM file with the certificate, followed by the intermediate ones.";
            let certificate = certificate_and_key(s, doc)?;
            if certificate.is_none() {
                s.mistake("certificate", None, "missing; write the path of a PEM file");
            }
            Some(certificate)
        },
    ));
    let acme = acme(s);
    let min_version = min_version(s);
    let handshake_timeout = s.key(
        "handshake_timeout",
        kinds::POSITIVE_DURATION,
        "10s",
        "Time limit for a TLS handshake, from when the connection is accepted.",
    );
    let max_handshakes = s.key(
        "max_handshakes",
        kinds::POSITIVE_COUNT,
        1000,
        "TLS handshakes in progress, of one client address a quarter. Beyond it connections are closed.",
    );
    let has_only_port = s.is_set("redirect_port") && !s.is_written("redirect");
    let redirect = s.key(
        "redirect",
        kinds::OPTIONAL_ADDRESS,
        "",
        "An address such as \"0.0.0.0:80\", on which plain HTTP requests for the names of the certificates are redirected \
         to https; \"\" = none.",
    );
    let redirect_port = s.key(
        "redirect_port",
        kinds::PORT,
        443,
        "The port of the URLs that requests are redirected to.",
    );
    if has_only_port && redirect == Some(None) {
        s.mistake("redirect_port", None, "has no effect without redirect; write redirect as well");
    }
    let certificates: Option<Vec<_>> = certificates.into_iter().collect();
    let (mut tables, mut given) = (Vec::new(), Vec::new());
    for (number, certificate) in certificates?.into_iter().enumerate() {
        tables.extend(certificate.is_some().then(|| match number {
            0 => "server.tls".to_owned(),
            _ => format!("server.tls.certificates[{}]", number - 1),
        }));
        given.extend(certificate);
    }
    let acme = acme?;
    // One that cannot be used is ordered again.
    if let Some(ordered) = acme.as_ref().and_then(Acme::ordered) {
        tables.push(Acme::TABLE.to_owned());
        given.push(ordered);
    }
    let certificates = ServerCertificates::new(given);
    if certificates.is_empty() && acme.is_none() {
        return nothing_is_set(s, is_written);
    }
    let redirect = redirect?.map(|listen| Redirect { listen, port: redirect_port.unwrap_or(443) });
    Some(Some(ServerTls {
        certificates,
        tables,
        min_version: min_version?,
        handshake_timeout: handshake_timeout?,
        max_handshakes: max_handshakes?,
        redirect,
        acme,
    }))
}

/// What a table without a certificate is: a mistake, or the default.
fn nothing_is_set<T>(s: &mut Section<'_>, is_written: bool) -> Option<Option<T>> {
    if is_written {
        s.mistake("certificate", None, "missing; write the path of a PEM file");
        return None;
    }
    Some(None)
}

/// The inner `None` = the gateway orders no certificate.
fn acme(s: &mut Section<'_>) -> Option<Option<Acme>> {
    let is_written = s.is_written("acme");
    s.inline("acme", |s| {
        let has_list = s.is_written("domains");
        let is_used = s.is_set("cache_dir") || s.has_elements("contact") || s.is_set("directory_ca");
        let domains = s.list(
            "domains",
            kinds::DOMAIN,
            &[],
            "The names in a certificate that the gateway orders and renews (ACME, challenge tls-alpn-01); [] = it orders \
             none. The certificate authority connects to port 443 of each.",
        );
        let contact = s.list(
            "contact",
            kinds::CONTACT,
            &[],
            "E-mail addresses of the account at the certificate authority. Whoever orders agrees to its terms of service.",
        );
        let cache_dir = s.key(
            "cache_dir",
            kinds::OPTIONAL_FILE,
            "",
            "Directory for the account, the certificate and their private keys, which only the gateway may read. Gateways \
             that have the same names share it.",
        );
        let directory = s.key(
            "directory",
            kinds::HTTPS_URL,
            "https://acme-v02.api.letsencrypt.org/directory",
            "URL of the certificate authority's directory. Let's Encrypt has one to try things with: \
             https://acme-staging-v02.api.letsencrypt.org/directory.",
        );
        let directory_ca = s.key(
            "directory_ca",
            kinds::OPTIONAL_FILE,
            "",
            "Path of a PEM file with authorities by which the directory's server is trusted; \"\" = those of the system.",
        );
        let directory_ca = match directory_ca? {
            None => None,
            Some(path) => Some(authorities(s, "directory_ca", &path)?),
        };
        let (mut domains, cache_dir) = (domains?, cache_dir?);
        let mut seen = BTreeSet::new();
        domains.retain(|domain| seen.insert(domain.clone()));
        if domains.len() > MAX_DOMAINS {
            let found = format!("{} names", domains.len());
            s.mistake("domains", Some(found), format!("write at most {MAX_DOMAINS}"));
            return None;
        }
        if domains.is_empty() {
            // A list that is written and empty says that none is ordered.
            if is_written && (is_used || !has_list) {
                s.mistake("domains", None, "missing; write the names, such as [\"chat.example.com\"]");
                return None;
            }
            return Some(None);
        }
        let Some(cache_dir) = cache_dir else {
            s.mistake("cache_dir", None, "missing; write the path of a directory, such as \"/var/lib/tidegate/acme\"");
            return None;
        };
        let cache_dir = s.resolve(&cache_dir);
        Some(Some(Acme { domains, contact: contact?, cache_dir, directory: directory?, directory_ca }))
    })
}

/// Reads a file with authorities.
fn authorities(s: &mut Section<'_>, name: &'static str, path: &str) -> Option<String> {
    let authorities = s.pem_file(name, path)?;
    if let Err(fix) = check_authorities(&authorities) {
        s.mistake(name, Some(format!("{path:?}")), fix);
        return None;
    }
    Some(authorities)
}

/// The inner `None` = the admin port has no TLS. `is_written`: the table is there.
pub(super) fn admin(s: &mut Section<'_>, is_written: bool) -> Option<Option<AdminTls>> {
    let is_written = is_written && !s.is_written("certificate");
    let certificate = certificate_and_key(
        s,
        "Path of a PEM file with the certificate, followed by the intermediate ones. With it the admin port speaks TLS only.",
    );
    let min_version = min_version(s);
    let client_ca = s.key(
        "client_ca",
        kinds::OPTIONAL_FILE,
        "",
        "Path of a PEM file with authorities. With it every client needs a certificate of one of them; \"\" = none does.",
    );
    let client_ca = match client_ca? {
        None => None,
        Some(path) => Some(authorities(s, "client_ca", &path)?),
    };
    let certificates = ServerCertificates::new(certificate?.into_iter().collect());
    if certificates.is_empty() {
        return nothing_is_set(s, is_written);
    }
    Some(Some(AdminTls { certificates, min_version: min_version?, client_ca }))
}

fn min_version(s: &mut Section<'_>) -> Option<MinVersion> {
    s.key("min_version", MIN_VERSION, "1.2", "The lowest version of TLS that clients may use.")
}

/// Reads a certificate and its key. The inner `None` = neither is set.
fn certificate_and_key(s: &mut Section<'_>, doc: &'static str) -> Option<Option<Certificate>> {
    let certificate = s.key("certificate", kinds::OPTIONAL_FILE, "", doc);
    let key = s.key(
        "key",
        kinds::OPTIONAL_FILE,
        "",
        "Path of a PEM file with the private key of the certificate, not encrypted.",
    );
    let (certificate, key) = match (certificate?, key?) {
        (None, None) => return Some(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => {
            s.mistake("key", None, "missing; write the path of a PEM file with the private key");
            return None;
        }
        (None, Some(_)) => {
            s.mistake("certificate", None, "missing; write the path of a PEM file");
            return None;
        }
    };
    let chain = s.pem_file("certificate", &certificate);
    let private = s.pem_file("key", &key);
    match Certificate::load(&chain?, &private?, clock::unix_seconds()) {
        Ok(loaded) => Some(Some(loaded)),
        Err(CertificateMistake::InCertificate(fix)) => {
            s.mistake("certificate", Some(format!("{certificate:?}")), format!("this file {fix}"));
            None
        }
        Err(CertificateMistake::InKey(fix)) => {
            s.mistake("key", Some(format!("{key:?}")), format!("this file {fix}"));
            None
        }
    }
}

/// Reads the certificate of the admin port for a client of it. The inner `None` = the port has no TLS.
pub(super) fn certificate_only(s: &mut Section<'_>) -> Option<Option<String>> {
    let path = s.key("certificate", kinds::OPTIONAL_FILE, "", "");
    s.skip_rest();
    match path? {
        None => Some(None),
        Some(path) => s.pem_file("certificate", &path).map(Some),
    }
}

/// Whether the admin port has TLS, for a section of which nothing else is read.
pub(super) fn has_certificate(s: &mut Section<'_>) -> bool {
    s.section("tls", "[admin.tls]", "", |s| {
        let path = s.key("certificate", kinds::OPTIONAL_FILE, "", "");
        s.skip_rest();
        path.flatten().is_some()
    })
}
