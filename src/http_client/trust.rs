//! Which servers the gateway's own commands trust, and who they are themselves.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::tls_config;

/// Which certificate a server may have. Texts are in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerTrust {
    /// One for its name, of an authority that the system trusts.
    System,
    /// One for its name, of one of these authorities.
    Authorities(String),
    /// This one, whatever its names and its authority are.
    Exactly(String),
    /// Any. Only for requests that tell nothing and that nothing depends on.
    Anything,
}

/// Returns the TLS settings of a client with its own certificate and key, in PEM, if it has one.
///
/// # Errors
/// A text that says what of them cannot be used.
pub fn trusting(
    trust: &ServerTrust,
    identity: Option<(&str, &str)>,
) -> Result<Arc<ClientConfig>, String> {
    if *trust == ServerTrust::System && identity.is_none() {
        return tls_config(true);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match trust {
        ServerTrust::System => {
            use hyper_rustls::ConfigBuilderExt as _;
            builder
                .with_native_roots()
                .map_err(|error| format!("the system's root certificates: {error}"))?
        }
        ServerTrust::Authorities(text) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(text)? {
                roots.add(authority).map_err(|error| error.to_string())?;
            }
            builder.with_root_certificates(roots)
        }
        ServerTrust::Exactly(_) | ServerTrust::Anything => {
            let expected = match trust {
                ServerTrust::Exactly(text) => certificates(text)?.into_iter().next(),
                _ => None,
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned { expected, provider }))
        }
    };
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|_| "the client's key is not a private key in PEM".to_owned())?;
            builder
                .with_client_auth_cert(certificates(chain)?, key)
                .map_err(|error| format!("the client's certificate: {error}"))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    read.ok().filter(|read| !read.is_empty()).ok_or_else(|| "no certificate in PEM".to_owned())
}

/// Accepts one certificate, or any.
#[derive(Debug)]
struct Pinned {
    expected: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.expected {
            Some(expected) if expected != certificate => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
