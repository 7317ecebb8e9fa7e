//! The HTTP/1.1 phase of a connection. Each request goes to the handshake, the token endpoint, a fixed reply or the
//! proxy. An upgrade ends the phase.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};

use super::client_limits::{self, ClientLimits, LingerPlaces};
use super::client_stream::{ClientStream, TimeLimits};
use super::exchange::{Fault, ResponseBody};
use super::http_phase::{Connection, HttpPhase};
use super::http2::Beginning;
use super::malformed::Answer;
use super::plain_request::{self, PassedRequest};
use super::{RuntimeConfig, fixed};
use crate::config::{self, Config, ProxyProtocol};
use crate::handshake::{Found, Rejection, json_error, upgrade};
use crate::limits::IpPermit;
use crate::protocol::{
    ClientAddress, HeadMistake, check_head, is_about_the_server, unify_forwarding,
};
use crate::proxy::{self, HeldBody, Proxy, ProxyBody};
use crate::session::{Permits, Services};
use crate::socket::{ByteStream, ClientTcp, TlsHandshakes, linger_and_close};
use crate::telemetry;
use crate::telemetry::connections::HttpError;

/// A client that is connected when the gateway begins to drain and has not sent a request yet may send one
/// for this long, but for at most half of `[shutdown] grace`.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long, and for how many bytes, a client is read from that is still sending a request which has its answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 32 * 1024 * 1024;

/// Serves the HTTP phase of this thread's connections.
pub(super) struct HttpFrontend {
    runtime_config: RefCell<Arc<RuntimeConfig>>,
    proxy: RefCell<Proxy>,
    pub(super) limits: ClientLimits,
    tls: Option<TlsHandshakes>,
    pub linger_places: LingerPlaces,
    pub services: Rc<Services>,
}

impl HttpFrontend {
    /// # Errors
    /// The proxy's upstream is `https` and no root certificates can be loaded.
    pub fn new(
        runtime_config: Arc<RuntimeConfig>,
        limits: ClientLimits,
        tls: Option<TlsHandshakes>,
        services: Rc<Services>,
    ) -> Result<Self, String> {
        let proxy = RefCell::new(Proxy::new(&runtime_config.config, &runtime_config.proxied)?);
        Ok(Self {
            runtime_config: RefCell::new(runtime_config),
            proxy,
            limits,
            tls,
            linger_places: LingerPlaces::default(),
            services,
        })
    }

    /// Applies `new` to the next requests, and to open connections as far as possible. A request that has started
    /// keeps its configuration.
    pub async fn apply(&self, new: Arc<RuntimeConfig>) -> Result<(), String> {
        let current = self.runtime_config();
        let (before, config) = (&current.config, &new.config);
        if Proxy::is_changed(before, config) {
            self.proxy.replace(Proxy::new(config, &new.proxied)?);
        }
        self.runtime_config.replace(Arc::clone(&new));
        let thread_config = new.for_thread(Some(&self.services.config()));
        self.services.apply_config(thread_config).await;
        Ok(())
    }

    fn runtime_config(&self) -> Arc<RuntimeConfig> {
        Arc::clone(&self.runtime_config.borrow())
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.runtime_config.borrow().config)
    }

    /// Serves a connection, unless a limit refuses it.
    pub fn accept(self: &Rc<Self>, stream: ClientTcp, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        if self.runtime_config.borrow().config.server.proxy_protocol == ProxyProtocol::Required {
            return self.accept_proxied(stream, peer);
        }
        let admitted = {
            let config = &self.runtime_config.borrow().config;
            self.limits.admit(stream, peer.ip(), config, &self.linger_places)
        };
        let Some((stream, process, ip)) = admitted else { return };
        let permits = Permits { process, ip, lease: None };
        let tracked = self.services.shutdown.track();
        let connection = Connection { peer, over_tls: false, permits, tracked };
        // Boxed, because a runtime moves what it is given several times, and this is large.
        tokio::task::spawn_local(Box::pin(Rc::clone(self).serve(stream, connection)));
    }

    /// Runs the TLS handshake, where the port has TLS, and finds out with which version of HTTP the client goes on.
    /// `None` = there is no connection.
    async fn begin(&self, mut tcp: ClientTcp, peer: IpAddr) -> Option<(ByteStream, Beginning)> {
        let current = self.runtime_config();
        let Some((handshakes, acceptor)) = self.tls.as_ref().zip(current.tls.as_ref()) else {
            let beginning = self.read_beginning(&mut tcp).await?;
            return Some((ByteStream::Tcp(tcp), beginning));
        };
        let network = client_limits::network_of(peer, &current.config);
        // Boxed, because it is large, and only there for a moment.
        let handshake = Box::pin(handshakes.public(tcp, peer, network, acceptor));
        let (stream, is_http2) = tokio::select! {
            begun = handshake => begun?,
            () = self.drain_overdue() => return None,
        };
        let beginning = if is_http2 { Beginning::Http2 } else { Beginning::Other };
        Some((stream, beginning(Vec::new())))
    }

    /// Completes when the gateway drains and a connection without a request has had its time.
    pub(super) async fn drain_overdue(&self) {
        self.services.shutdown.draining().await;
        tokio::time::sleep(self.drain_timeout()).await;
    }

    /// Serves requests until the connection ends or is upgraded. After an upgrade, starts the session.
    pub(super) async fn serve(self: Rc<Self>, tcp: ClientTcp, mut connection: Connection) {
        let begun = self.begin(tcp, connection.peer.ip()).await;
        let Some((stream, beginning)) = begun else { return };
        connection.over_tls |= matches!(stream, ByteStream::Tls(_));
        let early = match beginning {
            Beginning::Other(early) => early,
            Beginning::Http2(early) => {
                // Boxed, because it is large and most connections do without it.
                return Box::pin(self.serve_http2(stream, early.into(), connection)).await;
            }
        };
        let Connection { peer, over_tls, permits, tracked } = connection;
        let has_ip_permit = permits.ip.is_some();
        let phase = Rc::new(HttpPhase { has_ip_permit, ..HttpPhase::new(peer, over_tls) });
        let Some((stream, early, head)) = self.serve_http(stream, early, &phase).await else {
            return;
        };
        let Some(upgraded) = phase.upgraded.take() else {
            if !phase.exchange.is_over()
                && let Some(_place) = self.linger_places.acquire()
            {
                drop((permits, tracked));
                linger_and_close(stream, LINGER_TIMEOUT, LINGER_BYTES).await;
            }
            return;
        };
        self.start_session(upgraded, stream, (early, head), permits, tracked);
    }

    /// Serves the HTTP phase. Returns the stream, the bytes that were read after the request, and the response that its
    /// session sends, or `None` if the connection ended with an error.
    async fn serve_http(
        self: &Rc<Self>,
        stream: ByteStream,
        early: Vec<u8>,
        phase: &Rc<HttpPhase>,
    ) -> Option<(ByteStream, Bytes, Bytes)> {
        let (frontend, requests) = (Rc::clone(self), Rc::clone(phase));
        let service = service_fn(move |request| {
            let (frontend, phase) = (Rc::clone(&frontend), Rc::clone(&requests));
            // The future is boxed because the connection is polled by hand and must be `Unpin`.
            Box::pin(async move { Ok::<_, Infallible>(frontend.respond(&phase, request).await) })
        });
        let config = Arc::clone(&self.runtime_config.borrow().config);
        let exchange = Rc::clone(&phase.exchange);
        let stream = ClientStream::new(stream, early, exchange, TimeLimits::from(&config.server));
        // The stream has the time limits. A client that has ended its half still gets its response.
        let mut http = http1::Builder::new()
            .header_read_timeout(None)
            .half_close(true)
            .max_buf_size(config.server.max_header_bytes)
            .serve_connection(stream, service);
        let mut should_stop = pin!(self.should_stop(phase));
        let mut stopping = false;
        let ended = std::future::poll_fn(|cx| {
            if !stopping && should_stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                Pin::new(&mut http).graceful_shutdown();
            }
            http.poll_without_shutdown(cx)
        })
        .await;
        let parts = http.into_parts();
        let (tcp, head) = parts.io.into_parts();
        let Err(error) = ended else { return Some((tcp, parts.read_buf, head.into())) };
        match phase.exchange.fault() {
            Some(Fault::HeadTimeout) => telemetry::connections::http_ended(HttpError::Timeout),
            Some(Fault::TooSlow) => telemetry::connections::http_ended(HttpError::TooSlow),
            Some(Fault::Gone) => telemetry::connections::http_ended(HttpError::Broken),
            None => telemetry::connections::http_failed(&error),
        }
        if let Some(answer) = Answer::to(&phase.exchange, &error) {
            answer.send(tcp).await;
        }
        None
    }

    /// Answers a request, and keeps account of it for the connection's stream.
    async fn respond(
        &self,
        phase: &HttpPhase,
        mut request: Request<Incoming>,
    ) -> Response<ResponseBody<ProxyBody>> {
        let exchange = Rc::clone(&phase.exchange);
        exchange.begin(&request);
        phase.request_received.notify_one();
        exchange.take_turn().await;
        let response = match check_head(&mut request) {
            Ok(()) if exchange.has_fragment() => refuse_head(HeadMistake::Target, phase.peer.ip()),
            Ok(()) => self.answer(phase, request).await,
            Err(mistake) => refuse_head(mistake, phase.peer.ip()),
        };
        exchange.answered();
        response.map(|body| ResponseBody::new(body, exchange))
    }

    /// Completes when the gateway drains and this connection must not serve further requests. A client that has just
    /// connected may still send one, since every accepted connection gets a response.
    async fn should_stop(&self, phase: &HttpPhase) {
        self.services.shutdown.draining().await;
        // Whether a request arrived or not, the connection does not serve another one.
        let _ = tokio::time::timeout(self.drain_timeout(), phase.request_received.notified()).await;
    }

    /// How long a client that is connected when the gateway begins to drain may still send its first request.
    pub(super) fn drain_timeout(&self) -> Duration {
        FIRST_REQUEST_TIMEOUT.min(self.services.config().config.shutdown.grace / 2)
    }

    pub(super) async fn answer(
        &self,
        phase: &HttpPhase,
        mut request: Request<Incoming>,
    ) -> Response<ProxyBody> {
        let (runtime_config, proxy) = (self.runtime_config(), self.proxy.borrow().clone());
        let RuntimeConfig { config, handshake, .. } = &*runtime_config;
        let (peer, trusted) = (phase.peer.ip(), &config.server.trusted_proxies);
        let header = config.server.forwarding_header;
        if unify_forwarding(request.headers_mut(), peer, trusted, header).is_err() {
            telemetry::connections::forwarding_disagreed(peer);
        }
        let address =
            ClientAddress::resolve(peer, request.headers(), trusted).over_tls(phase.over_tls);
        let found = handshake.find_route(request.uri().path());
        let is_handshake = matches!(found, Some(Found::Route(..) | Found::Reply(_)))
            && upgrade::is_requested(request.headers());
        let limited = self.check_limits(phase, address.ip, is_handshake, config);
        let is_refused = limited.is_err();
        let mut response = match (found, limited) {
            (_, Err(rejection)) if !is_handshake || rejection.is_of_node() => {
                boxed(rejection.to_response())
            }
            (Some(Found::Route(route, params)), ip) if is_handshake => {
                let routed = (&route, params);
                boxed(self.handshake(phase, handshake, address, routed, &request, ip).await)
            }
            (Some(Found::Reply(reply)), ip) if is_handshake => {
                boxed(self.answer_fixed(phase, address, &reply, &request, ip))
            }
            (found, ip) => {
                let answered = match found {
                    Some(Found::Reply(reply)) => {
                        let draining = self.services.shutdown.is_draining();
                        boxed(fixed::answer(&reply, &request, draining))
                    }
                    // The proxy does not forward WebSockets, and the upstream might redirect a plain request.
                    _ if upgrade::is_requested(request.headers()) => {
                        let error = "no route takes WebSockets at this path";
                        boxed(json_error(StatusCode::NOT_FOUND, error, "no_route"))
                    }
                    // The endpoint wins over routes, of which one may take every path.
                    _ if handshake.is_token_endpoint(request.uri().path()) => {
                        boxed(handshake.issue(request, address).await)
                    }
                    _ if is_about_the_server(&request) => about_the_server(request.method()),
                    Some(Found::Unfit(route))
                        if route.plain_requests == config::PlainRequests::Upstream =>
                    {
                        plain_request::unfit_path()
                    }
                    found => {
                        let route = match found {
                            Some(Found::Route(route, params)) => Some((route, params)),
                            _ => None,
                        };
                        let passing = PassedRequest { phase, handshake, proxy, address, route };
                        // Boxed, because it is large and most connections do without it.
                        match plain_request::served(&passing, &request) {
                            Err(response) => boxed(response),
                            Ok(()) => match runtime_config.proxied.acquire(address.ip) {
                                Ok(permit) => {
                                    let answered = Box::pin(self.pass_request(passing, request));
                                    HeldBody::hold(answered.await, Some(permit))
                                }
                                Err(failure) => proxy::refuse(failure, address.ip),
                            },
                        }
                    }
                };
                HeldBody::hold(answered, ip.ok().flatten())
            }
        };
        let is_open = response.status() != StatusCode::SWITCHING_PROTOCOLS;
        if is_refused && is_open && phase.has_ip_permit {
            // A client that is over a limit is not served any longer. The connection of a proxy may be another's.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }

    /// Checks the limits of the client's address. Returns a permit if its requests are counted one by one.
    fn check_limits(
        &self,
        phase: &HttpPhase,
        ip: IpAddr,
        is_handshake: bool,
        config: &config::Config,
    ) -> Result<Option<IpPermit>, Rejection> {
        if is_handshake {
            self.limits.check_memory(ip, config)?;
            if phase.has_attempted.replace(true) || !phase.has_ip_permit {
                self.limits.take_connect(ip, config)?;
            }
            if phase.is_http2 {
                phase.process.replace(Some(self.limits.acquire_process(config)?));
            }
        } else {
            self.limits.take_request(ip, config)?;
        }
        if phase.has_ip_permit {
            return Ok(None);
        }
        self.limits.acquire_ip(ip, config).map(Some)
    }
}

/// Answers a request whose head is not valid. What follows on the connection cannot be trusted to be a request.
pub(super) fn refuse_head(mistake: HeadMistake, peer: IpAddr) -> Response<ProxyBody> {
    telemetry::connections::http_head_refused(mistake, peer);
    let (status, error) = mistake.response();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = boxed(json_error(status, error, mistake.label()));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Answers `OPTIONS *`, which asks what the server itself can do (RFC 9110 section 9.3.7). It does not do `TRACE`.
fn about_the_server(method: &Method) -> Response<ProxyBody> {
    let mut response = boxed(Response::new(Full::default()));
    if method == Method::TRACE {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    }
    let methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

pub(super) fn boxed(response: Response<Full<Bytes>>) -> Response<ProxyBody> {
    response.map(|body| body.map_err(|never| match never {}).boxed())
}
