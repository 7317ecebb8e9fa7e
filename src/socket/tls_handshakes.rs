//! TLS handshakes of both ports, on threads of their own: a signature of an RSA key takes about a millisecond, for which a
//! worker thread would deliver nothing.
//!
//! The owner of a connection hands it over and gets it back when its handshake is over. Invariants: a handshake holds a permit
//! from before it is queued to its end, so that the queues are bounded by the permits; and it has a deadline, which begins
//! when the connection is accepted.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::{ByteStream, ClientTcp, ClientTls, linger_and_close};
use crate::config::{AdminTls, ServerTls};
use crate::protocol::ClientNetwork;
use crate::shares::{SharePermit, Shares, share_of};
use crate::shutdown::Shutdown;
use crate::telemetry::tls::{Finished, TlsOutcome, TlsPort, handshake_failed, handshake_finished};
use crate::tls::{self, ACME_PROTOCOL, Accepted, ChallengeDigests, HandshakeFailure, Tickets};

/// The protocols that are offered (ALPN, RFC 7301), the most wanted first.
const PROTOCOLS: &[&[u8]] = &[HTTP2, b"http/1.1", b"http/1.0"];
const HTTP2: &[u8] = b"h2";

/// The same without HTTP/2.
const OLDER_PROTOCOLS: &[&[u8]] = PROTOCOLS.split_first().expect("several").1;

/// How long a client has to read that this port speaks TLS, and to stop sending.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// The bounds of handshakes on the admin port.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
const ADMIN_HANDSHAKES: usize = 128;

/// What the handshakes of a port need of the config. A reload replaces it.
pub struct TlsAcceptor {
    port: TlsPort,
    server: Arc<tls::ServerConfig>,
    timeout: Duration,
    max_handshakes: usize,
    permits: Shares<Client>,
}

/// Of whom a handshake is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Client {
    Network(ClientNetwork),
    /// A connection whose address tells nothing of its client.
    Any(usize),
}

impl TlsAcceptor {
    /// The acceptor of the public port, where clients may choose HTTP/2 if `http2` says so. The permits of `previous` are
    /// kept, so that those of handshakes in progress count. `challenges`: those of ACME, if a certificate is ordered.
    ///
    /// # Errors
    /// A text that names what cannot be used.
    pub fn public(
        settings: &ServerTls,
        http2: bool,
        tickets: &Tickets,
        challenges: Option<ChallengeDigests>,
        previous: Option<&Self>,
    ) -> Result<Self, String> {
        let ServerTls { certificates, min_version, handshake_timeout, max_handshakes, .. } =
            settings;
        let protocols = if http2 { PROTOCOLS } else { OLDER_PROTOCOLS };
        let server = certificates
            .server_config(*min_version, protocols, Some(tickets), None, challenges)
            .map_err(|error| format!("server.tls: {error}"))?;
        Ok(Self::new(TlsPort::Public, server, *handshake_timeout, *max_handshakes, previous))
    }

    /// The acceptor of the admin port, whose sessions are not resumed: each connection shows its certificate.
    ///
    /// # Errors
    /// A text that names what cannot be used.
    pub fn admin(settings: &AdminTls, previous: Option<&Self>) -> Result<Self, String> {
        let AdminTls { certificates, min_version, client_ca } = settings;
        let server = certificates
            .server_config(*min_version, OLDER_PROTOCOLS, None, client_ca.as_deref(), None)
            .map_err(|error| format!("admin.tls.client_ca: {error}"))?;
        Ok(Self::new(TlsPort::Admin, server, ADMIN_TIMEOUT, ADMIN_HANDSHAKES, previous))
    }

    fn new(
        port: TlsPort,
        server: Arc<tls::ServerConfig>,
        timeout: Duration,
        max_handshakes: usize,
        previous: Option<&Self>,
    ) -> Self {
        let permits = match previous {
            Some(previous) if previous.max_handshakes == max_handshakes => previous.permits.clone(),
            _ => Shares::new(max_handshakes, share_of(max_handshakes, 0)),
        };
        Self { port, server, timeout, max_handshakes, permits }
    }
}

/// One connection in its handshake.
struct Job {
    tcp: std::net::TcpStream,
    server: Arc<tls::ServerConfig>,
    deadline: Instant,
    permit: SharePermit<Client>,
    reply: oneshot::Sender<Result<(std::net::TcpStream, Accepted), Failed>>,
}

/// Why there is no connection, and the detail for the log.
struct Failed(TlsOutcome, String);

/// The threads of the process that run handshakes. Cheap to clone.
#[derive(Clone)]
pub struct TlsHandshakes(Arc<Threads>);

struct Threads {
    /// Their lengths are bounded by the permits of the jobs.
    queues: Vec<mpsc::UnboundedSender<Job>>,
    next: AtomicUsize,
}

impl TlsHandshakes {
    /// Starts the threads, one for each two workers. They end with this handle and its clones.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn start(workers: usize, shutdown: &Shutdown) -> std::io::Result<Self> {
        let start = |number| {
            let (queue, jobs) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let shutdown = shutdown.clone();
            thread::Builder::new().name(format!("tls-{number}")).spawn(move || {
                // A panic has been logged by the hook of the process.
                let run = || LocalSet::new().block_on(&runtime, run(jobs));
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    shutdown.fail("TLS handshakes");
                }
            })?;
            std::io::Result::Ok(queue)
        };
        let queues = (0..workers.div_ceil(2)).map(start).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Threads { queues, next: AtomicUsize::new(0) })))
    }

    /// Runs the handshake of a connection of the public port. `None` if there is no connection. `network`: whose it is, if
    /// its address tells that. Returns also whether the client has chosen HTTP/2.
    pub async fn public(
        &self,
        tcp: ClientTcp,
        peer: IpAddr,
        network: Option<ClientNetwork>,
        acceptor: &TlsAcceptor,
    ) -> Option<(ByteStream, bool)> {
        let (tcp, accepted) = self.handshake(tcp.into_std(), peer, network, acceptor).await?;
        // The system has no room to watch it.
        let tcp = ClientTcp::from_std(tcp).ok()?;
        let Accepted { records, early, protocol, .. } = accepted;
        if protocol.as_deref() == Some(ACME_PROTOCOL) {
            // The handshake was the proof, and nothing follows it (RFC 8737 section 4).
            return None;
        }
        let tls = ByteStream::Tls(Box::new(ClientTls::new(tcp, records, early)));
        Some((tls, protocol.as_deref() == Some(HTTP2)))
    }

    /// Does the same for the admin port.
    pub async fn admin(
        &self,
        tcp: tokio::net::TcpStream,
        peer: IpAddr,
        network: ClientNetwork,
        acceptor: &TlsAcceptor,
    ) -> Option<ClientTls<tokio::net::TcpStream>> {
        let tcp = tcp.into_std().ok()?;
        let (tcp, accepted) = self.handshake(tcp, peer, Some(network), acceptor).await?;
        let tcp = tokio::net::TcpStream::from_std(tcp).ok()?;
        let Accepted { records, early, .. } = accepted;
        Some(ClientTls::new(tcp, records, early))
    }

    /// Runs a handshake, and reports how it ended.
    async fn handshake(
        &self,
        tcp: std::net::TcpStream,
        peer: IpAddr,
        network: Option<ClientNetwork>,
        acceptor: &TlsAcceptor,
    ) -> Option<(std::net::TcpStream, Accepted)> {
        let (started, port) = (Instant::now(), acceptor.port);
        match self.try_handshake(tcp, network, acceptor, started).await {
            Ok((tcp, accepted)) => {
                let protocol = accepted.protocol.as_deref().map(String::from_utf8_lossy);
                let finished = Finished {
                    port,
                    version: accepted.version,
                    protocol: protocol.as_deref().unwrap_or_default(),
                    is_resumed: accepted.is_resumed,
                };
                handshake_finished(finished, started.elapsed());
                Some((tcp, accepted))
            }
            Err(Failed(cause, detail)) => {
                handshake_failed(port, cause, peer, &detail);
                None
            }
        }
    }

    async fn try_handshake(
        &self,
        tcp: std::net::TcpStream,
        network: Option<ClientNetwork>,
        acceptor: &TlsAcceptor,
        started: Instant,
    ) -> Result<(std::net::TcpStream, Accepted), Failed> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let client = network.map_or(Client::Any(number), Client::Network);
        let Ok(permit) = acceptor.permits.try_acquire(&client) else {
            return Err(Failed(TlsOutcome::TooMany, String::new()));
        };
        let (reply, replied) = oneshot::channel();
        let (server, deadline) = (Arc::clone(&acceptor.server), started + acceptor.timeout);
        let job = Job { tcp, server, deadline, permit, reply };
        let stopping = || Failed(TlsOutcome::Stopping, String::new());
        self.0.queues[number % self.0.queues.len()].send(job).map_err(|_| stopping())?;
        replied.await.map_err(|_| stopping())?
    }
}

/// Runs handshakes until the process ends.
async fn run(mut jobs: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = jobs.recv().await {
        tokio::task::spawn_local(job.run());
    }
}

impl Job {
    async fn run(self) {
        let Self { tcp, server, deadline, permit, mut reply } = self;
        let handshake = async {
            let closed = |error: std::io::Error| Failed(TlsOutcome::Closed, error.to_string());
            let mut tcp = tokio::net::TcpStream::from_std(tcp).map_err(closed)?;
            match tokio::time::timeout_at(deadline, tls::accept(&mut tcp, server)).await {
                Ok(Ok(accepted)) => Ok((tcp.into_std().map_err(closed)?, accepted)),
                Ok(Err(failure)) => {
                    let failed = Failed::from(&failure);
                    tell(tcp, failure).await;
                    Err(failed)
                }
                Err(_) => Err(Failed(TlsOutcome::Timeout, String::new())),
            }
        };
        let finished = tokio::select! {
            finished = handshake => finished,
            // The worker does not wait any longer.
            () = reply.closed() => return,
        };
        drop(permit);
        // The worker may just have stopped to wait.
        let _ = reply.send(finished);
    }
}

/// Tells a client that speaks HTTP what is wrong. Others have their alert, and are given time to read it.
async fn tell(mut tcp: tokio::net::TcpStream, failure: HandshakeFailure) {
    if matches!(failure, HandshakeFailure::Closed | HandshakeFailure::NotTls) {
        return;
    }
    if matches!(failure, HandshakeFailure::PlainHttp)
        && !matches!(
            tokio::time::timeout(LINGER_TIMEOUT, tcp.write_all(tls::TLS_EXPECTED)).await,
            Ok(Ok(()))
        )
    {
        return;
    }
    linger_and_close(tcp, LINGER_TIMEOUT, LINGER_BYTES).await;
}

impl From<&HandshakeFailure> for Failed {
    fn from(failure: &HandshakeFailure) -> Self {
        match failure {
            HandshakeFailure::PlainHttp => Self(TlsOutcome::PlainHttp, String::new()),
            HandshakeFailure::NotTls => Self(TlsOutcome::NotTls, String::new()),
            HandshakeFailure::Closed => Self(TlsOutcome::Closed, String::new()),
            HandshakeFailure::Alert(alert) => Self(TlsOutcome::Alert, format!("{alert:?}")),
            HandshakeFailure::NothingShared(error) => {
                Self(TlsOutcome::NothingShared, error.to_string())
            }
            HandshakeFailure::ClientCertificate(error) => {
                Self(TlsOutcome::ClientCertificate, error.to_string())
            }
            HandshakeFailure::Protocol(error) => Self(TlsOutcome::Malformed, error.to_string()),
        }
    }
}
