//! The server API of a gateway that runs, as this program's own commands call it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::config::Secret;

/// From the connect to the end of the answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// No answer of the server API that is read here is longer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The admin port of a running gateway, and the key that opens it.
pub struct ServerApi<'a> {
    address: SocketAddr,
    key: &'a Secret,
}

impl<'a> ServerApi<'a> {
    /// `listen` is what the gateway listens on; a wildcard address is reached over loopback.
    pub fn new(listen: SocketAddr, key: &'a Secret) -> Self {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self { address: SocketAddr::new(ip, listen.port()), key }
    }

    /// `POST /v1/tokens`: a new connection token. Blocks for at most five seconds.
    pub fn mint(&self, request: &Value) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Minted {
            connection_token: String,
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("runtime: {error}"))?;
        let post = async { tokio::time::timeout(DEADLINE, self.post("/v1/tokens", request)).await };
        let (status, answer) = runtime
            .block_on(post)
            .unwrap_or_else(|_| Err(format!("no answer within {} s", DEADLINE.as_secs())))
            .map_err(|why| format!("the admin port {}: {why}", self.address))?;
        if status != StatusCode::OK && status != StatusCode::CREATED {
            return Err(format!("the admin port {}: {}", self.address, refusal(status, &answer)));
        }
        serde_json::from_slice::<Minted>(&answer)
            .map(|minted| minted.connection_token)
            .map_err(|_| format!("{} answered without a connection token", self.address))
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(StatusCode, Bytes), String> {
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|error| format!("{error}; is the gateway running?"))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", self.key.expose()))
            .map_err(|_| "the first of admin.api_keys cannot stand in a header")?;
        bearer.set_sensitive(true);
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(text)?;
        // The runtime that this runs on ends with the call, and the task with it.
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(text)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        Ok((status, body.map_err(text)?.to_bytes()))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What the server API said, where it said anything.
fn refusal(status: StatusCode, answer: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refused {
        error: Reason,
    }
    #[derive(Deserialize)]
    struct Reason {
        message: String,
    }
    match serde_json::from_slice::<Refused>(answer) {
        Ok(refused) => format!("{} ({})", refused.error.message, status.as_u16()),
        Err(_) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    /// A server that reads one request and gives one answer.
    fn answering(answer: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"{\"user_id\":1}") {
                let mut part = [0; 1024];
                let read = stream.read(&mut part).unwrap();
                assert_ne!(read, 0);
                request.extend_from_slice(&part[..read]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        (address, server)
    }

    #[test]
    fn a_token_is_minted_with_the_key() {
        let (address, server) = answering(
            "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\n{\"connection_token\":\"abc\",\"expires_in\":60}",
        );
        let key = Secret::new("k-1");
        let minted = ServerApi::new(address, &key).mint(&serde_json::json!({"user_id": 1}));
        assert_eq!(minted.as_deref(), Ok("abc"));
        let request = server.join().unwrap();
        assert!(request.starts_with("POST /v1/tokens HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: Bearer k-1\r\n"), "{request}");
    }

    #[test]
    fn a_refusal_is_told() {
        for (answer, told) in [
            (
                "HTTP/1.1 403 Forbidden\r\ncontent-length: 49\r\n\r\n{\"error\":{\"code\":\"forbidden\",\"message\":\"no key\"}}",
                "no key (403)",
            ),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "404 Not Found"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "without a connection token"),
            ("garbage\r\n\r\n", "the admin port"),
        ] {
            let (address, server) = answering(answer);
            let key = Secret::new("k");
            let refused =
                ServerApi::new(address, &key).mint(&serde_json::json!({"user_id": 1})).unwrap_err();
            assert!(refused.contains(told), "{refused}");
            server.join().unwrap();
        }
    }

    #[test]
    fn a_gateway_that_does_not_run_is_named() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let key = Secret::new("k");
        let refused = ServerApi::new(free, &key).mint(&serde_json::json!({})).unwrap_err();
        assert!(refused.contains(&free.to_string()) && refused.contains("running"), "{refused}");
    }

    #[test]
    fn a_wildcard_is_reached_over_loopback() {
        let key = Secret::new("k");
        for (listen, reached) in [
            ("0.0.0.0:9000", "127.0.0.1:9000"),
            ("[::]:9000", "[::1]:9000"),
            ("10.0.0.1:9000", "10.0.0.1:9000"),
        ] {
            let api = ServerApi::new(listen.parse().unwrap(), &key);
            assert_eq!(api.address.to_string(), reached);
        }
    }
}
