//! One connection to the admin port: how it is served and what ends it.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt::Display;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Admin;
use super::open_connections::{Call, OpenConnections, OpenGuard};
use super::read_ahead::ReadAhead;
use super::stream::Stream;
use crate::protocol::ClientNetwork;
use crate::shutdown::Shutdown;
use crate::socket::linger_and_close;
use crate::telemetry;
use crate::telemetry::admin::Action;

/// For a request head, and for an idle connection.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests have short heads; bodies are read in pieces.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// A peer that acknowledges nothing for this long counts as lost (`TCP_USER_TIMEOUT`).
const PEER_TIMEOUT: Duration = Duration::from_secs(30);

/// A reader that was too slow has this long to read the reason.
const TOO_SLOW_GRACE: Duration = Duration::from_secs(5);

/// At shutdown, a client that is waited for has this long to read the rest of its answer.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long, and for how many bytes, a client is read from that is still sending a request which has its answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// What the requests of one connection share.
pub(super) struct Connection {
    pub address: SocketAddr,
    /// What counts as one address in limits.
    pub network: ClientNetwork,
    /// When it was accepted, or its latest request came.
    pub used: Cell<Instant>,
    /// How many requests it has sent since others had their turn.
    pub requests_in_a_row: Cell<u32>,
    /// Whether its latest request had a valid API key.
    pub has_key: Cell<bool>,
    /// Held while a call of the API is in progress.
    pub call: RefCell<Option<Call>>,
    /// Cancelled when the connection has to make room for another.
    ended: CancellationToken,
    /// Cancelled when the reader of a tail is too slow.
    pub too_slow: CancellationToken,
    /// Keeps the process alive until the current answer is sent; the connection then ends with it.
    pub process_hold: RefCell<Option<TaskTrackerToken>>,
    /// Notified when `process_hold` is set, which may be after the drain has begun.
    pub held: Notify,
}

/// The caller of the server API: its connection, and the number of its API key, counted from 1.
pub(super) struct Caller<'a> {
    pub connection: &'a Connection,
    pub key: usize,
}

impl Connection {
    pub fn new(address: SocketAddr, network: ClientNetwork) -> Self {
        Self {
            address,
            network,
            used: Cell::new(Instant::now()),
            requests_in_a_row: Cell::default(),
            has_key: Cell::default(),
            call: RefCell::default(),
            ended: CancellationToken::new(),
            too_slow: CancellationToken::new(),
            process_hold: RefCell::default(),
            held: Notify::new(),
        }
    }

    pub fn is_calling(&self) -> bool {
        self.call.borrow().is_some()
    }

    /// Makes room for another connection.
    pub fn end(&self) {
        self.ended.cancel();
    }

    #[cfg(test)]
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Answers requests until the connection ends.
    pub async fn serve(self: Rc<Self>, admin: Rc<Admin>, tcp: TcpStream, guard: OpenGuard) {
        let socket = socket2::SockRef::from(&tcp);
        // Without them the defaults of the system apply.
        let _ = (socket.set_tcp_user_timeout(Some(PEER_TIMEOUT)), socket.set_tcp_nodelay(true));
        let connections = guard.connections();
        let stream = tokio::select! {
            stream = self.begin(&admin, tcp) => stream,
            () = self.ended.cancelled() => return,
        };
        let Some(mut stream) = stream else { return };
        let read = tokio::select! {
            read = admin.serve_publish_calls(&mut stream, &self, &connections) => read,
            () = self.ended.cancelled() => return,
        };
        if let Some(read) = read {
            self.serve_http(admin, ReadAhead::new(read, stream), connections).await;
        }
        drop(guard);
    }

    /// Runs the TLS handshake, if the port has TLS. `None` = there is no connection.
    async fn begin(&self, admin: &Admin, tcp: TcpStream) -> Option<Stream> {
        let Some((handshakes, acceptor)) = &admin.tls else { return Some(Stream::Tcp(tcp)) };
        let Some(acceptor) = acceptor() else { return Some(Stream::Tcp(tcp)) };
        let tls = handshakes.admin(tcp, self.address.ip(), self.network, &acceptor).await?;
        self.used.set(Instant::now());
        Some(Stream::Tls(Box::new(tls)))
    }

    /// Answers requests with the HTTP library.
    async fn serve_http(
        self: Rc<Self>,
        admin: Rc<Admin>,
        stream: ReadAhead,
        connections: Rc<OpenConnections>,
    ) {
        let (serving, connection) = (Rc::clone(&admin), Rc::clone(&self));
        let service = service_fn(move |request| {
            let (admin, connection) = (Rc::clone(&serving), Rc::clone(&connection));
            let connections = Rc::clone(&connections);
            // The future is boxed because the connection is polled by hand and must be `Unpin`.
            Box::pin(async move {
                Ok::<_, Infallible>(admin.answer(request, &connection, &connections).await)
            })
        });
        let mut served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(READ_BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let too_slow = async {
            self.too_slow.cancelled().await;
            tokio::time::sleep(TOO_SLOW_GRACE).await;
        };
        let (mut too_slow, mut stopping) = (pin!(too_slow), pin!(self.stopping(&admin)));
        let ended = tokio::select! {
            ended = poll_fn(|cx| served.poll_without_shutdown(cx)) => ended,
            () = self.ended.cancelled() => return,
            () = &mut too_slow => return,
            () = &mut stopping => {
                std::pin::Pin::new(&mut served).graceful_shutdown();
                let rest = poll_fn(|cx| served.poll_without_shutdown(cx));
                tokio::select! {
                    ended = tokio::time::timeout(LAST_ANSWER_TIMEOUT, rest) => match ended {
                        Ok(ended) => ended,
                        Err(_) => return,
                    },
                    () = too_slow => return,
                }
            }
        };
        if let Err(error) = ended {
            return telemetry::connections::http_failed(&error);
        }
        // The last answer may have come before the end of a large body.
        let stream = served.into_parts().io.into_inner().into_stream();
        tokio::select! {
            () = linger_and_close(stream, LINGER_TIMEOUT, LINGER_BYTES) => {}
            () = self.ended.cancelled() => {}
        }
    }

    /// Completes when the gateway drains and waits for the current answer.
    async fn stopping(&self, admin: &Admin) {
        admin.shutdown.draining().await;
        if self.process_hold.borrow().is_none() {
            // Metrics and health are served to the end, and a call of the API may begin the drain.
            self.held.notified().await;
        }
    }
}

impl Caller<'_> {
    /// Makes the process wait until the current answer is sent, at shutdown for at most a second.
    pub fn hold_process(&self, shutdown: &Shutdown) {
        *self.connection.process_hold.borrow_mut() = Some(shutdown.track());
        self.connection.held.notify_one();
    }

    /// Records an audit event.
    pub fn audit(&self, action: Action, what: &dyn Display) {
        telemetry::admin::audit(action, self.key, self.connection.address, what);
    }
}
