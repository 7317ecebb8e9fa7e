//! The HTTP/1.1 phase of a connection. Each request goes to the handshake, the token endpoint, a fixed reply or the
//! proxy. An upgrade ends the phase.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{RuntimeConfig, fixed};
use crate::clock;
use crate::config;
use crate::handshake::{
    Admission, Found, Handshake, HandshakeAttempt, Rejection, json_error, upgrade,
};
use crate::limits::{ConnectionCounts, ConnectionPermit, IpPermit, Lease, LeaseKey, LeaseKind};
use crate::protocol::{ClientAddress, CloseReason, Params, with_timestamp};
use crate::proxy::{Proxy, ProxyBody};
use crate::session::{self, Client, Permits, Services, UpstreamMode};
use crate::socket::ByteStream;
use crate::telemetry;
use crate::telemetry::connections::Admitted;
use crate::telemetry::messages::LocalLimit;

/// A client that is connected when the gateway begins to drain and has not sent a request yet may send one
/// for this long, but for at most half of `[shutdown] grace`.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the HTTP phase of this thread's connections.
pub(super) struct HttpFrontend {
    runtime_config: RefCell<Arc<RuntimeConfig>>,
    proxy: RefCell<Proxy>,
    counts: ConnectionCounts,
    pub services: Rc<Services>,
}

/// One accepted connection.
pub(super) struct Connection {
    pub peer: SocketAddr,
    /// Whether the address has too many connections. If so, the first request is rejected.
    pub over_ip_limit: bool,
    pub permits: Permits,
    /// Makes a drain wait for this connection until its session is open.
    pub tracked: TaskTrackerToken,
}

/// The result of an upgrade whose 101 response is on its way.
enum Upgraded {
    Admitted(Box<Admission>, IpAddr, Option<IpPermit>, Option<Lease>),
    /// The gateway sends a fixed reply, if the client may have it, and closes the socket.
    Closed(Option<String>, CloseReason, Option<IpPermit>),
    /// A route refuses the client of this address. The gateway sends at most one event and closes the socket.
    Refused(Option<String>, CloseReason, IpAddr),
}

/// The state that the requests of one connection share.
struct HttpPhase {
    peer: SocketAddr,
    over_ip_limit: bool,
    upgraded: RefCell<Option<Upgraded>>,
    has_ip_permit: Cell<bool>,
    /// Notified when a request has arrived.
    request_received: Notify,
}

impl HttpFrontend {
    /// # Errors
    /// The proxy's upstream is `https` and no root certificates can be loaded.
    pub fn new(
        runtime_config: Arc<RuntimeConfig>,
        counts: ConnectionCounts,
        services: Rc<Services>,
    ) -> Result<Self, String> {
        let proxy = RefCell::new(Proxy::new(&runtime_config.config.proxy)?);
        Ok(Self { runtime_config: RefCell::new(runtime_config), proxy, counts, services })
    }

    /// Applies `new` to the next requests, and to open connections as far as possible. A request that has started
    /// keeps its configuration.
    pub async fn apply(&self, new: Arc<RuntimeConfig>) -> Result<(), String> {
        let current = self.runtime_config();
        if current.config.proxy != new.config.proxy {
            self.proxy.replace(Proxy::new(&new.config.proxy)?);
        }
        self.runtime_config.replace(Arc::clone(&new));
        let thread_config = new.for_thread(Some(&self.services.config()));
        self.services.apply_config(thread_config).await;
        Ok(())
    }

    fn runtime_config(&self) -> Arc<RuntimeConfig> {
        Arc::clone(&self.runtime_config.borrow())
    }

    /// Acquires a permit for a connection of the process; `None` if all are in use.
    pub fn acquire_permit(&self) -> Option<ConnectionPermit> {
        self.counts.acquire(self.runtime_config.borrow().config.server.max_connections)
    }

    /// Acquires a permit for a connection of `ip`; `None` if all are in use.
    pub fn acquire_ip_permit(&self, ip: IpAddr) -> Option<IpPermit> {
        self.counts
            .acquire_ip(ip, self.runtime_config.borrow().config.server.max_connections_per_ip)
    }

    /// Whether `peer` is a proxy whose forwarding headers are trusted.
    pub fn is_trusted(&self, peer: IpAddr) -> bool {
        let runtime_config = self.runtime_config.borrow();
        let trusted = &runtime_config.config.server.trusted_proxies;
        trusted.iter().any(|network| network.contains(&peer))
    }

    /// Serves requests until the connection ends or is upgraded. After an upgrade, starts the session.
    pub async fn serve(self: Rc<Self>, stream: TcpStream, connection: Connection) {
        let Connection { peer, over_ip_limit, mut permits, tracked } = connection;
        let phase = Rc::new(HttpPhase {
            peer,
            over_ip_limit,
            upgraded: RefCell::default(),
            has_ip_permit: Cell::new(permits.ip.is_some()),
            request_received: Notify::new(),
        });
        let Some((stream, early)) = self.serve_http(stream, &phase).await else { return };
        let Some(upgraded) = phase.upgraded.take() else { return };
        let stream = ByteStream::Tcp(stream);
        match upgraded {
            Upgraded::Admitted(admission, address, ip, lease) => {
                permits.ip = permits.ip.take().or(ip);
                permits.lease = lease;
                let arrival = session::Arrival { early: early.to_vec(), resume: admission.resume };
                let client = self.build_client(*admission, address);
                let services = Rc::clone(&self.services);
                tokio::task::spawn_local(async move {
                    let _guard = tracked;
                    session::open(services, stream, arrival, client, permits).await;
                });
            }
            Upgraded::Closed(text, reason, ip) => {
                permits.ip = permits.ip.take().or(ip);
                let services = Rc::clone(&self.services);
                tokio::task::spawn_local(async move {
                    let _guard = tracked;
                    session::send_and_close(services, stream, text, reason, permits, None).await;
                });
            }
            Upgraded::Refused(text, reason, ip) => {
                let (services, delay) =
                    (Rc::clone(&self.services), self.services.delay_refusal(ip));
                tokio::task::spawn_local(async move {
                    let _guard = tracked;
                    session::send_and_close(services, stream, text, reason, permits, delay).await;
                });
            }
        }
    }

    /// Serves the HTTP phase. Returns the stream and the bytes that were read after the request, or `None` if the
    /// connection ended with an error.
    async fn serve_http(
        self: &Rc<Self>,
        stream: TcpStream,
        phase: &Rc<HttpPhase>,
    ) -> Option<(TcpStream, Bytes)> {
        let (frontend, requests) = (Rc::clone(self), Rc::clone(phase));
        let service = service_fn(move |request| {
            let (frontend, phase) = (Rc::clone(&frontend), Rc::clone(&requests));
            // The future is boxed because the connection is polled by hand and must be `Unpin`.
            Box::pin(async move { Ok::<_, Infallible>(frontend.answer(&phase, request).await) })
        });
        let config = Arc::clone(&self.runtime_config.borrow().config);
        let mut http = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(config.server.header_timeout)
            .max_buf_size(config.server.max_header_bytes)
            .serve_connection(TokioIo::new(stream), service);
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
        if let Err(error) = ended {
            telemetry::connections::http_failed(&error);
            return None;
        }
        let parts = http.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }

    /// Completes when the gateway drains and this connection must not serve further requests. A client that has just
    /// connected may still send one, since every accepted connection gets a response.
    async fn should_stop(&self, phase: &HttpPhase) {
        self.services.shutdown.draining().await;
        let timeout = FIRST_REQUEST_TIMEOUT.min(self.services.config().config.shutdown.grace / 2);
        // Whether a request arrived or not, the connection does not serve another one.
        let _ = tokio::time::timeout(timeout, phase.request_received.notified()).await;
    }

    async fn answer(&self, phase: &HttpPhase, request: Request<Incoming>) -> Response<ProxyBody> {
        phase.request_received.notify_one();
        let (runtime_config, proxy) = (self.runtime_config(), self.proxy.borrow().clone());
        let RuntimeConfig { config, handshake, .. } = &*runtime_config;
        let address = ClientAddress::resolve(
            phase.peer.ip(),
            request.headers(),
            &config.server.trusted_proxies,
        );
        match handshake.find_route(request.uri().path()) {
            Some(Found::Route(route, params)) => {
                let routed = (&route, params);
                return boxed(self.handshake(phase, handshake, address, routed, &request).await);
            }
            Some(Found::Reply(reply)) if upgrade::is_requested(request.headers()) => {
                return boxed(self.answer_fixed(phase, address, &reply, &request));
            }
            Some(Found::Reply(reply)) if !phase.over_ip_limit => {
                let draining = self.services.shutdown.is_draining();
                return boxed(fixed::answer(&reply, &request, draining));
            }
            // The proxy does not forward WebSockets, and the upstream might redirect a plain request.
            None if upgrade::is_requested(request.headers()) => {
                let error = "no route takes WebSockets at this path";
                return boxed(json_error(StatusCode::NOT_FOUND, error, "no_route"));
            }
            Some(Found::Reply(_)) | None => {}
        }
        if phase.over_ip_limit {
            return boxed(Rejection::connections_per_ip().to_response());
        }
        if handshake.is_token_endpoint(request.uri().path()) {
            return boxed(handshake.issue(request).await);
        }
        proxy.forward(request, address).await
    }

    /// Admits or rejects a WebSocket of `route`.
    async fn handshake(
        &self,
        phase: &HttpPhase,
        handshake: &Handshake,
        address: ClientAddress,
        (route, params): (&Arc<config::Route>, Params),
        request: &Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let upgrade = match upgrade::check(request) {
            Ok(upgrade) => upgrade,
            Err(response) => return response,
        };
        let attempt = HandshakeAttempt::new(request.headers(), address);
        let verdict = match self.ip_permit(phase, address.ip) {
            Ok(ip) => {
                let admitted = handshake.admit(Arc::clone(route), params, request, &attempt).await;
                match admitted {
                    // While the engine is away no client can join its channel.
                    Ok(_) if !self.services.broker.is_live() => Err(Rejection::engine()),
                    admitted => admitted.map(|admission| (admission, ip)),
                }
            }
            Err(rejection) => Err(rejection),
        };
        let decision = match &verdict {
            Ok((admission, _)) => Ok(admission.admitted()),
            Err(rejection) => Err(rejection),
        };
        attempt.finish(route.path.as_str(), decision);
        self.complete_upgrade(phase, address.ip, route, upgrade, verdict)
    }

    /// Answers a WebSocket of a route with a fixed reply.
    fn answer_fixed(
        &self,
        phase: &HttpPhase,
        address: ClientAddress,
        reply: &config::FixedReply,
        request: &Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let upgrade = match upgrade::check(request) {
            Ok(upgrade) => upgrade,
            Err(response) => return response,
        };
        let entered = self.ip_permit(phase, address.ip);
        let decision = match &entered {
            Ok(_) => Ok(Admitted::default()),
            Err(rejection) => Err(rejection),
        };
        HandshakeAttempt::new(request.headers(), address).finish(reply.path.as_str(), decision);
        let upgraded = match entered {
            Err(rejection) => Upgraded::Closed(rejection.event(), rejection.reason, None),
            Ok(ip) if self.services.shutdown.is_draining() => {
                Upgraded::Closed(None, CloseReason::Restarting, ip)
            }
            Ok(ip) => Upgraded::Closed(Some(reply.reply.to_string()), CloseReason::Normal, ip),
        };
        *phase.upgraded.borrow_mut() = Some(upgraded);
        upgrade.accept_to_close()
    }

    /// Acquires the address permit of a client behind a trusted proxy. Any other client got its permit when its
    /// connection was accepted.
    fn ip_permit(&self, phase: &HttpPhase, ip: IpAddr) -> Result<Option<IpPermit>, Rejection> {
        let permit = if phase.has_ip_permit.get() {
            return Ok(None);
        } else if phase.over_ip_limit {
            None
        } else {
            self.acquire_ip_permit(ip)
        };
        permit.map(Some).ok_or_else(|| {
            telemetry::messages::local_limit_refused(LocalLimit::ConnectionsPerIp);
            Rejection::connections_per_ip()
        })
    }

    /// Returns the 101 response, or the rejection in the form that the route configures (`reject`).
    fn complete_upgrade(
        &self,
        phase: &HttpPhase,
        address: IpAddr,
        route: &config::Route,
        upgrade: upgrade::UpgradeRequest,
        verdict: Result<(Admission, Option<IpPermit>), Rejection>,
    ) -> Response<Full<Bytes>> {
        match verdict {
            Ok((mut admission, ip)) => {
                let lease = self.hold_lease(&mut admission);
                let response = upgrade.accept(admission.subprotocol.as_deref());
                *phase.upgraded.borrow_mut() =
                    Some(Upgraded::Admitted(Box::new(admission), address, ip, lease));
                response
            }
            Err(rejection) if route.reject == config::Reject::Http => rejection.to_response(),
            Err(rejection) => {
                let response = upgrade.accept_to_close();
                let event = rejection.event();
                let event = match route.timestamps {
                    true => event.map(|event| with_timestamp(&event, &clock::now_rfc3339())),
                    false => event,
                };
                *phase.upgraded.borrow_mut() =
                    Some(Upgraded::Refused(event, rejection.reason, address));
                response
            }
        }
    }

    /// Adds the lease to this thread's lease set, which releases it when the connection ends.
    fn hold_lease(&self, admission: &mut Admission) -> Option<Lease> {
        let claim = admission.lease.take()?;
        let Admission { route, identity, connection_id, .. } = admission;
        let user = identity.key();
        let key = LeaseKey { kind: LeaseKind::Connection, route: route.path.as_str(), user: &user };
        let lease = self.services.leases.hold(key, (*connection_id).into());
        claim.transfer();
        Some(lease)
    }

    fn build_client(&self, admission: Admission, address: IpAddr) -> Client {
        Client {
            upstream: UpstreamMode::of(&self.services.config(), &admission.route),
            route: RefCell::new(admission.route),
            params: admission.params,
            channel: admission.channel,
            user_id: admission.identity.user_id.clone(),
            identity: RefCell::new(admission.identity),
            request_id: admission.request_id,
            connection_id: admission.connection_id,
            address,
            origin: admission.origin,
            trace: admission.trace,
        }
    }
}

fn boxed(response: Response<Full<Bytes>>) -> Response<ProxyBody> {
    response.map(|body| body.map_err(|never| match never {}).boxed())
}
