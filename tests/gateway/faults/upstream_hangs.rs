//! An upstream that stops in the middle of its answer, at each byte of it, and keeps the connection open.

use std::time::Instant;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{Client, Gateway, Settings, recovered, within};

const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

const CHUNK: &str = "data: {\"event\":\"chunk\",\"chunk\":\"some text\"}\n\n";

const END: &str = "data: {\"event\":\"complete\"}\n\n";

/// A whole answer, and after how many bytes its head, its first event and its last event have arrived.
struct Answer {
    bytes: String,
    head: usize,
    chunk: usize,
    end: usize,
}

fn whole_answer() -> Answer {
    let chunked = |event: &str| format!("{:x}\r\n{event}", event.len());
    let chunk = HEAD.to_owned() + &chunked(CHUNK);
    let end = format!("{chunk}\r\n{}", chunked(END));
    Answer {
        bytes: format!("{end}\r\n0\r\n\r\n"),
        head: HEAD.len(),
        chunk: chunk.len(),
        end: end.len(),
    }
}

/// Reads a request whose message is the number of bytes to answer with, and answers with so many.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    let at = loop {
        stream.read_buf(&mut request).await?;
        let text = String::from_utf8_lossy(&request);
        let message = text.split_once("\"message\":\"").and_then(|(_, rest)| rest.split_once('"'));
        if let Some((at, _)) = message {
            break at.parse::<usize>().expect("a number");
        }
    };
    stream.write_all(&whole_answer().bytes.as_bytes()[..at]).await?;
    // It hangs until the gateway closes the connection.
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}

async fn start_upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    url
}

/// What a client is sent about a message until its end: whether there was a chunk, and the last event.
async fn ask(gateway: &Gateway, at: usize) -> (bool, serde_json::Value) {
    let (mut client, _) = Client::connected(gateway, &format!("/ws/chat/{at}/")).await;
    client.send_json(&json!({"message": at.to_string()})).await;
    let mut has_chunk = false;
    loop {
        let frame = client.next_json().await;
        match frame["event"].as_str() {
            Some("chunk") => has_chunk = true,
            Some("error" | "complete") => return (has_chunk, frame),
            _ => {}
        }
    }
}

#[tokio::test]
async fn each_message_has_an_end_wherever_the_upstream_hangs() {
    let url = start_upstream().await;
    let limits = "timeout = \"500ms\"\nstream_idle_timeout = \"500ms\"\nretries = 0\n\
                  max_in_flight = 100000\nmax_in_flight_per_user = 100000\n\
                  circuit = { failures = 100000, window = \"10s\", open = \"5s\" }";
    let settings = Settings::chat(&url)
        .upstream("worker", &format!("kind = \"http\"\nurl = {url:?}\n{limits}"));
    let gateway = Gateway::start(settings).await;
    let answer = whole_answer();
    let since = Instant::now();
    let answers =
        futures_util::future::join_all((0..=answer.bytes.len()).map(|at| ask(&gateway, at)));
    let answers = within("the end of all", answers).await;
    for (at, (has_chunk, last)) in answers.into_iter().enumerate() {
        assert_eq!(has_chunk, at >= answer.chunk, "{at} bytes: {last}");
        let expected = match at {
            _ if at < answer.head => json!("upstream_unavailable"),
            _ if at < answer.end => json!("worker_lost"),
            _ => serde_json::Value::Null,
        };
        assert_eq!(last["code"], expected, "{at} bytes: {last}");
    }
    recovered("an upstream hangs at each byte of its answer", since);
    // What hung is closed, and nothing of it is kept.
    gateway.wait_for_metric("tidegate_upstream_in_flight", &[], 0.0).await;
}
