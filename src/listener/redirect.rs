//! The port for plain HTTP beside one with TLS: every request for a name of the certificates is redirected to https.
//!
//! Invariant: nobody is redirected to a host that no certificate is for. A request has one answer, a head of bounded size
//! and a time limit, and a connection has one request.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::RuntimeConfig;
use crate::protocol::ClientNetwork;
use crate::shares::Shares;
use crate::socket::{is_failed_connection, linger_and_close};
use crate::telemetry;
use crate::telemetry::tls::{RedirectOutcome, redirected};
use crate::tls::ServerCertificates;

/// The most open connections, and of them those of one client address.
const MAX_CONNECTIONS: usize = 256;
const MAX_OF_CLIENT: usize = 64;

/// From accept to the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEAD_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;

/// How long, and for how many bytes, a client is read from that is still sending a request which has its answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// The pause after an accept that failed, for example because no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Redirects until the process ends. Must run within a `LocalSet`.
pub async fn redirect_all(
    listener: std::net::TcpListener,
    runtime: watch::Receiver<Arc<RuntimeConfig>>,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Shares::new(MAX_CONNECTIONS, MAX_OF_CLIENT);
    loop {
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_failed_connection(&error) => continue,
            Err(error) => {
                telemetry::connections::accept_failed(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let current = Arc::clone(&runtime.borrow());
        let prefix = current.config.limits.ipv6_prefix;
        let client = ClientNetwork::of(peer.ip().to_canonical(), prefix);
        let Ok(place) = places.try_acquire(&client) else {
            redirected(RedirectOutcome::TooMany);
            continue;
        };
        tokio::task::spawn_local(async move {
            let _place = place;
            serve(tcp, &current).await;
        });
    }
}

async fn serve(mut tcp: TcpStream, current: &RuntimeConfig) {
    let Some(tls) = &current.config.server.tls else { return };
    let port = tls.redirect.map_or(443, |redirect| redirect.port);
    let answering = async {
        let head = read_head(&mut tcp).await?;
        let answer = answer(&head, &tls.certificates, port);
        let (outcome, response) = match &answer {
            Ok(location) => (RedirectOutcome::Redirected, redirect(location)),
            Err(Refusal::Malformed) => {
                (RedirectOutcome::Malformed, refuse("400 Bad Request", "the request is malformed"))
            }
            Err(Refusal::UnknownHost) => {
                let error = "no certificate is for this host";
                (RedirectOutcome::UnknownHost, refuse("421 Misdirected Request", error))
            }
        };
        redirected(outcome);
        tcp.write_all(response.as_bytes()).await.ok()
    };
    match tokio::time::timeout(TIMEOUT, answering).await {
        Ok(Some(())) => linger_and_close(tcp, LINGER_TIMEOUT, LINGER_BYTES).await,
        // The client has closed the connection.
        Ok(None) => {}
        Err(_) => redirected(RedirectOutcome::Timeout),
    }
}

/// Reads the head of a request, or what cannot become one. `None` if the client leaves.
async fn read_head(tcp: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let from = head.len().saturating_sub(3);
        if tcp.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
        let is_complete = head[from..].windows(4).any(|bytes| bytes == b"\r\n\r\n");
        if is_complete || head.len() > MAX_HEAD_BYTES {
            return Some(head);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Malformed,
    UnknownHost,
}

/// Returns the URL that a request is redirected to.
fn answer(head: &[u8], certificates: &ServerCertificates, port: u16) -> Result<String, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(Refusal::Malformed),
    }
    let target = request.path.ok_or(Refusal::Malformed)?;
    let mut hosts =
        request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => std::str::from_utf8(host.value).map_err(|_| Refusal::Malformed)?,
        _ => return Err(Refusal::Malformed),
    };
    // A request to a proxy has its host in the target, which counts (RFC 9112 section 3.2.2).
    let (host, path) = match target.strip_prefix("http://") {
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            rest.split_at(end)
        }
        None => (host, target),
    };
    let path = match path {
        "" => "/".to_owned(),
        path if path.starts_with('?') => format!("/{path}"),
        path if path.starts_with('/') => path.to_owned(),
        _ => return Err(Refusal::Malformed),
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) => return Err(Refusal::Malformed),
        None => host,
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !name.bytes().all(is_name) || !certificates.are_for(name) {
        return Err(Refusal::UnknownHost);
    }
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    Ok(format!("https://{}{port}{path}", name.to_ascii_lowercase()))
}

fn redirect(location: &str) -> String {
    format!(
        "HTTP/1.1 308 Permanent Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n"
    )
}

fn refuse(status: &str, error: &str) -> String {
    let body = format!(r#"{{"error":"{error}"}}"#);
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests;
