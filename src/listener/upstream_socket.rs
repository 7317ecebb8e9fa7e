//! The socket of an upstream that is opened for a client before the client gets its 101, on routes with
//! `protocol = "pass"`.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, header};

use super::http::HttpFrontend;
use super::http_phase::HttpPhase;
use crate::handshake::{Admission, Handshake, Rejection};
use crate::protocol::ClientAddress;
use crate::telemetry::spans::SpanStatus;
use crate::telemetry::upstreams::RequestOutcome;
use crate::upstream::{PassRefusal, PassedUpstream, SocketRequest};

/// The longest wait that an upstream can ask a client for, in seconds.
const MAX_RETRY_SECONDS: u64 = 24 * 60 * 60;

/// Why a client gets no WebSocket.
pub(super) struct Refused {
    pub rejection: Rejection,
    /// The upstream's own answer, if it gave one.
    pub answer: Option<Box<Response<Full<Bytes>>>>,
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, answer: None }
    }
}

impl HttpFrontend {
    /// Opens the upstream's socket for a client that has passed every check of the gateway. Gives up if the client does.
    pub(super) async fn open_upstream(
        &self,
        phase: &HttpPhase,
        handshake: &Handshake,
        address: ClientAddress,
        request: &Request<Incoming>,
        admission: &Admission,
    ) -> Result<PassedUpstream, Refused> {
        let route = &admission.route;
        let upstream = route.upstream.as_deref().unwrap_or_default();
        let config = self.services.config();
        let mut span = config.upstreams.span(upstream, &admission.trace);
        let trace = span.context().unwrap_or(admission.trace);
        let socket_request = SocketRequest {
            channel: admission.channel.as_ref(),
            params: &admission.params,
            user_id: admission.identity.user_id.as_ref(),
            username: admission.identity.username.as_deref(),
            sender: &admission.sender,
            connection_id: admission.connection_id,
            request_id: &admission.request_id,
            trace: &trace,
            max_message_bytes: route.max_message_bytes,
        };
        let client = handshake.for_upstream(route, request, address);
        let opened = tokio::select! {
            biased;
            () = phase.exchange.half_closed() => return Err(Rejection::gone().into()),
            opened = config.upstreams.pass(upstream, &socket_request, &client) => opened,
        };
        let (outcome, status) = match &opened {
            Ok(_) => (RequestOutcome::Taken, SpanStatus::Ok),
            Err(PassRefusal::Answered(_) | PassRefusal::UnfitForUrl) => {
                (RequestOutcome::Rejected, SpanStatus::Refused)
            }
            Err(PassRefusal::Busy) => (RequestOutcome::Full, SpanStatus::Refused),
            Err(PassRefusal::CircuitOpen) => (RequestOutcome::CircuitOpen, SpanStatus::Refused),
            Err(PassRefusal::TimedOut | PassRefusal::Unreachable) => {
                (RequestOutcome::Unavailable, SpanStatus::Error)
            }
        };
        span.set_outcome(outcome.label(), status);
        opened.map_err(Refused::from)
    }
}

impl From<PassRefusal> for Refused {
    fn from(refusal: PassRefusal) -> Self {
        match refusal {
            PassRefusal::Answered(answer) => {
                let retry_after = answer.headers().get(header::RETRY_AFTER);
                let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
                let seconds = seconds.map(|seconds: u64| seconds.min(MAX_RETRY_SECONDS));
                let rejection = Rejection::by_upstream(answer.status(), seconds);
                Self { rejection, answer: Some(answer) }
            }
            PassRefusal::Busy => Rejection::upstream_busy().into(),
            PassRefusal::CircuitOpen => Rejection::circuit_open().into(),
            PassRefusal::TimedOut => Rejection::gateway_timeout().into(),
            PassRefusal::Unreachable => Rejection::bad_gateway().into(),
            PassRefusal::UnfitForUrl => Rejection::channel().into(),
        }
    }
}
