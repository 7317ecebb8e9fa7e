use super::*;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

/// A server that reads one request and sends one response.
fn serve_once(response: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
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
        stream.write_all(response.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (address, server)
}

#[test]
fn a_token_is_requested_with_the_key() {
    let (address, server) = serve_once(
        "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\n{\"connection_token\":\"abc\",\"expires_in\":60}",
    );
    let key = Secret::new("k-1");
    let token = ServerApi::new(address, Some(&key)).issue_token(&serde_json::json!({"user_id": 1}));
    assert_eq!(token.as_deref(), Ok("abc"));
    let request = server.join().unwrap();
    assert!(request.starts_with("POST /v1/tokens HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Bearer k-1\r\n"), "{request}");
}

#[test]
fn an_error_has_its_reason() {
    for (response, reason) in [
        (
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 49\r\n\r\n{\"error\":{\"code\":\"forbidden\",\"message\":\"no key\"}}",
            "no key (403)",
        ),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "404 Not Found"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "without a connection token"),
        ("nonsense\r\n\r\n", "the admin port"),
    ] {
        let (address, server) = serve_once(response);
        let key = Secret::new("k-1");
        let error = ServerApi::new(address, Some(&key))
            .issue_token(&serde_json::json!({"user_id": 1}))
            .unwrap_err();
        assert!(error.contains(reason), "{response}: {error}");
        assert!(!error.contains("k-1"), "{error}");
        server.join().unwrap();
    }
}

#[test]
fn an_unreachable_gateway_is_named() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let error = ServerApi::new(free, None).issue_token(&serde_json::json!({})).unwrap_err();
    assert!(error.contains(&free.to_string()) && error.contains("running"), "{error}");
}

#[test]
fn a_wildcard_address_is_reached_over_loopback() {
    let at = |listen: &str| ServerApi::new(listen.parse().unwrap(), None).authority;
    assert_eq!(at("0.0.0.0:9000"), "127.0.0.1:9000");
    assert_eq!(at("[::]:9000"), "[::1]:9000");
    assert_eq!(at("10.0.0.1:9000"), "10.0.0.1:9000");
}
