//! One HTTP/1.1 request on a connection of its own.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::within;

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of ASCII"))
    }
}

pub async fn get(addr: SocketAddr, path: &str) -> Response {
    send(addr, "GET", path, &[], Bytes::new()).await
}

pub async fn post(
    addr: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Response {
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    send(addr, "POST", path, &all, body.to_string().into()).await
}

/// Sends any request; `Host` is the address unless `headers` has one.
pub async fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", addr.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body)).expect("a valid request");
    within(&format!("answer to {method} {path}"), async {
        let stream = TcpStream::connect(addr).await.expect("the port accepts");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.expect("a response");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a complete body").to_bytes();
        driver.abort();
        Response { status: head.status.as_u16(), headers: head.headers, body }
    })
    .await
}

/// An answer whose body is read piece by piece. Dropping it closes the connection.
pub struct Stream {
    pub status: u16,
    pub headers: HeaderMap,
    body: hyper::body::Incoming,
    driver: tokio::task::JoinHandle<hyper::Result<()>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Stream {
    /// Waits for the next piece of the body. `None` means that the body or the connection has ended.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let frame = within("piece of a body", self.body.frame()).await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }
}

/// Sends a GET and returns its answer as soon as the head has arrived.
pub async fn stream(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Stream {
    let mut request = Request::builder().uri(path).header("host", addr.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::new())).expect("a valid request");
    within(&format!("answer to {path}"), async {
        let stream = TcpStream::connect(addr).await.expect("the port accepts");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.expect("a response");
        let (head, body) = response.into_parts();
        Stream { status: head.status.as_u16(), headers: head.headers, body, driver }
    })
    .await
}
