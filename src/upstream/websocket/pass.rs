//! The opening handshake with an upstream in a client's name: with the client's path, query, headers and subprotocols, and
//! an answer that is the client's as well.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    self, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
};
use hyper::{Request, Response, StatusCode, Uri};
use tokio::time::{Instant, timeout_at};

use super::super::gate::{InFlightPermit, PendingRequest};
use super::super::http::{bad_answer, describe};
use super::super::{RelayError, SocketRequest, response};
use super::handshake;
use crate::config::HostHeader;
use crate::http_client::{HttpClient, UpgradedStream, error_chain};
use crate::protocol::{Template, UnfitForUrl, header_list, remove_hop_by_hop};
use crate::telemetry::upstreams::RequestOutcome;

/// The largest body of a refusal that the client gets. Of a larger one it gets the head only.
const MAX_REFUSAL_BYTES: usize = 1024 * 1024;

/// What a client asks of the upstream behind the gateway.
pub struct ClientHandshake {
    /// The path of its request, as it is.
    pub path: String,
    /// Its query without the gateway's own credentials; `None` = there is none.
    pub query: Option<String>,
    /// Its end-to-end headers without the gateway's own credentials. `Sec-WebSocket-Protocol` has what it offers to the
    /// upstream.
    pub headers: HeaderMap,
    pub host: HostHeader,
}

/// A socket of an upstream that was opened for a client.
pub struct PassedUpstream {
    pub stream: UpgradedStream,
    /// What else the upstream's response says to the client.
    pub headers: HeaderMap,
    /// The subprotocol that the upstream has selected.
    pub subprotocol: Option<HeaderValue>,
    /// Counts the socket for as long as it is open.
    pub in_flight: InFlightPermit,
}

/// Why an upstream did not open a socket for a client.
#[derive(Debug)]
pub enum PassRefusal {
    /// It answered with this response instead.
    Answered(Box<Response<Full<Bytes>>>),
    /// `max_in_flight` or the client's share of it is reached.
    Busy,
    /// The circuit is open.
    CircuitOpen,
    /// No answer in time.
    TimedOut,
    /// It cannot be reached, or its answer is not valid.
    Unreachable,
    /// A value has no place in the URL.
    UnfitForUrl,
}

/// Connects and performs the opening handshake until `deadline`.
pub(in crate::upstream) async fn pass(
    client: &HttpClient,
    urls: &[Template],
    request: &SocketRequest<'_>,
    handshake: &ClientHandshake,
    mut pending: PendingRequest<'_>,
    deadline: Instant,
) -> Result<PassedUpstream, PassRefusal> {
    let key = fastwebsockets::handshake::generate_key();
    let response = loop {
        let upgrade = match upgrade_request(&urls[pending.replica()], request, handshake, &key) {
            Ok(upgrade) => upgrade,
            Err(reason) => {
                pending.refuse(RelayError::rejected(reason.clone()), &reason);
                return Err(PassRefusal::UnfitForUrl);
            }
        };
        match timeout_at(deadline, client.request(upgrade)).await {
            Err(_) => {
                pending.refuse(RelayError::TimedOut, super::super::NO_RESPONSE);
                return Err(PassRefusal::TimedOut);
            }
            Ok(Err(error)) if error.is_connect() => {
                let reason = error_chain(&error);
                // Nothing was sent, so that another replica can be asked.
                if pending.try_another(&RelayError::Unreachable, &reason) {
                    continue;
                }
                pending.refuse(RelayError::Unreachable, &reason);
                return Err(PassRefusal::Unreachable);
            }
            Ok(Err(error)) => {
                let outcome = bad_answer(&error).unwrap_or(RelayError::Unavailable);
                pending.refuse(outcome, &describe(&error));
                return Err(PassRefusal::Unreachable);
            }
            Ok(Ok(response)) => break response,
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        pending.refuse(refusal(response.status()), &response::describe_status(&response));
        return Err(PassRefusal::Answered(Box::new(read_refusal(response, deadline).await)));
    }
    let subprotocol = match check(&response, &key, &handshake.headers) {
        Ok(subprotocol) => subprotocol,
        Err(mistake) => {
            let reason = format!("its response is not a valid WebSocket handshake: {mistake}");
            pending.refuse(RelayError::Malformed, &reason);
            return Err(PassRefusal::Unreachable);
        }
    };
    let mut headers = response.headers().clone();
    match timeout_at(deadline, UpgradedStream::of(response)).await {
        Ok(Ok(stream)) => {
            clean_response(&mut headers);
            for name in [SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION] {
                headers.remove(name);
            }
            let in_flight = pending.accept(RequestOutcome::Taken);
            Ok(PassedUpstream { stream, headers, subprotocol, in_flight })
        }
        Ok(Err(error)) => {
            pending.refuse(RelayError::Unavailable, &error_chain(&error));
            Err(PassRefusal::Unreachable)
        }
        Err(_) => {
            pending.refuse(RelayError::TimedOut, super::super::NO_RESPONSE);
            Err(PassRefusal::TimedOut)
        }
    }
}

fn upgrade_request(
    template: &Template,
    request: &SocketRequest<'_>,
    handshake: &ClientHandshake,
    key: &str,
) -> Result<Request<Full<Bytes>>, String> {
    let url = url(template, request, handshake).map_err(|unfit| unfit.to_string())?;
    let mut upgrade = handshake::builder(url, request, key)
        .body(Full::default())
        .map_err(|error| format!("invalid request: {error}"))?;
    let headers = upgrade.headers_mut();
    for name in handshake.headers.keys() {
        // Those of the gateway stay.
        if headers.contains_key(name) {
            continue;
        }
        for value in handshake.headers.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    if handshake.host == HostHeader::Upstream {
        // The HTTP client writes the host and port of the URL.
        headers.remove(HOST);
    }
    Ok(upgrade)
}

/// Returns the URL: with the client's path if the configured one has none, and with the client's query.
pub(in crate::upstream) fn url(
    template: &Template,
    request: &SocketRequest<'_>,
    handshake: &ClientHandshake,
) -> Result<String, UnfitForUrl> {
    let mut url = handshake::url(template, request)?;
    let authority_at = url.find("://").map_or(0, |at| at + 3);
    if !url[authority_at..].contains(['/', '?']) {
        url.push_str(&handshake.path);
    }
    if let Some(query) = &handshake.query {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(query);
    }
    Ok(url)
}

/// Returns the URL of a client's request that is no handshake, and the headers that the gateway sets on it. `None` = a
/// value has no place in the URL.
pub(in crate::upstream) fn request_head(
    template: &Template,
    request: &SocketRequest<'_>,
    handshake: &ClientHandshake,
) -> Option<(Uri, HeaderMap)> {
    let url = url(template, request, handshake).ok()?;
    let (mut head, ()) = handshake::builder(url, request, "").body(()).ok()?.into_parts();
    let of_socket = [
        header::CONNECTION,
        header::UPGRADE,
        SEC_WEBSOCKET_VERSION,
        SEC_WEBSOCKET_KEY,
        // A request has no connection of the gateway.
        handshake::X_CONNECTION_ID,
    ];
    for name in of_socket {
        head.headers.remove(name);
    }
    Some((head.uri, head.headers))
}

/// What a status says about the upstream. Its refusals are the client's business.
fn refusal(status: StatusCode) -> RelayError {
    if status == StatusCode::TOO_MANY_REQUESTS {
        RelayError::Busy
    } else if status.is_client_error() || status.is_redirection() {
        RelayError::rejected("the service refused the connection")
    } else if response::is_retryable(status) {
        RelayError::Unavailable
    } else {
        RelayError::Failed
    }
}

/// Reads a refusal as the client gets it.
async fn read_refusal(response: Response<Incoming>, deadline: Instant) -> Response<Full<Bytes>> {
    let (head, body) = response.into_parts();
    let body = timeout_at(deadline, Limited::new(body, MAX_REFUSAL_BYTES).collect()).await;
    let body = match body {
        Ok(Ok(body)) => Some(body.to_bytes()),
        // Too large, broken or slow.
        Ok(Err(_)) | Err(_) => None,
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    clean_response(response.headers_mut());
    match body {
        Some(body) => *response.body_mut() = Full::new(body),
        None => {
            for name in [header::CONTENT_ENCODING, header::CONTENT_TYPE, header::ETAG] {
                response.headers_mut().remove(name);
            }
        }
    }
    response
}

/// Removes what is about the connection to the upstream.
fn clean_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in [header::CONTENT_LENGTH, header::TRAILER, header::TE, header::CONNECTION] {
        headers.remove(name);
    }
}

/// Checks a server's handshake (RFC 6455 section 4.1), and returns the subprotocol that it selects. `Err` names the mistake.
fn check<B>(
    response: &Response<B>,
    key: &str,
    offered: &HeaderMap,
) -> Result<Option<HeaderValue>, &'static str> {
    handshake::check_accept(response, key)?;
    let headers = response.headers();
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err("it selects an extension that was not offered");
    }
    let mut selected = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    match (selected.next(), selected.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => {
            let is_offered = header_list(offered, &SEC_WEBSOCKET_PROTOCOL)
                .any(|offered| offered.as_bytes() == one.as_bytes().trim_ascii());
            match is_offered {
                true => Ok(Some(one.clone())),
                false => Err("it selects a subprotocol that was not offered"),
            }
        }
        (Some(_), Some(_)) => Err("it selects several subprotocols"),
    }
}

/// The headers of a handshake that are for one connection only.
pub fn is_of_handshake(name: &HeaderName) -> bool {
    [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_ACCEPT]
        .contains(name)
}
