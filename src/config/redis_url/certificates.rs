//! The parameters of TLS: which certificates are trusted and shown, and how those of the server are checked.

use std::collections::BTreeMap;

use redis::ClientTlsConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{CertificateCheck, RedisUrlError, reject};

pub(super) fn certificate_check(
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

pub(super) fn file(
    parameters: &mut BTreeMap<String, String>,
    name: &str,
) -> Result<Option<String>, RedisUrlError> {
    match parameters.remove(name) {
        Some(path) if path.is_empty() => reject(format!("write {name} as the path of a file")),
        path => Ok(path),
    }
}

pub(super) fn has_certificates(pem: &[u8]) -> bool {
    let mut certificates = CertificateDer::pem_slice_iter(pem).peekable();
    certificates.peek().is_some() && certificates.all(|certificate| certificate.is_ok())
}

pub(super) fn client_certificate(
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
