//! A server that speaks TLS in front of one that does not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Ends when dropped. Its connections stay.
pub struct TlsFront {
    addr: SocketAddr,
    names: Arc<Mutex<Vec<Option<String>>>>,
    task: JoinHandle<()>,
}

/// The path of one of the files in `tests/keys/upstream_tls`.
pub fn upstream_tls_file(name: &str) -> String {
    format!("{}/tests/keys/upstream_tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

impl TlsFront {
    /// Starts it with the certificate called `name`, in front of `behind`.
    pub async fn start(name: &str, behind: SocketAddr) -> Self {
        let file = |extension: &str| upstream_tls_file(&format!("{name}.{extension}"));
        let certificates = CertificateDer::pem_file_iter(file("pem")).expect("a certificate");
        let certificates = certificates.collect::<Result<Vec<_>, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(file("key")).expect("a private key");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .expect("a key of the certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a listening socket");
        let names = Arc::default();
        let task = tokio::spawn(serve(
            listener,
            behind,
            TlsAcceptor::from(Arc::new(config)),
            Arc::clone(&names),
        ));
        Self { addr, names, task }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The names that clients asked for (SNI), in the order of their connections.
    pub fn names(&self) -> Vec<Option<String>> {
        self.names.lock().unwrap().clone()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    behind: SocketAddr,
    acceptor: TlsAcceptor,
    names: Arc<Mutex<Vec<Option<String>>>>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let (acceptor, names) = (acceptor.clone(), Arc::clone(&names));
        tokio::spawn(async move {
            // A client that does not trust the certificate ends the handshake.
            let Ok(mut client) = acceptor.accept(client).await else { return };
            names.lock().unwrap().push(client.get_ref().1.server_name().map(str::to_owned));
            let Ok(mut server) = TcpStream::connect(behind).await else { return };
            // Either side may end as it likes.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}
