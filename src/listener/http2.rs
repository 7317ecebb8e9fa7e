//! HTTP/2 connections (RFC 9113), with WebSockets over them (RFC 8441), where `[server] http2` allows them.
//!
//! Each stream is a request that passes the checks and limits of one over HTTP/1.1. A WebSocket takes the permits that it
//! would take on a connection of its own, beside those of the connection that carries it. Invariants: what is held for a
//! stream is bounded, and so is the number of streams; a stream that is not read keeps no other one waiting.

mod io;
mod pace;
mod preface;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioTimer;
use tokio::sync::Notify;

use self::io::Http2Io;
use self::pace::{PacedBody, StreamPace};
pub(super) use self::preface::Beginning;
use super::http::{HttpFrontend, refuse_head};
use super::http_phase::{Connection, HttpPhase};
use crate::config::Server;
use crate::protocol::translate_http2_head;
use crate::proxy::ProxyBody;
use crate::session::Permits;
use crate::socket::{ByteStream, ClientTcp, Http2Stream};
use crate::telemetry;
use crate::telemetry::connections::{Http2Gauge, HttpError, StreamKind};

/// How many streams a connection may have open.
const MAX_STREAMS: u32 = 128;

/// How many bytes a client may send on a stream before they are read, and on the connection: every stream may be full, and
/// none waits for another one.
const STREAM_WINDOW: u32 = 64 * 1024 - 1;
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;

/// How many bytes of a stream may wait for its client, beside what the gateway's own queues hold.
const MAX_SEND_BYTES: usize = 32 * 1024;

/// How many requests a client may reset before they are answered, if it is more than half of them (CVE-2023-44487). Each
/// costs more than the client has to pay.
const MAX_RESETS: u64 = 200;

/// How long a connection without streams has to end after it was told to.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the streams of a connection share.
pub(super) struct Http2Connection {
    peer: SocketAddr,
    over_tls: bool,
    open: Cell<usize>,
    requests: Cell<u64>,
    /// Requests that ended before they were answered.
    resets: Cell<u64>,
    /// Notified when a stream begins or ends, and when one has ended before it was answered.
    changed: Notify,
    reset: Notify,
    /// The pace of the stream whose task begins next.
    pace: RefCell<Option<Rc<StreamPace>>>,
}

/// A stream, from its request to its end.
pub(super) struct OpenStream {
    connection: Rc<Http2Connection>,
    is_answered: Cell<bool>,
}

impl Http2Connection {
    fn begin_stream(self: &Rc<Self>) -> OpenStream {
        self.open.set(self.open.get() + 1);
        self.requests.set(self.requests.get() + 1);
        self.changed.notify_one();
        OpenStream { connection: Rc::clone(self), is_answered: Cell::new(false) }
    }

    /// Completes when there has been no stream for the time that `timeout` returns.
    async fn unused(&self, timeout: impl Fn(u64) -> Duration) {
        loop {
            let sleep = tokio::time::sleep(timeout(self.requests.get()));
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep, if self.open.get() == 0 => return,
            }
        }
    }

    /// Completes when the client resets most of what it asks for.
    async fn abused(&self) {
        while self.resets.get() <= MAX_RESETS || self.resets.get() <= self.requests.get() / 2 {
            self.reset.notified().await;
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.open.set(connection.open.get() - 1);
        if !self.is_answered.get() {
            connection.resets.set(connection.resets.get() + 1);
            connection.reset.notify_one();
        }
        connection.changed.notify_one();
    }
}

/// Runs the tasks of a connection's streams.
#[derive(Clone)]
struct StreamExecutor(Rc<Http2Connection>);

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        // The task of a response begins with its request. Others, of WebSockets, have no pace.
        let Some(pace) = self.0.pace.take() else {
            tokio::task::spawn_local(stream);
            return;
        };
        tokio::task::spawn_local(async move {
            tokio::select! {
                biased;
                () = stream => {}
                // Dropped, the stream is reset.
                () = pace.too_slow() => telemetry::connections::http_ended(HttpError::TooSlow),
            }
        });
    }
}

impl HttpFrontend {
    /// Finds out with which version of HTTP a connection without TLS begins. `None` = it has not begun in time, or has
    /// ended.
    pub(super) async fn read_beginning(&self, stream: &mut ClientTcp) -> Option<Beginning> {
        let config = self.config();
        let server = &config.server;
        if !server.http2 {
            return Some(Beginning::Other(Vec::new()));
        }
        tokio::select! {
            biased;
            beginning = Beginning::read(stream) => beginning.ok(),
            () = tokio::time::sleep(server.header_timeout) => None,
            () = self.drain_overdue() => None,
        }
    }

    /// Serves the streams of a connection until it ends. `early` are the bytes that were read of it.
    pub(super) async fn serve_http2(
        self: Rc<Self>,
        stream: ByteStream,
        early: Bytes,
        connection: Connection,
    ) {
        let Connection { peer, over_tls, permits, tracked } = connection;
        let _held = (permits, tracked, Http2Gauge::open());
        let connection = Rc::new(Http2Connection {
            peer,
            over_tls,
            open: Cell::default(),
            requests: Cell::default(),
            resets: Cell::default(),
            changed: Notify::new(),
            reset: Notify::new(),
            pace: RefCell::default(),
        });
        let config = self.config();
        let server = &config.server;
        let (frontend, shared) = (Rc::clone(&self), Rc::clone(&connection));
        let service = service_fn(move |request| {
            let pace = Rc::new(StreamPace::new(frontend.config().server.min_pace));
            shared.pace.replace(Some(Rc::clone(&pace)));
            let (frontend, stream) = (Rc::clone(&frontend), shared.begin_stream());
            // Boxed, because a runtime moves what it is given several times, and this is large.
            Box::pin(async move {
                Ok::<_, Infallible>(frontend.respond_http2(stream, pace, request).await)
            })
        });
        let io = Http2Io::new(stream, early, server.min_pace);
        let http = builder(server, &connection).serve_connection(io, service);
        let mut http = pin!(http);
        let unused = connection.unused(|requests| match requests {
            0 => server.header_timeout,
            _ => server.keep_alive,
        });
        let ended = tokio::select! {
            ended = http.as_mut() => Some(ended),
            () = connection.abused() => return telemetry::connections::http_ended(HttpError::Resets),
            () = unused => None,
            () = self.services.shutdown.draining() => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            // New streams go to other connections. Open ones end as they would, sockets with their codes.
            None => {
                http.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = http.as_mut() => ended,
                    () = connection.abused() => {
                        return telemetry::connections::http_ended(HttpError::Resets);
                    }
                    () = connection.unused(|_| GOAWAY_TIMEOUT) => return,
                }
            }
        };
        if let Err(error) = ended {
            telemetry::connections::http_failed(&error);
        }
    }

    /// Answers the request of a stream. After a handshake, starts the session.
    async fn respond_http2(
        self: Rc<Self>,
        stream: OpenStream,
        pace: Rc<StreamPace>,
        mut request: Request<Incoming>,
    ) -> Response<PacedBody<ProxyBody>> {
        let Http2Connection { peer, over_tls, .. } = *stream.connection;
        let upgrade =
            (request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
        telemetry::connections::http2_stream_opened(match upgrade {
            Some(_) => StreamKind::Connect,
            None => StreamKind::Request,
        });
        let phase = HttpPhase { is_http2: true, ..HttpPhase::new(peer, over_tls) };
        let response = match translate_http2_head(&mut request) {
            Ok(()) => self.answer(&phase, request).await,
            Err(mistake) => refuse_head(mistake, peer.ip()),
        };
        stream.is_answered.set(true);
        let permit = phase.process.take();
        let (Some(upgrade), Some(upgraded), Some(process)) =
            (upgrade, phase.upgraded.take(), permit)
        else {
            return response.map(|body| PacedBody::new(body, pace, Some(stream)));
        };
        let (permits, tracked) =
            (Permits { process, ip: None, lease: None }, self.services.shutdown.track());
        tokio::task::spawn_local(async move {
            // Otherwise the stream has ended before its response.
            if let Ok(io) = upgrade.await {
                let stream = ByteStream::Http2(Box::new(Http2Stream::new(io, stream)));
                self.start_session(upgraded, stream, Default::default(), permits, tracked);
            }
        });
        response.map(|body| PacedBody::new(body, pace, None))
    }
}

/// The settings of a connection.
fn builder(server: &Server, connection: &Rc<Http2Connection>) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor(Rc::clone(connection)));
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BYTES)
        .max_header_list_size(u32::try_from(server.max_header_bytes).unwrap_or(u32::MAX))
        // A client that is gone is noticed, although nothing is sent to it.
        .keep_alive_interval(server.min_pace.timeout)
        .keep_alive_timeout(server.min_pace.timeout);
    builder
}
