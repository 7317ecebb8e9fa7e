//! `admit` with a loopback backend that is asked about channels.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::handshake::Handshake;
use crate::handshake::tests::{APP, admit, free_port, handshake, jwt, outcome};

/// A request that the backend received.
type BackendRequest = (HeaderMap, Value);

/// Starts a backend that answers with the status in the channel's name, and never for `chat_hang`.
async fn backend() -> (SocketAddr, mpsc::UnboundedReceiver<BackendRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (received, questions) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let received = received.clone();
            let answer =
                service_fn(move |request: Request<Incoming>| answer(request, received.clone()));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    (address, questions)
}

async fn answer(
    request: Request<Incoming>,
    received: mpsc::UnboundedSender<BackendRequest>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let headers = request.headers().clone();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let question: Value = serde_json::from_slice(&body).unwrap();
    let status = match question["channel"].as_str().unwrap().strip_prefix("chat_").unwrap() {
        "hang" => std::future::pending().await,
        status => status.parse().unwrap(),
    };
    received.send((headers, question)).unwrap();
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(response)
}

fn with_authorize_url(url: &str) -> Handshake {
    handshake(
        &format!(
            "auth = [\"bearer\", \"anonymous\"]\nauthorize = {{ url = \"{url}\", timeout = \"500ms\" }}"
        ),
        "",
    )
}

#[tokio::test]
async fn only_a_2xx_of_the_backend_admits() {
    let (address, _questions) = backend().await;
    let handshake = with_authorize_url(&format!("http://{address}/may"));
    for (conversation, expected) in [
        ("200", "_anonymous_"),
        ("204", "_anonymous_"),
        ("302", "no: authorize_unavailable"),
        ("401", "no: authorize"),
        ("403", "no: authorize"),
        ("404", "no: authorize"),
        ("408", "no: authorize_unavailable"),
        ("429", "no: authorize_unavailable"),
        ("500", "no: authorize_unavailable"),
        ("503", "no: authorize_unavailable"),
        ("hang", "no: authorize_unavailable"),
    ] {
        let path = format!("/ws/chat/{conversation}/");
        assert_eq!(outcome(&handshake, &path, &[]).await, expected, "{conversation}");
    }
    let gone = with_authorize_url(&format!("http://127.0.0.1:{}/may", free_port()));
    assert_eq!(outcome(&gone, "/ws/chat/200/", &[]).await, "no: authorize_unavailable");
}

#[tokio::test]
async fn the_backend_gets_user_and_channel() {
    let (address, mut questions) = backend().await;
    let handshake = with_authorize_url(&format!("http://{address}/may"));
    let bearer = format!("Bearer {}", jwt("ana-7", json!({"channels": ["chat_200"]})));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [APP, ("authorization", &*bearer), ("traceparent", &*traceparent)];
    let admission = admit(&handshake, "/ws/chat/200/", &headers).await.unwrap();
    let (headers, question) = questions.recv().await.unwrap();
    let id = admission.connection_id.to_string();
    assert_eq!(
        question,
        json!({
            "channel": "chat_200",
            "params": {"conversation_id": "200"},
            "user": {"id": "ana-7", "name": "ana"},
            "connection_id": id,
            "origin": "https://app.example.com",
        })
    );
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-request-id"], *trace);
    assert!(headers["traceparent"].to_str().unwrap().starts_with(&format!("00-{trace}-")));
    assert!(!headers.contains_key("authorization"), "credentials are not forwarded");

    // Claims are checked first: the backend is not asked about clients that they exclude.
    assert_eq!(
        outcome(&handshake, "/ws/chat/204/", &[("authorization", &*bearer)]).await,
        "no: channel"
    );
    admit(&handshake, "/ws/chat/201/", &[]).await.unwrap();
    let (_, question) = questions.recv().await.unwrap();
    assert_eq!((&question["channel"], &question["user"]), (&json!("chat_201"), &json!(null)));
}
