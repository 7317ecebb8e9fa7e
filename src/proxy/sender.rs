//! Sends requests to upstreams over HTTP: to another replica if no connection could be made, and once more if they met a
//! connection that was being closed.

use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};

use super::failure::{self, Failed};
use super::framing;
use super::interim::InterimResponses;
use super::upload::{Progress, Upload};
use crate::config::MinPace;
use crate::http_client::{self, HttpClient, RequestError};
use crate::protocol::{ClientAddress, add_via, count_forward, remove_hop_by_hop, set_forwarded};
use crate::telemetry;
use crate::telemetry::proxy::ProxyFailure;
use crate::upstream::{PlainRequest, ReplicaLoad, RequestEnd};

/// Sends requests on connections of its own.
#[derive(Clone)]
pub(super) struct Sender {
    pub timeout: Duration,
    pub min_pace: MinPace,
    pub client: HttpClient<Upload>,
}

/// Where a request goes.
pub struct Destination<'a> {
    /// The replica that it goes to.
    pub at: PlainRequest<'a>,
    /// Its URL there.
    pub target: Uri,
    /// The URL at each replica, for when another one is tried; `None` = it has no place there.
    pub target_at: &'a (dyn Fn(usize) -> Option<Uri> + Sync),
    /// The headers that the gateway sets.
    pub headers: HeaderMap,
    /// Whether `Host` becomes that of the URL.
    pub rewrites_host: bool,
}

/// The answer of an upstream.
pub(super) struct Answered {
    pub response: Response<Incoming>,
    /// Held until the answer was sent; `None` = there is one replica only.
    pub load: Option<ReplicaLoad>,
}

impl Sender {
    pub async fn forward(
        &self,
        request: Request<Incoming>,
        to: Destination<'_>,
        client: ClientAddress,
        interim: &InterimResponses,
    ) -> Result<Answered, ProxyFailure> {
        let (mut head, body) = request.into_parts();
        // The proxy opens no tunnels.
        if head.method == Method::CONNECT {
            return Err(ProxyFailure::BadTarget);
        }
        let Destination { mut at, target, target_at, headers, rewrites_host } = to;
        head.uri = target;
        let received = std::mem::replace(&mut head.version, Version::HTTP_11);
        remove_hop_by_hop(&mut head.headers);
        set_forwarded(&mut head.headers, client);
        add_via(&mut head.headers, received);
        count_forward(&head.method, &mut head.headers);
        head.headers.extend(headers);
        if rewrites_host {
            // The HTTP client writes that of the URL.
            head.headers.remove(HOST);
        }
        // An HTTP/1.0 client knows no interim responses.
        let interim = (received == Version::HTTP_11).then_some(interim);
        let may_repeat = body.is_end_stream() && head.method.is_idempotent();
        let (upload, progress) = Upload::new(body, self.min_pace);
        let pending = Pending { head, interim, may_repeat, progress: &progress };
        // A long upload does not mean that the upstream is slow: the timeout of the response head starts at the
        // upload's last progress.
        let sent = tokio::select! {
            sent = self.send(pending, upload, &mut at, target_at) => {
                sent.map_err(|error| match progress.client_fault() {
                    Some(fault) => failure::of_client(fault),
                    None => failure::of_upstream(&error),
                })
            }
            stalled = progress.stalled(self.timeout) => Err(failure::of_stall(stalled)),
        };
        match sent.and_then(check) {
            Ok(response) => Ok(Answered { response, load: at.finish(RequestEnd::Answered) }),
            Err(Failed { failure, end }) => {
                at.finish(end);
                Err(failure)
            }
        }
    }

    /// Sends a request until a replica has taken it.
    async fn send(
        &self,
        mut pending: Pending<'_>,
        mut upload: Upload,
        at: &mut PlainRequest<'_>,
        target_at: &(dyn Fn(usize) -> Option<Uri> + Sync),
    ) -> Result<Response<Incoming>, RequestError> {
        let mut met_closed = false;
        loop {
            let is_last = !pending.may_repeat && !at.may_move();
            let (request, again) = pending.build(upload, is_last);
            let sent = match met_closed {
                false => self.client.request(request).await,
                true => self.client.request_on_new_connection(request).await,
            };
            let (Err(error), Some(again)) = (&sent, again) else { return sent };
            if error.is_connect() {
                let Some(unsent) = again.unsent(self.min_pace) else { return sent };
                if !at.try_another(&http_client::error_chain(error)) {
                    return sent;
                }
                let Some(target) = target_at(at.replica()) else { return sent };
                (pending, upload, met_closed) = (again, unsent, false);
                pending.head.uri = target;
            } else if again.may_repeat && !met_closed && http_client::was_closed_while_idle(error) {
                telemetry::proxy::retried();
                (pending, upload, met_closed) = (again, Upload::empty(self.min_pace), true);
            } else {
                return sent;
            }
        }
    }
}

/// A request that waits to be sent.
struct Pending<'a> {
    head: Parts,
    /// Where its interim responses go.
    interim: Option<&'a InterimResponses>,
    /// Whether it may be sent twice.
    may_repeat: bool,
    progress: &'a Progress,
}

impl Pending<'_> {
    /// Builds the request, and keeps what is needed to send it again, unless it is the last attempt.
    fn build(self, upload: Upload, is_last: bool) -> (Request<Upload>, Option<Self>) {
        let Self { head, interim, may_repeat, progress } = self;
        let again = (!is_last).then(|| Self { head: head.clone(), interim, may_repeat, progress });
        let mut request = Request::from_parts(head, upload);
        if let Some(interim) = interim {
            interim.collect_from(&mut request);
        }
        (request, again)
    }

    /// The body, if none of it was sent.
    fn unsent(&self, min_pace: MinPace) -> Option<Upload> {
        match self.may_repeat {
            true => Some(Upload::empty(min_pace)),
            false => self.progress.take_unsent(min_pace),
        }
    }
}

/// Checks an answer, and makes it one for the client's connection.
fn check(mut response: Response<Incoming>) -> Result<Response<Incoming>, Failed> {
    // `Upgrade` was removed from the request, and neither side is ready to speak another protocol.
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failed { failure: ProxyFailure::Switched, end: RequestEnd::Answered });
    }
    // The connection to the client is HTTP/1.1, whatever version the upstream answered with.
    *response.version_mut() = Version::HTTP_11;
    framing::unify(&mut response).map_err(failure::of_framing)?;
    remove_hop_by_hop(response.headers_mut());
    Ok(response)
}
