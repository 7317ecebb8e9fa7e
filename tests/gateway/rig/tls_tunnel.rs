//! Clients that speak TLS, and a tunnel for those that do not: what they send in clear reaches the gateway over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::within;

/// The path of one of the files in `tests/keys/server_tls`.
pub fn server_tls_file(name: &str) -> String {
    format!("{}/tests/keys/server_tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Lines of `[server.tls]`, or of another such table, with the certificate called `name`.
pub fn certificate(name: &str) -> String {
    let file = |extension: &str| server_tls_file(&format!("{name}.{extension}"));
    format!("certificate = {:?}\nkey = {:?}", file("pem"), file("key"))
}

/// What a client of the tests offers.
#[derive(Clone)]
pub struct TlsClient {
    config: ClientConfig,
    name: ServerName<'static>,
}

impl TlsClient {
    /// A client that trusts the authority of the tests and asks for `localhost`.
    pub fn new() -> Self {
        Self::with_versions(&[&version::TLS13, &version::TLS12])
    }

    pub fn with_versions(versions: &[&'static SupportedProtocolVersion]) -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots())
            .with_no_client_auth();
        Self { config, name: ServerName::try_from("localhost").expect("a name") }
    }

    /// Presents the certificate called `name` of `folder` in `tests/keys`.
    pub fn with_certificate(folder: &str, name: &str) -> Self {
        let file = |extension: &str| {
            format!("{}/tests/keys/{folder}/{name}.{extension}", env!("CARGO_MANIFEST_DIR"))
        };
        let chain = CertificateDer::pem_file_iter(file("pem")).expect("a certificate");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(file("key")).expect("a key");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots())
            .with_client_auth_cert(chain, key)
            .expect("a key of the certificate");
        Self { config, name: ServerName::try_from("localhost").expect("a name") }
    }

    pub fn asking_for(mut self, name: &str) -> Self {
        self.name = ServerName::try_from(name.to_owned()).expect("a name");
        self
    }

    pub fn without_name(mut self) -> Self {
        self.config.enable_sni = false;
        self
    }

    pub fn with_protocols(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        self
    }

    /// Believes that it is this time, in Unix seconds.
    pub fn at(mut self, seconds: u64) -> Self {
        self.config.time_provider =
            Arc::new(At(UnixTime::since_unix_epoch(Duration::from_secs(seconds))));
        self
    }

    /// Runs a handshake on a connection of its own.
    pub async fn try_connect(&self, addr: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = within("accepted connection", TcpStream::connect(addr)).await?;
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        within("TLS handshake", connector.connect(self.name.clone(), tcp)).await
    }

    pub async fn connect(&self, addr: SocketAddr) -> TlsStream<TcpStream> {
        self.try_connect(addr).await.expect("a TLS handshake")
    }
}

#[derive(Debug)]
struct At(UnixTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let authority =
        CertificateDer::from_pem_file(server_tls_file("ca.pem")).expect("a certificate");
    roots.add(authority).expect("an authority");
    roots
}

/// Ends when dropped. Its connections stay.
pub struct TlsTunnel {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl TlsTunnel {
    /// Takes connections in clear for the gateway at `gateway`.
    pub async fn start(gateway: SocketAddr, client: TlsClient) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a listening socket");
        let task = tokio::spawn(async move {
            while let Ok((near, peer)) = listener.accept().await {
                let client = client.clone();
                tokio::spawn(async move {
                    // A client that the gateway refuses sees that the connection has ended.
                    let _ = relay(near, peer, gateway, client).await;
                });
            }
        });
        Self { addr, task }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for TlsTunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(
    mut near: TcpStream,
    peer: SocketAddr,
    gateway: SocketAddr,
    client: TlsClient,
) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    let socket = TcpSocket::new_v4()?;
    // The gateway sees the address of the client.
    socket.bind(SocketAddr::new(peer.ip(), 0))?;
    let far = socket.connect(gateway).await?;
    far.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(client.config));
    let mut far = connector.connect(client.name, far).await?;
    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    near.shutdown().await
}
