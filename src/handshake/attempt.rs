//! The record of one handshake: its identifiers, its span and its decision.

use std::net::IpAddr;
use std::time::Instant;

use hyper::HeaderMap;

use super::Rejection;
use crate::protocol::{ClientAddress, ConnectionId, RequestId, TraceContext};
use crate::telemetry;
use crate::telemetry::connections::{Admitted, Attempt, HandshakeOutcome};
use crate::telemetry::credentials::{CredentialCause, RejectionCause};
use crate::telemetry::spans::{self, Kind, Span, SpanStatus};

/// The identifiers of a handshake, which logs and traces use whether it is admitted or not.
#[derive(Debug)]
pub struct HandshakeAttempt {
    /// The id that the connection gets if it is admitted.
    pub(super) connection_id: ConnectionId,
    pub(super) request_id: RequestId,
    /// The context of `span`, or of the trusted proxy if there is no span.
    pub(super) trace: TraceContext,
    span: Span,
    pub(super) ip: IpAddr,
    pub(super) address: ClientAddress,
    started: Instant,
}

impl HandshakeAttempt {
    /// Starts an attempt with the headers of its request. Only a trusted proxy may set the request id and the trace:
    /// a stranger could have all of its requests traced, under the id of somebody else's.
    pub fn new(headers: &HeaderMap, address: ClientAddress) -> Self {
        let header =
            |name: &str| headers.get(name).filter(|_| address.through_proxy)?.to_str().ok();
        let trace = spans::sample(header("traceparent").and_then(TraceContext::parse));
        let given = header("x-request-id");
        let request_id = RequestId::new(given, &trace);
        let span = Span::start(&trace, Kind::Server, || "handshake".into());
        let trace = span.context().unwrap_or(trace);
        let (connection_id, started) = (ConnectionId::random(), Instant::now());
        let ip = address.ip;
        Self { connection_id, request_id, trace, span, ip, address, started }
    }

    /// Starts an attempt of a request that is no handshake, and has no span.
    pub fn of_request(headers: &HeaderMap, address: ClientAddress) -> Self {
        let header =
            |name: &str| headers.get(name).filter(|_| address.through_proxy)?.to_str().ok();
        let trace = spans::sample(header("traceparent").and_then(TraceContext::parse));
        let request_id = RequestId::new(header("x-request-id"), &trace);
        let (connection_id, started) = (ConnectionId::random(), Instant::now());
        let ip = address.ip;
        Self { connection_id, request_id, trace, span: Span::default(), ip, address, started }
    }

    /// Logs and counts the refusal of a request that is no handshake.
    pub fn refuse_request(&self, route: &str, rejection: &Rejection) {
        let Self { connection_id, request_id, ip, .. } = self;
        let attempt = Attempt { route, connection: *connection_id, request: request_id, ip: *ip };
        telemetry::connections::request_refused(attempt, rejection.cause, rejection.log_details());
    }

    /// Logs, counts and traces the decision.
    pub fn finish(mut self, route: &str, decision: Result<Admitted<'_>, &Rejection>) {
        let details = decision.err().map(Rejection::log_details).unwrap_or_default();
        let decision = decision.map_err(|rejection| rejection.cause);
        let Self { connection_id, request_id, ip, .. } = &self;
        let attempt = Attempt { route, connection: *connection_id, request: request_id, ip: *ip };
        telemetry::connections::handshake_finished(
            attempt,
            decision,
            details,
            self.started.elapsed(),
        );
        if self.span.is_recording() {
            self.span.set("tidegate.connection", self.connection_id.to_string());
            self.span.set("tidegate.request", self.request_id.to_string());
            self.span.set("http.route", route.to_owned());
            self.span.set("client.address", self.ip.to_string());
            let status = match decision {
                Ok(_) => SpanStatus::Ok,
                Err(
                    RejectionCause::AuthorizeUnavailable
                    | RejectionCause::Credential(CredentialCause::Engine),
                ) => SpanStatus::Error,
                Err(_) => SpanStatus::Refused,
            };
            let outcome =
                decision.err().map_or(HandshakeOutcome::Admitted, HandshakeOutcome::Rejected);
            self.span.set_outcome(outcome.label(), status);
        }
    }
}
