//! The opening handshake with a WebSocket server (RFC 6455 section 4.1).

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use hyper::http::request::Builder;
use hyper::{Request, Response, StatusCode};
use percent_encoding::utf8_percent_encode;

use super::super::http::{NOT_IN_HEADER, TRACEPARENT, X_REQUEST_ID, bad_answer, describe};
use super::super::message::user_in_template;
use super::super::{RelayError, SocketRequest, response};
use crate::http_client::{self, HttpClient, UpgradedStream, error_chain};
use crate::protocol::{
    ChannelName, Template, TemplateContext, UnfitForUrl, header_has_token, websocket_accept,
};

const X_CHANNEL: HeaderName = HeaderName::from_static("x-tidegate-channel");
pub(super) const X_CONNECTION_ID: HeaderName = HeaderName::from_static("x-tidegate-connection-id");
const X_USER_ID: HeaderName = HeaderName::from_static("x-tidegate-user-id");
const X_USERNAME: HeaderName = HeaderName::from_static("x-tidegate-username");

/// Why a socket was not opened: the error for the client, and the reason for the log.
type NotOpened = (RelayError, String);

/// Connects and performs the opening handshake (RFC 6455 section 4.1). The caller enforces the deadline.
pub(in crate::upstream) async fn connect(
    client: &HttpClient,
    template: &Template,
    request: &SocketRequest<'_>,
) -> Result<UpgradedStream, NotOpened> {
    let unavailable = |reason: String| (RelayError::Unavailable, reason);
    let key = fastwebsockets::handshake::generate_key();
    let upgrade = upgrade_request(template, request, &key).map_err(unavailable)?;
    let response = client.request(upgrade).await.map_err(|error| match error.is_connect() {
        true => (RelayError::Unreachable, error_chain(&error)),
        false => (bad_answer(&error).unwrap_or(RelayError::Unavailable), describe(&error)),
    })?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(&response));
    }
    if let Err(mistake) = check_handshake(&response, &key) {
        let reason = format!("its response is not a valid WebSocket handshake: {mistake}");
        return Err((RelayError::Malformed, reason));
    }
    UpgradedStream::of(response).await.map_err(|error| unavailable(error_chain(&error)))
}

fn upgrade_request(
    template: &Template,
    request: &SocketRequest<'_>,
    key: &str,
) -> Result<Request<Full<Bytes>>, String> {
    let url = url(template, request).map_err(|unfit| unfit.to_string())?;
    builder(url, request, key)
        .header(USER_AGENT, http_client::USER_AGENT)
        .body(Full::default())
        .map_err(|error| format!("invalid request: {error}"))
}

/// Begins a request with the headers that each handshake of the gateway has.
pub(super) fn builder(url: String, request: &SocketRequest<'_>, key: &str) -> Builder {
    let value = |text: &str| utf8_percent_encode(text, NOT_IN_HEADER).to_string();
    let mut upgrade = Request::get(url)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, key)
        .header(X_REQUEST_ID, request.request_id.to_string())
        .header(TRACEPARENT, request.trace.child())
        .header(X_CONNECTION_ID, request.connection_id.to_string());
    if let Some(channel) = request.channel {
        upgrade = upgrade.header(X_CHANNEL, value(channel.as_str()));
    }
    if let Some(user) = request.user_id {
        upgrade = upgrade.header(X_USER_ID, value(&user.to_string()));
    }
    if let Some(name) = request.username {
        upgrade = upgrade.header(X_USERNAME, value(name));
    }
    upgrade
}

/// Returns the URL of the handshake, whose scheme is that of the HTTP request.
pub(in crate::upstream) fn url(
    template: &Template,
    request: &SocketRequest<'_>,
) -> Result<String, UnfitForUrl> {
    let SocketRequest { params, channel, user_id, .. } = *request;
    let user_id = user_in_template(user_id);
    let url = template.fill_url(TemplateContext {
        params,
        user_id,
        channel: channel.map(ChannelName::as_str),
    })?;
    Ok(match url.strip_prefix("ws") {
        Some(rest) => format!("http{rest}"),
        None => url,
    })
}

fn refusal<B>(answer: &Response<B>) -> NotOpened {
    let status = answer.status();
    let error = if status == StatusCode::TOO_MANY_REQUESTS {
        RelayError::Busy
    } else if status.is_client_error() {
        RelayError::rejected("the service refused the connection")
    } else if response::is_retryable(status) {
        RelayError::Unavailable
    } else if status.is_redirection() {
        RelayError::Redirected
    } else {
        RelayError::Failed
    };
    (error, response::describe_status(answer))
}

/// Checks a server's handshake (RFC 6455 section 4.1). It must not select an extension or a subprotocol, because none
/// was offered. `Err` names the mistake.
fn check_handshake<B>(response: &Response<B>, key: &str) -> Result<(), &'static str> {
    check_accept(response, key)?;
    let headers = response.headers();
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err("it selects an extension that was not offered");
    }
    if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Err("it selects a subprotocol that was not offered");
    }
    Ok(())
}

/// Checks that a server has accepted the handshake with `key`. `Err` names the mistake.
pub(super) fn check_accept<B>(response: &Response<B>, key: &str) -> Result<(), &'static str> {
    let headers = response.headers();
    let expected = websocket_accept(key.as_bytes());
    let mut given = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
    let accept = given.next().filter(|_| given.next().is_none());
    if !header_has_token(headers, &UPGRADE, "websocket") {
        return Err("Upgrade is not websocket");
    }
    if !header_has_token(headers, &CONNECTION, "upgrade") {
        return Err("Connection is not Upgrade");
    }
    if accept.is_none_or(|given| given.as_bytes().trim_ascii() != expected.as_bytes()) {
        return Err("Sec-WebSocket-Accept does not belong to the key");
    }
    Ok(())
}
