//! The port for plain HTTP beside one with TLS.

use std::net::SocketAddr;

use super::{open, start};
use crate::rig::{Gateway, RawClient, TlsClient, http};

async fn redirecting(more: &str) -> (Gateway, SocketAddr) {
    let gateway = start(&format!("redirect = \"127.0.0.1:0\"\n{more}")).await;
    let listening = gateway.wait_for_event("listening").await.to_string();
    let at = listening.split("\"redirect\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let addr = at.and_then(|at| at.parse().ok());
    (gateway, addr.unwrap_or_else(|| panic!("{listening}")))
}

#[tokio::test]
async fn requests_for_a_name_of_the_certificate_are_redirected() {
    let (gateway, addr) = redirecting("redirect_port = 8443").await;
    for (method, path) in [("GET", "/a?b=c"), ("HEAD", "/"), ("POST", "/x"), ("OPTIONS", "/")] {
        let answer = http::send(addr, method, path, &[("host", "first.test")], "".into()).await;
        assert_eq!(answer.status, 308, "{method} {path}");
        let location = format!("https://first.test:8443{path}");
        assert_eq!(answer.header("location"), Some(&*location));
    }
    for host in ["evil.example", "127.0.0.1", "first.test.evil.example"] {
        let answer = http::send(addr, "GET", "/", &[("host", host)], "".into()).await;
        assert_eq!((answer.status, answer.header("location")), (421, None), "{host}");
    }
    let redirects = "tidegate_tls_redirects_total";
    gateway.wait_for_metric(redirects, &[("outcome", "redirected")], 4.0).await;
    gateway.wait_for_metric(redirects, &[("outcome", "unknown_host")], 3.0).await;
    open(TlsClient::new().connect(gateway.addr()).await).await;
}

#[tokio::test]
async fn strangers_are_bounded() {
    let (gateway, addr) = redirecting("").await;
    for request in [
        "nonsense\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: first.test\r\nX: {}", "x".repeat(9000)),
    ] {
        let mut client = RawClient::connect(addr).await;
        client.write(request.as_bytes()).await;
        assert!(client.read_to_end().await.starts_with(b"HTTP/1.1 400 "), "{request}");
    }
    // One address has a share of the places.
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(RawClient::connect(addr).await);
    }
    let mut refused = RawClient::connect(addr).await;
    assert!(refused.read_to_end().await.is_empty());
    let mut other = RawClient::connect_from("127.0.0.2", addr).await;
    other.write(b"GET / HTTP/1.1\r\nHost: first.test\r\n\r\n").await;
    assert!(other.read_to_end().await.starts_with(b"HTTP/1.1 308 "));
    gateway.wait_for_metric("tidegate_tls_redirects_total", &[("outcome", "too_many")], 1.0).await;
}
