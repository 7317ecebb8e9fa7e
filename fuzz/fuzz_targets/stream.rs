//! Responses of HTTP upstreams: JSON, SSE and NDJSON, with any status and content coding. However the bytes are cut, they mean the same,
//! and each event is a JSON object of bounded size. The first byte chooses the head, the second how the body is cut.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use tidegate::internals::upstream::{ReadResponse, ResponseReader};
use tidegate::internals::{Config, MAX_TASK_ID_BYTES};
use tidegate_fuzz::{Pieces, block_on};

const KINDS: [&str; 4] =
    ["text/event-stream; charset=utf-8", "application/x-ndjson", "application/json", "text/plain"];
const STATUSES: [&str; 8] = [
    "200 OK",
    "202 Accepted",
    "204 No Content",
    "302 Found",
    "400 Bad Request",
    "422 Unprocessable Content",
    "429 Too Many Requests",
    "503 Service Unavailable",
];
const CODINGS: [&str; 5] = ["gzip", "deflate", "br", "zstd", "gzip, br"];
/// The largest event of a reply, and what the gateway puts around it.
const MAX_EVENT_BYTES: usize = 1024 * 1024 + 64;

static READER: LazyLock<ResponseReader> = LazyLock::new(|| {
    let config = "[[route]]\npath = \"/\"\nchannel = \"a\"\nupstream = \"app\"\nauth = [\"anonymous\"]\n\
                  [upstream.app]\nkind = \"http\"\nurl = \"http://127.0.0.1:1/\"\n";
    ResponseReader::new(&Config::from_toml(config).expect("a configuration"))
});

fuzz_target!(|bytes: &[u8]| {
    let &[choice, cut, ref body @ ..] = bytes else { return };
    let kind = KINDS[usize::from(choice & 3)];
    let status = STATUSES[usize::from(choice >> 2 & 7)];
    let (coding, length) = match choice >> 5 {
        0 => (None, None),
        1 => (None, Some(body.len() + 1)),
        coding @ 2..=6 => (Some(CODINGS[usize::from(coding) - 2]), Some(body.len())),
        _ => (None, Some(body.len())),
    };
    let coding = coding.map(|it| format!("Content-Encoding: {it}\r\n")).unwrap_or_default();
    let length = length.map(|it| format!("Content-Length: {it}\r\n")).unwrap_or_default();
    let mut response =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{coding}{length}\r\n").into_bytes();
    response.extend_from_slice(body);
    let unsplit = read(&response, response.len());
    let cut_up = read(&response, usize::from(cut));
    match (&unsplit, &cut_up) {
        // What precedes a mistake of its coding in the same piece may be lost with it.
        (
            Some(ReadResponse::Streamed(some, Some(_))),
            Some(ReadResponse::Streamed(others, Some(_))),
        ) if !coding.is_empty() => {
            assert!(some.iter().zip(others).all(|(one, other)| one == other));
        }
        _ => assert_eq!(unsplit, cut_up),
    }
    match unsplit.expect("a response") {
        ReadResponse::Streamed(events, _) => {
            for event in events {
                let event = str::from_utf8(&event).expect("UTF-8");
                // Each byte of text takes at most six in JSON.
                let bytes = if coding.is_empty() { body.len() } else { MAX_EVENT_BYTES };
                assert!(event.starts_with('{') && event.len() <= bytes * 6 + 64);
                serde_json::from_str::<IgnoredAny>(event).expect("JSON");
            }
        }
        ReadResponse::Accepted(Some(task_id), is_queued) => {
            assert!(is_queued && (1..=MAX_TASK_ID_BYTES).contains(&task_id.len()));
        }
        _ => {}
    }
});

/// `None` = the response is not HTTP.
fn read(response: &[u8], step: usize) -> Option<ReadResponse> {
    let io = Pieces::answer(response, step);
    block_on(async {
        let (mut sender, connection) = http1::handshake(io).await.ok()?;
        let request = Request::get("/").body(Empty::<Bytes>::new()).expect("a request");
        let reading = async {
            let response: Response<_> = sender.send_request(request).await.ok()?;
            Some(READER.read(response).await)
        };
        tokio::pin!(connection);
        tokio::pin!(reading);
        tokio::select! {
            biased;
            read = &mut reading => read,
            _ = &mut connection => reading.await,
        }
    })
}
