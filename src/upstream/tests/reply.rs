//! Replies that are streamed in an HTTP upstream's response.

use super::server::{Script, Server};
use super::*;

const SSE: &str = "text/event-stream; charset=utf-8";
const NDJSON: &str = "application/x-ndjson";

async fn reply(server: &Server) -> Reply {
    let upstreams = upstreams(upstream(UpstreamKind::Http(http_to(&server.url()))));
    let taken = upstreams.relay(UPSTREAM, &message()).await.unwrap();
    assert_eq!(taken.task_id, "our-task");
    taken.reply.into_stream().expect("a reply")
}

/// Reads all events up to the end, and returns how the reply ended.
async fn read(reply: &mut Reply) -> (Vec<String>, Option<ReplyBroken>) {
    let mut events = Vec::new();
    let end = loop {
        match tokio::time::timeout(LONG, reply.next()).await.expect("in time") {
            Some(Ok(
                ReplyEvent::Own(json)
                | ReplyEvent::Publication(json)
                | ReplyEvent::End(Conclusion { json, .. }),
            )) => events.push(String::from_utf8(json.to_vec()).unwrap()),
            Some(Err(broken)) => break Some(broken),
            None => break None,
        }
    };
    assert!(reply.next().await.is_none(), "nothing follows the end");
    (events, end)
}

async fn outcome(script: Script) -> (Vec<String>, Option<ReplyBroken>) {
    read(&mut reply(&Server::start([script]).await).await).await
}

fn events(events: &[&str]) -> Vec<String> {
    events.iter().map(|event| event.to_string()).collect()
}

#[tokio::test]
async fn event_streams_in_any_pieces() {
    let stream = "\u{feff}: hi\r\ndata: {\"event\":\"token\",\"t\":\"ü\"}\r\n\r\nevent: token\ndata: {\"t\":\ndata: 1}\n\ndata: plain\n\ndata: [DONE]\n\ndata: after\n\n";
    let expected = events(&[
        r#"{"event":"token","t":"ü"}"#,
        "{\"event\":\"token\",\"t\":\n1}",
        r#"{"event":"chunk","chunk":"plain"}"#,
    ]);
    let bytes = stream.as_bytes();
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    for chunks in [vec![bytes], single, bytes.chunks(7).collect()] {
        assert_eq!(outcome(Script::stream(SSE, &chunks)).await, (expected.clone(), None));
    }
}

#[tokio::test]
async fn ndjson_with_and_without_its_last_line_feed() {
    for kind in [NDJSON, "application/jsonl", "Application/X-NDJSON; charset=utf-8"] {
        for last in ["{\"event\":\"end\"}\n", "{\"event\":\"end\"}"] {
            let chunks: [&[u8]; 3] = [b"{\"a\":", b"1}\n\n", last.as_bytes()];
            let expected = events(&[r#"{"event":"chunk","chunk":{"a":1}}"#, r#"{"event":"end"}"#]);
            assert_eq!(outcome(Script::stream(kind, &chunks)).await, (expected, None), "{kind}");
        }
    }
}

#[tokio::test]
async fn with_end_event_the_end_of_the_body_completes_nothing() {
    let read_with_event_end = |script: Script| async {
        let server = Server::start([script]).await;
        let http = config::HttpUpstream { end: config::StreamEnd::Event, ..http_to(&server.url()) };
        let upstreams = upstreams(upstream(UpstreamKind::Http(http)));
        let taken = upstreams.relay(UPSTREAM, &message()).await.unwrap();
        read(&mut taken.reply.into_stream().expect("a reply")).await
    };
    let first = events(&[r#"{"event":"chunk","chunk":1}"#]);
    for whole in ["data: 1\n\n", "data: 1\n", "data: 1"] {
        let script = Script::stream(SSE, &[whole.as_bytes()]);
        let lost = (first.clone(), Some(ReplyBroken::Lost));
        assert_eq!(read_with_event_end(script).await, lost, "{whole:?}");
    }
    let done = Script::stream(SSE, &[b"data: 1\n\ndata: [DONE]\n\n"]);
    assert_eq!(read_with_event_end(done).await, (first.clone(), None));
    let lines = Script::stream(NDJSON, &[b"1\n"]);
    assert_eq!(read_with_event_end(lines).await, (first, Some(ReplyBroken::Lost)));
}

async fn reply_with_idle_timeout(script: Script, idle_timeout: Duration) -> Reply {
    let server = Server::start([script]).await;
    let http =
        config::HttpUpstream { stream_idle_timeout: Some(idle_timeout), ..http_to(&server.url()) };
    let upstreams = upstreams(upstream(UpstreamKind::Http(http)));
    let taken = upstreams.relay(UPSTREAM, &message()).await.unwrap();
    taken.reply.into_stream().expect("a reply")
}

#[tokio::test]
async fn a_silent_reply_is_broken() {
    let idle_timeout = Duration::from_millis(100);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let script = Script::hanging(format!("{head}data: 1\n\ndata: 2\n\n"));
    let mut reply = reply_with_idle_timeout(script, idle_timeout).await;
    assert!(reply.next().await.is_some_and(|event| event.is_ok()));
    // The time that the gateway takes to pass an event on is not the upstream's silence.
    tokio::time::sleep(idle_timeout * 2).await;
    let silent = ReplyBroken::TimedOut("the reply fell silent");
    let second = events(&[r#"{"event":"chunk","chunk":2}"#]);
    assert_eq!(read(&mut reply).await, (second, Some(silent)));
}

#[tokio::test]
async fn silence_after_the_proof_of_the_end_is_no_fault() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let last = r#"{"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}"#;
    let server = Server::start([Script::hanging(format!("{head}data: {last}\n\n"))]).await;
    let http = config::HttpUpstream {
        dialect: Dialect::OpenaiChat,
        stream_idle_timeout: Some(Duration::from_millis(100)),
        ..http_to(&server.url())
    };
    let upstreams = upstreams(upstream(UpstreamKind::Http(http)));
    let taken = upstreams.relay(UPSTREAM, &message()).await.unwrap();
    let (events, broken) = read(&mut taken.reply.into_stream().expect("a reply")).await;
    assert_eq!(broken, None, "{events:?}");
    assert!(events.last().is_some_and(|it| it.contains(r#""event":"complete""#)), "{events:?}");
}

#[tokio::test]
async fn comments_are_signs_of_life() {
    let idle_timeout = Duration::from_secs(2);
    let comments = [b": ping\n\n".as_slice(); 12];
    let script = Script::stream(SSE, &[&comments[..], &[b"data: 1\n\n"]].concat());
    let script = Script { pause: Duration::from_millis(250), ..script };
    let mut reply = reply_with_idle_timeout(script, idle_timeout).await;
    let only = events(&[r#"{"event":"chunk","chunk":1}"#]);
    assert_eq!(read(&mut reply).await, (only, None));
}

#[tokio::test]
async fn a_reply_is_lost_when_its_upstream_dies() {
    let first = events(&[r#"{"event":"chunk","chunk":1}"#]);
    for script in [
        Script::cut_stream(SSE, &[b"data: 1\n\n"]),
        Script::cut_stream(SSE, &[b"data: 1\n\nda"]),
        Script::stream(SSE, &[b"data: 1\n\ndata: {\"a\":\n"]),
        Script::stream(SSE, &[b"data: 1\n\ndata: \"a"]),
        Script::stream(NDJSON, &[b"1\n{\"a\":"]),
        Script::closing(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\ndata: two",
        ),
    ] {
        assert_eq!(outcome(script).await, (first.clone(), Some(ReplyBroken::Lost)));
    }
}

#[tokio::test]
async fn a_body_may_end_with_its_connection() {
    let bytes = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    let expected = events(&[r#"{"event":"chunk","chunk":1}"#]);
    assert_eq!(outcome(Script::closing(bytes)).await, (expected, None));
}

#[tokio::test]
async fn a_huge_event_ends_the_reply() {
    let piece = [b'x'; 64 * 1024];
    for (kind, start) in [(SSE, &b"data: "[..]), (NDJSON, b"\"")] {
        let mut chunks = vec![start];
        chunks.extend(std::iter::repeat_n(&piece[..], 17));
        let (events, end) = outcome(Script::stream(kind, &chunks)).await;
        assert!(events.is_empty());
        assert_eq!(end, Some(ReplyBroken::Refused("an event of the reply was too large")));
    }
}

#[tokio::test]
async fn a_reply_that_takes_too_long_is_ended() {
    let script = Script { hangs: true, ..Script::cut_stream(SSE, &[b"data: 1\n\n"]) };
    let server = Server::start([script]).await;
    let max_reply = Duration::from_secs(1);
    let http = config::HttpUpstream { max_reply, ..http_to(&server.url()) };
    let taken = upstreams(upstream(UpstreamKind::Http(http))).relay(UPSTREAM, &message()).await;
    let mut reply = taken.unwrap().reply.into_stream().unwrap();
    let (_, end) = read(&mut reply).await;
    assert_eq!(end, Some(ReplyBroken::TimedOut("the reply took too long")));
}

/// A stream that always has more data never makes the reader wait, so that the deadline must be checked
/// without a wait.
#[tokio::test]
async fn a_reply_that_never_pauses_is_ended_too() {
    let body = [&b"9\r\ndata: 1\n\n\r\n"[..]; 2].concat();
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let server = Server::start([Script::hanging([head.as_bytes(), &body].concat())]).await;
    let max_reply = Duration::from_secs(2);
    let http = config::HttpUpstream { max_reply, ..http_to(&server.url()) };
    let taken = upstreams(upstream(UpstreamKind::Http(http))).relay(UPSTREAM, &message()).await;
    let mut reply = taken.unwrap().reply.into_stream().unwrap();
    assert!(matches!(reply.next().await, Some(Ok(_))));
    tokio::time::sleep(max_reply).await;
    let late = reply.next().await;
    let too_long = ReplyBroken::TimedOut("the reply took too long");
    assert!(matches!(late, Some(Err(broken)) if broken == too_long));
}

#[tokio::test]
async fn a_reply_keeps_its_permit_until_it_is_dropped() {
    let script = Script { hangs: true, ..Script::cut_stream(SSE, &[b"data: 1\n\n"]) };
    let server = Server::start([script]).await;
    let mut config = upstream(UpstreamKind::Http(http_to(&server.url())));
    config.max_in_flight = 1;
    let upstreams = upstreams(config);
    let mut reply =
        upstreams.relay(UPSTREAM, &message()).await.unwrap().reply.into_stream().unwrap();
    assert!(matches!(reply.next().await, Some(Ok(_))));
    let busy = upstreams.relay(UPSTREAM, &message()).await.err();
    assert_eq!(busy, Some(RelayError::Busy));
    drop(reply);
    server.wait_for_abandoned(1).await;
    assert!(upstreams.relay(UPSTREAM, &message()).await.is_ok());
}

/// One chunk of `body` with a `Content-Encoding`.
fn encoded(kind: &str, encoding: &str, body: &[u8]) -> Script {
    let mut script = Script::stream(kind, &[body]);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n");
    script.pieces[0] = String::from_utf8_lossy(&script.pieces[0])
        .replacen("HTTP/1.1 200 OK\r\n", &head, 1)
        .into_bytes();
    script
}

fn gzip(text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn compressed_streams_are_decoded_and_others_refused() {
    let one = events(&[r#"{"event":"chunk","chunk":1}"#]);
    for (kind, text) in [(SSE, "data: 1\n\n"), (NDJSON, "1\n")] {
        let script = encoded(kind, "gzip", &gzip(text));
        assert_eq!(outcome(script).await, (one.clone(), None), "{kind}");
        let (events, end) = outcome(encoded(kind, "compress", text.as_bytes())).await;
        assert!(events.is_empty());
        assert!(
            matches!(end, Some(ReplyBroken::Refused(why)) if why.contains("encoding")),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn compressed_answers_are_decoded() {
    let relay = async |status: &str, text: &str| {
        let body = gzip(text);
        let mut script = Script::answer(status, "application/json", "");
        script.pieces = vec![
            format!(
                "HTTP/1.1 {status}\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            )
            .into_bytes(),
            body,
        ];
        let server = Server::start([script]).await;
        let upstreams = upstreams(upstream(UpstreamKind::Http(http_to(&server.url()))));
        let relayed = upstreams.relay(UPSTREAM, &message()).await;
        let asked = server.requests.lock().unwrap()[0].header("accept-encoding").map(str::to_owned);
        assert_eq!(asked.as_deref(), Some("identity"));
        relayed
    };
    assert_eq!(relay("202 Accepted", r#"{"task_id":"theirs"}"#).await.unwrap().task_id, "theirs");
    let rejected = relay("422 No", r#"{"error":"no room"}"#).await.unwrap_err();
    assert_eq!(rejected, RelayError::rejected("no room"));
}
