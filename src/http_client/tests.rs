use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn get(url: &str) -> Request<Full<Bytes>> {
    Request::get(url).body(Full::default()).unwrap()
}

#[tokio::test]
async fn an_error_names_its_sources() {
    let tls = tls_config(false).unwrap();
    let client: HttpClient = new(&tls, Duration::from_secs(1), 0);
    // Nothing listens on port 1 (tcpmux).
    let error = client.request(get("http://127.0.0.1:1/")).await.unwrap_err();
    let text = error_chain(&error);
    assert!(text.starts_with("client error (Connect): "), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[test]
fn roots_are_read_once() {
    if let Ok(first) = tls_config(true) {
        assert!(Arc::ptr_eq(&first, &tls_config(true).unwrap()));
    }
}

/// Serves the answers in turn on one connection each, whatever is requested. An empty one closes the connection.
async fn serve(answers: [String; 4]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn a_failed_request_is_named_as_what_it_is() {
    let tls = tls_config(false).unwrap();
    let client: HttpClient = new(&tls, Duration::from_secs(1), 4);
    let headers: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let large = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
    let url =
        serve([&large, "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 abc\r\n\r\n", ""].map(str::to_owned)).await;
    for expected in [Failure::HeadTooLarge, Failure::Malformed, Failure::Malformed, Failure::Lost] {
        let error = client.request(get(&url)).await.unwrap_err();
        assert_eq!(failure(&error), expected, "{}", error_chain(&error));
        assert!(!was_closed_while_idle(&error), "its connection was new");
    }
    let error = client.request(get("http://127.0.0.1:1/")).await.unwrap_err();
    assert_eq!(failure(&error), Failure::Unreachable);
}
