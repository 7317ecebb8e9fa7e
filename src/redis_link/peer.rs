//! Finds out what answers at the address of a URL, when a failed attempt to connect does not say it: a broken or
//! silent connection looks the same whether TLS meets a plain port, a plain connection meets TLS, or Redis has no
//! room for another client.

use std::time::Duration;

use redis::{Client, ConnectionAddr, ErrorKind, RedisError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::reason::one_line;

/// How long each step may take.
const STEP: Duration = Duration::from_millis(500);

/// How long a server that speaks first is given. Redis does so only to refuse a client.
const GREETING: Duration = Duration::from_millis(100);

/// The most bytes that are read of an answer.
const ANSWER_BYTES: usize = 256;

/// A TLS 1.2 ClientHello without extensions. Every TLS server answers it, at least with an alert.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x00\x31\x01\x00\x00\x2d\x03\x03\
    0123456789abcdef0123456789abcdef\x00\x00\x06\xc0\x2f\xc0\x30\x00\x9c\x01\x00";

/// What was found at an address.
#[derive(Debug, PartialEq, Eq)]
enum Peer {
    /// It speaks Redis' protocol without TLS.
    Plain,
    /// It refuses clients before they have sent anything, with this line.
    Refusing(String),
    Tls,
    Http,
}

/// Explains the failed attempt to connect with `client`; `None` if `error` says enough, or nothing was found out.
/// No credentials are sent.
pub(super) async fn explain(client: &Client, error: Option<&RedisError>) -> Option<String> {
    if !error.is_none_or(is_ambiguous) {
        return None;
    }
    let (host, port, is_tls) = match client.get_connection_info().addr() {
        ConnectionAddr::Tcp(host, port) => (host, *port, false),
        ConnectionAddr::TcpTls { host, port, .. } => (host, *port, true),
        _ => return None,
    };
    let peer = find(host, port).await?;
    match (peer, is_tls) {
        (Peer::Refusing(line), _) => Some(format!("the server refuses connections: {line}")),
        (Peer::Plain, true) => {
            Some("the server does not speak TLS on this port: use redis://".to_owned())
        }
        (Peer::Tls, false) => Some("the server expects TLS on this port: use rediss://".to_owned()),
        (Peer::Http, _) => Some("an HTTP server answers on this port, not Redis".to_owned()),
        (Peer::Plain, false) | (Peer::Tls, true) => None,
    }
}

/// Whether `error` could have several causes. Refused connections, unknown names, certificates and answers of Redis
/// are clear.
fn is_ambiguous(error: &RedisError) -> bool {
    let text = error.to_string();
    let is_clear = error.code().is_some()
        || error.is_connection_refusal()
        || ["ertificate", "lookup address", "No route", "unreachable"]
            .iter()
            .any(|clear| text.contains(clear));
    !is_clear && error.kind() != ErrorKind::AuthenticationFailed
}

async fn find(host: &str, port: u16) -> Option<Peer> {
    let plain = exchange(host, port, b"PING\r\n").await?;
    if let Some(peer) = read(&plain) {
        return Some(peer);
    }
    match exchange(host, port, CLIENT_HELLO).await?.first() {
        // A handshake message or an alert.
        Some(0x15 | 0x16) => Some(Peer::Tls),
        _ => None,
    }
}

fn read(answer: &[u8]) -> Option<Peer> {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().unwrap_or_default();
    match answer.first()? {
        b'-' if line.contains("max number of clients") || line.starts_with("-DENIED") => {
            Some(Peer::Refusing(one_line(&line[1..])))
        }
        b'+' | b'-' => Some(Peer::Plain),
        0x15 | 0x16 => Some(Peer::Tls),
        b'<' => Some(Peer::Http),
        _ => line.starts_with("HTTP/").then_some(Peer::Http),
    }
}

/// Sends `request` over a new connection and returns the beginning of the answer, which may be empty. `None` if there
/// is no connection.
async fn exchange(host: &str, port: u16, request: &[u8]) -> Option<Vec<u8>> {
    let mut stream = timeout(STEP, TcpStream::connect((host, port))).await.ok()?.ok()?;
    let mut answer = vec![0; ANSWER_BYTES];
    if let Ok(Ok(count @ 1..)) = timeout(GREETING, stream.read(&mut answer)).await {
        answer.truncate(count);
        return Some(answer);
    }
    let written = timeout(STEP, stream.write_all(request)).await;
    let count = match written {
        Ok(Ok(())) => {
            timeout(STEP, stream.read(&mut answer)).await.map_or(0, |read| read.unwrap_or(0))
        }
        _ => 0,
    };
    answer.truncate(count);
    Some(answer)
}

#[cfg(test)]
mod tests;
