//! The server side of a connection that begins with publishing calls, over loopback.

use tokio::net::TcpStream;

use super::super::tests::{Bench, locally};
use super::*;

const CALL: &str = "POST /v1/publish HTTP/1.1\r\nhost: a\r\nx-api-key: key-2\r\n";

fn call(more: &str, body: &str) -> String {
    format!("{CALL}{more}content-length: {}\r\n\r\n{body}", body.len())
}

fn publication(number: usize) -> String {
    format!(r#"{{"channel":"chat_{number}","data":{{"event":"chunk"}}}}"#)
}

/// Reads `count` responses: the status, the headers without the value of `date`, and the body.
async fn responses(stream: &mut TcpStream, count: usize) -> Vec<(String, Vec<String>, String)> {
    let mut bytes = Vec::new();
    let mut found = Vec::new();
    while found.len() < count {
        let text = String::from_utf8(bytes.clone()).unwrap();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let mut lines = head.split("\r\n").map(str::to_ascii_lowercase);
            let status = lines.next().unwrap();
            let mut headers: Vec<_> = lines.collect();
            let length = headers.iter().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.expect("a length").parse().unwrap();
            if rest.len() >= length {
                let date = headers.iter_mut().find(|line| line.starts_with("date: "));
                date.expect("a date").truncate("date:".len());
                headers.sort();
                found.push((status, headers, rest[..length].to_owned()));
                bytes.drain(..head.len() + 4 + length);
                continue;
            }
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the end, after {found:?}");
    }
    assert!(bytes.is_empty());
    found
}

#[tokio::test]
async fn calls_that_come_together_are_answered_in_order() {
    locally(async {
        let bench = Bench::with_keys().await;
        let mut stream = bench.connect().await;
        let mut calls: String = (0..50).map(|number| call("", &publication(number))).collect();
        calls.push_str(&call("", "nonsense"));
        calls.push_str(&call("", &publication(51)));
        stream.write_all(calls.as_bytes()).await.unwrap();
        for (number, (status, _, body)) in responses(&mut stream, 52).await.into_iter().enumerate()
        {
            let expected =
                if number == 50 { "http/1.1 400 bad request" } else { "http/1.1 200 ok" };
            assert_eq!(status, expected, "{number}: {body}");
        }
    })
    .await;
}

/// Regression test: calls behind a large one waited for more input once there were many answers.
#[tokio::test]
async fn calls_behind_a_large_one_do_not_wait() {
    locally(async {
        let bench = Bench::with_keys().await;
        let mut stream = bench.connect().await;
        let mut calls = call("", &"x".repeat(MAX_CALL_BYTES - 1000));
        (0..2000).for_each(|_| calls.push_str(&call("", "{}")));
        let (mut from, mut to) = stream.split();
        let reading = async {
            let (mut bytes, mut answers) = (Vec::new(), 0);
            while answers < 2001 {
                assert!(from.read_buf(&mut bytes).await.unwrap() > 0, "the end after {answers}");
                let text = String::from_utf8_lossy(&bytes);
                answers = text.matches("HTTP/1.1 400 Bad Request").count();
            }
        };
        tokio::join!(reading, async { to.write_all(calls.as_bytes()).await.unwrap() });
    })
    .await;
}

/// The library reads a call in chunks. Its answers are the same.
#[tokio::test]
async fn the_library_answers_the_same() {
    locally(async {
        let bench = Bench::with_keys().await;
        let large = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(2000));
        let several = r#"{"publications":[{"channel":"a","data":1},{"channel":"b","data":1}]}"#;
        let one = r#"{"publications":[{"channel":"a","data":1}]}"#;
        let none = r#"{"publications":[]}"#;
        for body in [&publication(1), "", "{}", "[1]", several, one, none, &large] {
            let mut answers = Vec::new();
            let last = "0\r\n\r\n";
            let chunks = match body.len() {
                0 => last.to_owned(),
                length => format!("{length:x}\r\n{body}\r\n{last}"),
            };
            let chunked = format!("{CALL}transfer-encoding: chunked\r\n\r\n{chunks}");
            for request in [call("", body), chunked] {
                let mut stream = bench.connect().await;
                stream.write_all(request.as_bytes()).await.unwrap();
                answers.push(responses(&mut stream, 1).await.remove(0));
            }
            assert_eq!(answers[0], answers[1], "{body}");
        }
    })
    .await;
}

#[tokio::test]
async fn another_request_ends_the_phase_and_not_the_connection() {
    locally(async {
        let bench = Bench::with_keys().await;
        let mut stream = bench.connect().await;
        let livez = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
        let all = [call("", &publication(1)), livez.into(), call("", &publication(2))].concat();
        stream.write_all(all.as_bytes()).await.unwrap();
        let bodies: Vec<_> =
            responses(&mut stream, 3).await.into_iter().map(|(_, _, body)| body).collect();
        assert_eq!(bodies, [r#"{"published":1}"#, "ok\n", r#"{"published":1}"#]);
    })
    .await;
}

/// In few pieces it is read here, in many by the library.
#[tokio::test]
async fn calls_in_pieces_are_complete() {
    locally(async {
        let bench = Bench::with_keys().await;
        let calls = call("", &publication(1)) + &call("", &publication(2));
        for size in [1, 17, 100] {
            let mut stream = bench.connect().await;
            stream.set_nodelay(true).unwrap();
            for piece in calls.as_bytes().chunks(size) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let answers = responses(&mut stream, 2).await;
            assert!(answers.iter().all(|(_, _, body)| body == r#"{"published":1}"#), "{answers:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_without_a_key_is_refused_by_the_library() {
    locally(async {
        let bench = Bench::with_keys().await;
        let mut stream = bench.connect().await;
        let wrong = call("", &publication(2)).replace("key-2", "key-3");
        let calls = call("", &publication(1)) + &wrong + &call("", &publication(3));
        stream.write_all(calls.as_bytes()).await.unwrap();
        let answers = responses(&mut stream, 2).await;
        assert_eq!(answers[0].0, "http/1.1 200 ok");
        assert_eq!(answers[1].0, "http/1.1 401 unauthorized");
        assert!(answers[1].1.contains(&"connection: close".to_owned()), "{answers:?}");
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap_or(0), 0, "nothing follows");
    })
    .await;
}

#[tokio::test]
#[ignore = "waits for the deadlines of a head, and of a head and its body"]
async fn an_unfinished_or_idle_connection_ends() {
    locally(async {
        let bench = Bench::with_keys().await;
        let unfinished = call("", &publication(1))[..CALL.len() + 30].to_owned();
        let answers = ["", CALL, &unfinished].map(async |begun| {
            let mut stream = bench.connect().await;
            stream.write_all(begun.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
        let answers = futures_util::future::join_all(answers).await;
        assert_eq!(answers[..2], ["", ""]);
        assert!(answers[2].starts_with("HTTP/1.1 408"), "{answers:?}");
    })
    .await;
}
