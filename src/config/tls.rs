//! Keys of TLS: `[server.tls]` and `[admin.tls]`.

use super::kinds::{self, Kind, choice, words};
use super::section::Section;
use super::{AdminTls, Redirect, ServerTls};
use crate::clock;
use crate::tls::{
    Certificate, CertificateMistake, MinVersion, ServerCertificates, check_authorities,
};

const MIN_VERSION: Kind<MinVersion> = words(r#""1.2" or "1.3""#, |value| {
    choice(value, &[("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)])
});

/// The inner `None` = the public port has no TLS. `is_written`: the table is there.
pub(super) fn server(s: &mut Section<'_>, is_written: bool) -> Option<Option<ServerTls>> {
    let is_written = is_written && !s.is_written("certificate");
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
    let Some(certificates) = ServerCertificates::new(given) else {
        if is_written {
            s.mistake("certificate", None, "missing; write the path of a PEM file");
            return None;
        }
        return Some(None);
    };
    let redirect = redirect?.map(|listen| Redirect { listen, port: redirect_port.unwrap_or(443) });
    Some(Some(ServerTls {
        certificates,
        tables,
        min_version: min_version?,
        handshake_timeout: handshake_timeout?,
        max_handshakes: max_handshakes?,
        redirect,
    }))
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
        Some(path) => {
            let authorities = s.pem_file("client_ca", &path)?;
            if let Err(fix) = check_authorities(&authorities) {
                s.mistake("client_ca", Some(format!("{path:?}")), fix);
                return None;
            }
            Some(authorities)
        }
    };
    let Some(certificates) = ServerCertificates::new(certificate?.into_iter().collect()) else {
        if is_written {
            s.mistake("certificate", None, "missing; write the path of a PEM file");
            return None;
        }
        return Some(None);
    };
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
