//! A client for the admin port of a gateway that runs: one POST, one JSON answer, one deadline.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::config::Secret;

/// From connecting to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Answers of the admin port are small; a longer one does not come from a gateway.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Asks for a connection token (`POST /v1/tokens`). `Err` says what went wrong, for a person.
pub async fn mint(admin: SocketAddr, api_key: &Secret, request: &Value) -> Result<String, String> {
    let answer = post(admin, api_key, "/v1/tokens", request).await?;
    match answer.get("connection_token").and_then(Value::as_str) {
        Some(token) => Ok(token.to_owned()),
        None => Err(format!("{admin} answered without a connection_token")),
    }
}

/// POSTs `body` to `path` of the admin port and reads the JSON answer.
async fn post(
    admin: SocketAddr,
    api_key: &Secret,
    path: &str,
    body: &Value,
) -> Result<Value, String> {
    let address = reachable(admin);
    match tokio::time::timeout(DEADLINE, exchange(address, api_key, path, body)).await {
        Ok(Ok((status, answer))) if status.is_success() => {
            serde_json::from_slice(&answer).map_err(|_| format!("{address}{path}: no JSON answer"))
        }
        Ok(Ok((status, answer))) => Err(format!("{address}{path}: {}", refusal(status, &answer))),
        Ok(Err(error)) => Err(format!("{address}: {error}; is the gateway running there?")),
        Err(_) => Err(format!("{address}: no answer within {} s", DEADLINE.as_secs())),
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    address: SocketAddr,
    api_key: &Secret,
    path: &str,
    body: &Value,
) -> Result<(StatusCode, Bytes), BoxError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(path)
        .header("host", address.to_string())
        .header("authorization", format!("Bearer {}", api_key.expose()))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
        Ok((head.status, body))
    };
    tokio::pin!(answer);
    // The connection is driven by hand, so that nothing outlives the deadline.
    tokio::select! {
        answer = &mut answer => answer,
        driven = connection => {
            driven?;
            answer.await
        }
    }
}

/// What `{"error":{"code":…,"message":…}}` says, or the status alone.
fn refusal(status: StatusCode, answer: &[u8]) -> String {
    let said = serde_json::from_slice::<Value>(answer).ok();
    match said.as_ref().and_then(|said| said.pointer("/error/message")).and_then(Value::as_str) {
        Some(message) => format!("{status}: {message}"),
        None => status.to_string(),
    }
}

/// Where a socket that listens on every address is reached from this machine.
pub fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// What the client makes of an answer, and the request that it sent. `None` = the server hangs up.
    async fn asked(answer: Option<(&str, &str)>) -> (Result<String, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = answer.map_or(String::new(), |(status, body)| {
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        });
        let server = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        };
        let key = Secret::new("k-1");
        let body = serde_json::json!({"user_id": 1});
        tokio::join!(mint(address, &key, &body), server)
    }

    #[tokio::test]
    async fn a_token_is_asked_for_with_the_key() {
        let body = r#"{"connection_token":"abc","expires_in":60}"#;
        let (token, request) = asked(Some(("200 OK", body))).await;
        assert_eq!(token.as_deref(), Ok("abc"));
        assert!(request.starts_with("POST /v1/tokens HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: Bearer k-1\r\n"), "{request}");
        assert!(request.ends_with("{\"user_id\":1}"), "{request}");
    }

    #[tokio::test]
    async fn refusals_say_why() {
        let wrong_key = r#"{"error":{"code":"unauthorized","message":"wrong key"}}"#;
        for (answer, why) in [
            (Some(("401 Unauthorized", wrong_key)), "401 Unauthorized: wrong key"),
            (Some(("502 Bad Gateway", "")), "502 Bad Gateway"),
            (Some(("200 OK", "hi")), "no JSON"),
            (Some(("200 OK", "{}")), "without a connection_token"),
            (None, "is the gateway running there?"),
        ] {
            let (token, _) = asked(answer).await;
            let error = token.unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("k-1"), "{error}");
        }
    }

    #[test]
    fn every_address_is_reached_on_loopback() {
        for (listening, reached) in [
            ("0.0.0.0:9000", "127.0.0.1:9000"),
            ("[::]:9000", "[::1]:9000"),
            ("192.0.2.1:9000", "192.0.2.1:9000"),
        ] {
            assert_eq!(reachable(listening.parse().unwrap()), reached.parse().unwrap());
        }
    }
}
