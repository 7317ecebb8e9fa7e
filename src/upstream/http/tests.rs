use super::*;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;

/// An error that wraps another one, as the client's error does.
#[derive(Debug)]
struct Wrapped(hyper::Error);

impl std::fmt::Display for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("client error")
    }
}

impl std::error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test]
async fn only_an_unwritten_request_was_never_sent() {
    let request = || Request::new(Full::new(Bytes::new()));

    let (ours, theirs) = tokio::io::duplex(1024);
    let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
    let response = sender.send_request(request());
    drop((connection, theirs));
    assert!(was_never_sent(&Wrapped(response.await.unwrap_err())));

    let (ours, mut theirs) = tokio::io::duplex(1024);
    let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
    let response = sender.send_request(request());
    let (_, response, read) =
        tokio::join!(connection, response, async move { theirs.read(&mut [0; 64]).await });
    assert!(read.unwrap() > 0, "it was written");
    assert!(!was_never_sent(&Wrapped(response.unwrap_err())));
}
