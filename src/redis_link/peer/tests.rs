use super::*;
use crate::redis_link::test_server::RedisServer;

#[test]
fn answers_are_recognised() {
    assert_eq!(read(b"+PONG\r\n"), Some(Peer::Plain));
    assert_eq!(read(b"-NOAUTH Authentication required.\r\n"), Some(Peer::Plain));
    let full = Peer::Refusing("ERR max number of clients reached".to_owned());
    assert_eq!(read(b"-ERR max number of clients reached\r\n"), Some(full));
    assert_eq!(read(b"HTTP/1.1 400 Bad Request\r\n"), Some(Peer::Http));
    assert_eq!(read(b"<html>"), Some(Peer::Http));
    assert_eq!(read(b"\x15\x03\x01\x00\x02\x02\x46"), Some(Peer::Tls));
    assert_eq!(read(b""), None);
    assert_eq!(read(b"SSH-2.0"), None);
}

#[test]
fn the_hello_has_the_lengths_that_it_states() {
    let length =
        |at: usize| usize::from(u16::from_be_bytes([CLIENT_HELLO[at], CLIENT_HELLO[at + 1]]));
    assert_eq!(length(3), CLIENT_HELLO.len() - 5);
    assert_eq!(length(7), CLIENT_HELLO.len() - 9);
}

#[tokio::test]
async fn tls_to_a_plain_port_is_explained() {
    let server = RedisServer::start();
    let url = server.url().info().addr().to_string();
    let client = Client::open(format!("rediss://{url}/#insecure")).unwrap();
    let why = explain(&client, None).await.unwrap();
    assert!(why.contains("does not speak TLS"), "{why}");
    assert_eq!(explain(&Client::open(format!("redis://{url}")).unwrap(), None).await, None);
}
