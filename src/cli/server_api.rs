//! The admin port of a gateway that runs, as this program's own commands call it.

use std::error::Error as _;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Secret;
use crate::http_client::{self, HttpClient, error_chain};

/// From the connect to the end of the answer, or of its head where it is a stream.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// No answer that is read here is longer.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// The admin port of a running gateway, and the key that opens its server API.
#[derive(Clone)]
pub struct ServerApi {
    /// Host and port.
    authority: String,
    key: Option<Secret>,
}

/// A whole answer.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Why there is no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// The gateway cannot be reached, or is not what answers there: it may be later.
    Away(String),
    /// It refused, which it will do again.
    Refused(StatusCode, String),
}

impl Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Away(why) | Self::Refused(_, why) => f.write_str(why),
        }
    }
}

impl ServerApi {
    /// `listen` is what the gateway listens on; a wildcard address is reached over loopback.
    pub fn new(listen: SocketAddr, key: Option<&Secret>) -> Self {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self::at(SocketAddr::new(ip, listen.port()).to_string(), key)
    }

    /// `authority` is a host and a port.
    pub fn at(authority: String, key: Option<&Secret>) -> Self {
        Self { authority, key: key.cloned() }
    }

    /// Host and port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether calls of the server API have a key.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// `POST /v1/tokens`: a new connection token. Blocks for at most five seconds.
    pub fn mint(&self, request: &Value) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Minted {
            connection_token: String,
        }
        let answer = block_on(self.post("/v1/tokens", request))?.map_err(|why| why.to_string())?;
        serde_json::from_slice::<Minted>(&answer)
            .map(|minted| minted.connection_token)
            .map_err(|_| format!("{} answered without a connection token", self.authority))
    }

    /// The body of a good answer to a POST.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Bytes, Unanswered> {
        let body = serde_json::to_vec(body).map_err(|error| Unanswered::Away(error.to_string()))?;
        let answer = self.ask(Method::POST, path, Some(body.into()), DEADLINE).await?;
        self.good(answer)
    }

    /// The body of a good answer to a GET.
    pub async fn get(&self, path: &str) -> Result<Bytes, Unanswered> {
        let answer = self.ask(Method::GET, path, None, DEADLINE).await?;
        self.good(answer)
    }

    /// A stream of server-sent events: its body goes on until one side ends it.
    pub async fn stream(&self, path: &str) -> Result<Incoming, Unanswered> {
        let opening = self.send(Method::GET, path, None);
        let response = self.within(DEADLINE, opening).await?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let answer = self.within(DEADLINE, whole(response)).await?;
        Err(self.refused(&answer))
    }

    /// Any answer to a GET.
    pub async fn look(&self, path: &str, deadline: Duration) -> Result<Answer, Unanswered> {
        self.ask(Method::GET, path, None, deadline).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        deadline: Duration,
    ) -> Result<Answer, Unanswered> {
        self.within(deadline, async { whole(self.send(method, path, body).await?).await }).await
    }

    fn good(&self, answer: Answer) -> Result<Bytes, Unanswered> {
        if answer.status.is_success() { Ok(answer.body) } else { Err(self.refused(&answer)) }
    }

    fn refused(&self, answer: &Answer) -> Unanswered {
        let told = refusal(answer.status, &answer.body);
        let told = format!("the admin port {}: {told}", self.authority);
        // A gateway that is full or starting, or a proxy without one behind it.
        match answer.status.as_u16() {
            429 | 500..=599 => Unanswered::Away(told),
            _ => Unanswered::Refused(answer.status, told),
        }
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        asking: impl Future<Output = Result<T, String>>,
    ) -> Result<T, Unanswered> {
        let late = || Err(format!("no answer within {} ms", deadline.as_millis()));
        let answered = tokio::time::timeout(deadline, asking).await.unwrap_or_else(|_| late());
        answered
            .map_err(|why| Unanswered::Away(format!("the admin port {}: {why}", self.authority)))
    }

    /// The connection ends with the answer, or with the runtime.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.authority))
            .header(ACCEPT, "application/json, text/event-stream, text/plain");
        if let Some(key) = &self.key {
            let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose()))
                .map_err(|_| "the API key cannot stand in a header")?;
            bearer.set_sensitive(true);
            request = request.header(AUTHORIZATION, bearer);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default())).map_err(text)?;
        let client: HttpClient = http_client::new(&http_client::tls_config(false)?, DEADLINE, 0);
        client.request(request).await.map_err(|error| {
            // The outermost error says only which step failed.
            let reason = error_chain(error.source().unwrap_or(&error));
            if error.is_connect() { format!("{reason}; is the gateway running?") } else { reason }
        })
    }
}

async fn whole(response: Response<Incoming>) -> Result<Answer, String> {
    let status = response.status();
    let body = http_client::read_body(response.into_body(), MAX_ANSWER_BYTES).await?;
    Ok(Answer { status, body })
}

/// Runs `task` on a runtime of its own.
pub fn block_on<T>(task: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("runtime: {error}"))?;
    let done = runtime.block_on(task);
    // A thread that still reads standard input is not waited for.
    runtime.shutdown_background();
    Ok(done)
}

fn text(error: impl Display) -> String {
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
        let minted = ServerApi::new(address, Some(&key)).mint(&serde_json::json!({"user_id": 1}));
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
            ("nonsense\r\n\r\n", "the admin port"),
        ] {
            let (address, server) = answering(answer);
            let key = Secret::new("k-1");
            let wrong = ServerApi::new(address, Some(&key))
                .mint(&serde_json::json!({"user_id": 1}))
                .unwrap_err();
            assert!(wrong.contains(told), "{answer}: {wrong}");
            assert!(!wrong.contains("k-1"), "{wrong}");
            server.join().unwrap();
        }
    }

    #[test]
    fn a_gateway_that_does_not_run_is_named() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let refused = ServerApi::new(free, None).mint(&serde_json::json!({})).unwrap_err();
        assert!(refused.contains(&free.to_string()) && refused.contains("running"), "{refused}");
    }

    #[test]
    fn a_wildcard_address_is_reached_over_loopback() {
        let at = |listen: &str| ServerApi::new(listen.parse().unwrap(), None).authority;
        assert_eq!(at("0.0.0.0:9000"), "127.0.0.1:9000");
        assert_eq!(at("[::]:9000"), "[::1]:9000");
        assert_eq!(at("10.0.0.1:9000"), "10.0.0.1:9000");
    }
}
