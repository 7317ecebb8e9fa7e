use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::http_client::tls_config;

/// What a server does with one request: the pieces of its answer, and whether it closes the connection then.
#[derive(Clone)]
struct Answer(&'static [&'static str], bool);

const EMPTY: Answer = Answer(&["HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"], false);
const EMPTY_THEN_CLOSE: Answer =
    Answer(&["HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"], true);
const CHUNKED: Answer = Answer(
    &[
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "3\r\none\r\n",
        "3\r\ntwo\r\n0\r\n\r\n",
    ],
    false,
);
const ENDLESS: Answer =
    Answer(&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"], false);

/// A server that gives each request of a connection the next answer.
struct Server {
    url: String,
    connections: Arc<AtomicUsize>,
    /// Gets an item for each connection that has ended.
    ended: mpsc::UnboundedReceiver<()>,
}

impl Server {
    async fn start(answers: &'static [Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/messages?a=1", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let (end, ended) = mpsc::unbounded_channel();
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let end = end.clone();
                tokio::spawn(async move {
                    serve(stream, answers).await;
                    let _ = end.send(());
                });
            }
        });
        Self { url, connections, ended }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, answers: &[Answer]) {
    let mut answers = answers.iter().cycle();
    let mut request = Vec::new();
    while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
        if !request.ends_with(b"\r\n\r\nbody") {
            continue;
        }
        assert!(request.starts_with(b"POST /messages?a=1 HTTP/1.1\r\n"), "{request:?}");
        request.clear();
        let Answer(pieces, closes) = answers.next().unwrap();
        for piece in *pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        if *closes {
            return;
        }
    }
}

fn client() -> ExchangeClient {
    ExchangeClient::new(&tls_config(false).unwrap(), Duration::from_secs(5))
}

fn post(server: &Server) -> Request<Body> {
    Request::post(&server.url).body(Full::from("body")).unwrap()
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let server = Server::start(&[EMPTY, CHUNKED]).await;
    let client = client();
    for _ in 0..3 {
        let empty = client.request(post(&server)).await.unwrap();
        assert!(empty.into_body().collect().await.unwrap().to_bytes().is_empty());
        let chunked = client.request(post(&server)).await.unwrap();
        assert_eq!(chunked.into_body().collect().await.unwrap().to_bytes(), "onetwo");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn requests_at_the_same_time_have_connections_of_their_own() {
    let server = Server::start(&[CHUNKED]).await;
    let client = client();
    let all = (0..8).map(|_| async {
        let response = client.request(post(&server)).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    });
    let bodies = futures_util::future::join_all(all).await;
    assert!(bodies.iter().all(|body| body == "onetwo"), "{bodies:?}");
    assert!((1..=8).contains(&server.connections()));
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_not_used() {
    let mut server = Server::start(&[EMPTY_THEN_CLOSE]).await;
    let client = client();
    for number in 1..=3 {
        client.request(post(&server)).await.unwrap();
        server.ended.recv().await.unwrap();
        // The runtime hears of it when it next asks the kernel.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(server.connections(), number);
    }
}

/// Nothing tells the client of the end of the connection before it sends.
#[tokio::test]
async fn a_request_that_meets_the_end_of_an_idle_connection_can_be_sent_again() {
    let server = Server::start(&[EMPTY, Answer(&[], true)]).await;
    let client = client();
    client.request(post(&server)).await.unwrap();
    let error = client.request(post(&server)).await.err().unwrap();
    assert!(error.was_closed_while_idle(), "{error:?}");
    client.request_on_new_connection(post(&server)).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn the_end_of_a_new_connection_is_no_end_of_an_idle_one() {
    let server = Server::start(&[Answer(&[], true)]).await;
    let error = client().request(post(&server)).await.err().unwrap();
    assert_eq!(error.failure(), Failure::Lost);
    assert!(!error.was_closed_while_idle() && !error.is_connect());
}

#[tokio::test]
async fn a_body_that_is_not_read_to_its_end_closes_its_connection() {
    let mut server = Server::start(&[ENDLESS]).await;
    let mut response = client().request(post(&server)).await.unwrap();
    let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "one");
    drop(response);
    server.ended.recv().await.unwrap();
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_in_time() {
    let mut server = Server::start(&[EMPTY]).await;
    let idle = IdleConnections::new(Duration::from_millis(20));
    let client = ExchangeClient { idle, ..client() };
    client.request(post(&server)).await.unwrap();
    server.ended.recv().await.unwrap();
}

#[tokio::test]
async fn a_request_that_waits_gets_the_connection_that_becomes_idle() {
    let server = Server::start(&[EMPTY]).await;
    let client = client();
    let (origin, _) = prepare(post(&server)).unwrap();
    // Requests that have found another connection are passed over.
    drop(client.idle.wait(&origin));
    let mut returned = client.idle.wait(&origin);
    client.request(post(&server)).await.unwrap();
    assert!(returned.try_recv().unwrap().is_ready());
}

#[tokio::test]
async fn an_error_names_its_sources() {
    // Nothing listens on port 1 (tcpmux).
    let request = Request::get("http://127.0.0.1:1/").body(Full::default()).unwrap();
    let error = client().request(request).await.err().unwrap();
    let text = crate::http_client::error_chain(&error);
    assert!(error.is_connect() && text.starts_with("client error (Connect): "), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[test]
fn the_host_has_no_port_that_is_that_of_the_scheme() {
    for (url, host) in [
        ("http://a.example/x", "a.example"),
        ("http://a.example:80/x", "a.example"),
        ("http://a.example:443/x", "a.example:443"),
        ("https://a.example:443/x?y", "a.example"),
        ("https://user@a.example:8443", "a.example:8443"),
        ("http://[::1]:8000/", "[::1]:8000"),
    ] {
        let request = Request::get(url).body(Full::default()).unwrap();
        let (_, request) = prepare(request).unwrap();
        assert_eq!(request.headers()[HOST], host);
        assert!(request.uri().host().is_none() && request.uri().path().starts_with('/'));
    }
}
