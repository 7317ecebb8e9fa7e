//! Streams of AI APIs, in each dialect and as each type of body. However the bytes are cut, they mean the same, and each
//! publication is a JSON object. The first byte chooses the dialect, the second the type and what is
//! published, the third how the body is cut.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use tidegate::internals::Config;
use tidegate::internals::upstream::{ReadResponse, ResponseReader};
use tidegate_fuzz::{Pieces, block_on};

const DIALECTS: [&str; 9] = [
    "openai-chat",
    "openai-responses",
    "anthropic",
    "gemini",
    "ollama",
    "ai-sdk",
    "ag-ui",
    "langgraph",
    "auto",
];
const KINDS: [&str; 4] =
    ["text/event-stream", "application/x-ndjson", "application/json", "text/plain"];

/// One reader for each dialect and each kind of publication.
static READERS: LazyLock<Vec<[ResponseReader; 2]>> = LazyLock::new(|| {
    let reader = |dialect: &str, publish: &str| {
        let config = format!(
            "[[route]]\npath = \"/\"\nchannel = \"a\"\nupstream = \"app\"\nauth = [\"anonymous\"]\n\
             [upstream.app]\nkind = \"http\"\nurl = \"http://127.0.0.1:1/\"\n\
             dialect = \"{dialect}\"\npublish = \"{publish}\"\n"
        );
        ResponseReader::new(&Config::from_toml(&config).expect("a configuration"))
    };
    DIALECTS.iter().map(|dialect| ["events", "native"].map(|it| reader(dialect, it))).collect()
});

fuzz_target!(|bytes: &[u8]| {
    let &[dialect, choice, cut, ref body @ ..] = bytes else { return };
    let reader = &READERS[usize::from(dialect) % DIALECTS.len()][usize::from(choice >> 2 & 1)];
    let kind = KINDS[usize::from(choice & 3)];
    let length = match choice >> 3 & 1 {
        0 => format!("Content-Length: {}\r\n", body.len()),
        _ => String::new(),
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{length}\r\n");
    let response = [head.as_bytes(), body].concat();
    let unsplit = read(reader, &response, response.len());
    assert_eq!(unsplit, read(reader, &response, usize::from(cut)));
    let Some(ReadResponse::Streamed(events, _)) = unsplit else { return };
    for event in events {
        let event = str::from_utf8(&event).expect("UTF-8");
        assert!(event.starts_with('{'), "{event}");
        serde_json::from_str::<IgnoredAny>(event).expect("JSON");
    }
});

/// `None` = the response is not HTTP.
fn read(reader: &ResponseReader, response: &[u8], step: usize) -> Option<ReadResponse> {
    let io = Pieces::answer(response, step);
    block_on(async {
        let (mut sender, connection) = http1::handshake(io).await.ok()?;
        let request = Request::get("/").body(Empty::<Bytes>::new()).expect("a request");
        let reading = async {
            let response: Response<_> = sender.send_request(request).await.ok()?;
            Some(reader.read(response).await)
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
