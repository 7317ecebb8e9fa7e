//! A certificate with its private key, checked when it is loaded, so that nothing about it can fail later.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use super::der;

/// The certificate of a server, the chain behind it, and its private key.
#[derive(Clone)]
pub struct Certificate {
    certified: Arc<CertifiedKey>,
    /// In DER. It tells whether two certificates are the same.
    key: Arc<PrivateKeyDer<'static>>,
    names: Vec<String>,
    validity: der::Validity,
}

/// Why a certificate cannot be used, and in which of its two files the mistake is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateMistake {
    InCertificate(String),
    InKey(String),
}

use CertificateMistake::{InCertificate, InKey};

impl CertificateMistake {
    /// What is wrong, of a file that has both.
    pub fn text(&self) -> &str {
        match self {
            InCertificate(text) | InKey(text) => text,
        }
    }
}

impl Certificate {
    /// Reads a chain, the server's own certificate first, and the private key of that certificate, both in PEM. `now` are
    /// the seconds since 1970.
    ///
    /// # Errors
    /// A file is not what it should be, the key is another certificate's, or the certificate is not valid now.
    pub fn load(chain: &str, key: &str, now: u64) -> Result<Self, CertificateMistake> {
        let chain = read_chain(chain).map_err(InCertificate)?;
        let key = read_key(key).map_err(InKey)?;
        let first = chain.first().ok_or_else(|| InCertificate("has no certificate".to_owned()))?;
        let malformed = || InCertificate("its first certificate is malformed".to_owned());
        let validity = der::validity(first).ok_or_else(malformed)?;
        let own = EndEntityCert::try_from(first).map_err(|_| malformed())?;
        let names = own.valid_dns_names().map(str::to_ascii_lowercase).collect();
        if validity.not_after < now {
            return Err(InCertificate(format!("expired {} ago", age(now - validity.not_after))));
        }
        if validity.not_before > now {
            let text = format!("is valid only {} from now", age(validity.not_before - now));
            return Err(InCertificate(text));
        }
        let provider = aws_lc_rs::default_provider();
        let certified = match CertifiedKey::from_der(chain, key.clone_key(), &provider) {
            Ok(certified) => certified,
            Err(rustls::Error::InconsistentKeys(_)) => {
                let text =
                    "is the key of another certificate than the first one of the certificate file";
                return Err(InKey(text.to_owned()));
            }
            Err(_) => {
                return Err(InKey(
                    "is a key that TLS cannot use; write an ECDSA, RSA or Ed25519 key".to_owned(),
                ));
            }
        };
        let (certified, key) = (Arc::new(certified), Arc::new(key));
        Ok(Self { certified, key, names, validity })
    }

    /// The DNS names for which the certificate is, in lower case. They may begin with `*.`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The first second at which it is valid, since 1970.
    pub fn not_before(&self) -> u64 {
        self.validity.not_before
    }

    /// The last second at which it is valid, since 1970.
    pub fn not_after(&self) -> u64 {
        self.validity.not_after
    }

    /// The certificate itself in PEM, without those behind it.
    pub fn pem(&self) -> String {
        let certificate = self.certified.cert.first().map_or(&[][..], |first| first.as_ref());
        let text = base64::engine::general_purpose::STANDARD.encode(certificate);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    pub(super) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
            && self.key.secret_der() == other.key.secret_der()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Reads certificates in PEM, such as those of the authorities that sign clients' certificates.
pub(super) fn read_chain(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(match text.contains("PRIVATE KEY-----") {
            true => "has a private key and no certificate",
            false => "has no certificate in PEM (-----BEGIN CERTIFICATE-----)",
        }
        .to_owned()),
        Ok(chain) => Ok(chain),
        // The library's own text would quote the file.
        Err(_) => Err("is not valid PEM".to_owned()),
    }
}

/// Checks a file with authorities whose certificates clients may have.
///
/// # Errors
/// What is wrong with the file, to follow its name.
pub fn check_authorities(text: &str) -> Result<(), String> {
    let mut roots = rustls::RootCertStore::empty();
    let chain = read_chain(text).map_err(|error| format!("this file {error}"))?;
    chain.into_iter().try_for_each(|authority| {
        roots.add(authority).map_err(|_| "this file has a malformed certificate".to_owned())
    })
}

fn read_key(text: &str) -> Result<PrivateKeyDer<'static>, String> {
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || text.contains("Proc-Type: 4,ENCRYPTED")
    {
        let fix = "is encrypted; decrypt it (openssl pkey -in KEY -out PLAIN) and keep the file readable for the gateway only";
        return Err(fix.to_owned());
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
        match error {
            pem::Error::NoItemsFound if text.contains("-----BEGIN CERTIFICATE-----") => {
                "has a certificate and no private key"
            }
            pem::Error::NoItemsFound => "has no private key in PEM (-----BEGIN PRIVATE KEY-----)",
            // The library's own text would quote the file.
            _ => "is not valid PEM",
        }
        .to_owned()
    })
}

/// A time in the largest unit of which there is at least one.
fn age(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7200 => (seconds / 60, "minutes"),
        7200..172_800 => (seconds / 3600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit}")
}

#[cfg(test)]
mod tests;
