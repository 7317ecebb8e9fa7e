//! What is done for each message, publication and credential.

use std::hint::black_box;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use tidegate::internals::delivery::{ChannelName, MemoryHistory};
use tidegate::internals::gateway::log_filter;
use tidegate::internals::json::published_object;
use tidegate::internals::limits::{LimitName, LocalBucket, Params, SharedLimits, Verdict};
use tidegate::internals::sse::SseParser;
use tidegate::internals::telemetry::{
    ConnectionFields, ConnectionId, FrameKind, PathPattern, RequestId, RouteMetrics, TraceContext,
    frame_received, install,
};
use tidegate::internals::tokens::{JwtVerifier, TokenRecord, TokenStore};
use tidegate::internals::{ClientFrame, Config};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::count;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn config() -> Config {
    let toml = format!(
        "[jwt]\nkeys = [{{ alg = \"HS256\", secret = {SECRET:?} }}]\n\
         [[route]]\npath = \"/\"\nchannel = \"a\"\nupstream = \"\"\n\
         [route.limits]\nmessages_per_user = \"1000000/1s burst 1000000\"\n\
         messages_per_connection = \"1000000/1s burst 1000000\"\n"
    );
    Config::from_toml(&toml).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

pub fn run() {
    let config = config();
    envelopes();
    publications(&config);
    events();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        limits(&config).await;
        credentials(&config).await;
    });
    telemetry();
}

fn envelopes() {
    let short = json!({"message": "How is the weather today?", "id": "0b6f9b7e-3c1d-4a55-9d0b"});
    let turn =
        json!({"role": "user", "content": "\"How is the weather?\"\nA bit of it. ".repeat(8)});
    let long = json!({"message": "And tomorrow?", "messages": vec![turn; 50]});
    for (name, envelope, times) in
        [("parse an envelope", short, 128), ("parse an envelope of 16 KiB", long, 4)]
    {
        let text = envelope.to_string();
        count(name, times, || {
            (0..times).for_each(|_| assert!(black_box(ClientFrame::parse(&text)).is_ok()));
        });
    }
}

fn publications(config: &Config) {
    let event =
        json!({"event": "chunk", "chunk": "One of many words. ".repeat(10), "task_id": "1"});
    let text = event.to_string();
    count("check a publication of 240 bytes", 128, || {
        (0..128).for_each(|_| drop(black_box(published_object(&text))));
    });
    let channel = ChannelName::new("chat_1").expect("a name");
    let history = &config.routes[0].history;
    let memory = MemoryHistory::new(1 << 30);
    let data = [Bytes::from(text)];
    // More than a history keeps, so that each publication replaces one.
    let append = || {
        let emit = |delivery| drop(black_box(delivery));
        black_box(memory.publish(&channel, Some(history), &data, None, emit));
    };
    (0..1000).for_each(|_| append());
    count("append a publication to a full history in memory", 128, || {
        (0..128).for_each(|_| append());
    });
}

fn events() {
    let event = "data: {\"event\":\"chunk\",\"chunk\":\"One of many words\"}\n\n";
    let stream = Bytes::from(event.repeat(512));
    count("parse a server-sent event", 512, || {
        let mut parser = SseParser::new(1 << 20);
        let mut events = 0;
        for at in (0..stream.len()).step_by(1400) {
            let mut piece = stream.slice(at..stream.len().min(at + 1400));
            while let Ok(Some(event)) = parser.next(&mut piece) {
                drop(black_box(event));
                events += 1;
            }
        }
        assert_eq!(events, 512);
    });
}

/// Runs a future that never waits.
macro_rules! now {
    ($future:expr) => {
        futures_util::FutureExt::now_or_never($future).expect("nothing to wait for")
    };
}

async fn limits(config: &Config) {
    let limits = &config.routes[0].limits;
    let rate = limits.messages_per_connection.expect("a rate");
    let mut bucket = LocalBucket::default();
    count("check the rate of a connection", 1024, || {
        for _ in 0..1024 {
            let verdict = bucket.take(black_box(rate), Duration::from_secs(1));
            assert_eq!(black_box(verdict), Verdict::Allowed);
        }
    });
    let rate = limits.messages_per_user.clone().expect("a rate");
    let (shared, params) = (SharedLimits::memory(), Params::default());
    count("check the rate of a user in memory", 128, || {
        for _ in 0..128 {
            let taken = shared.take(LimitName::Messages, "/", &params, "user-1", &rate);
            assert_eq!(now!(taken), Ok(Verdict::Allowed));
        }
    });
}

async fn credentials(config: &Config) {
    let store = TokenStore::memory(Duration::from_secs(60));
    let record = br#"{"user_id":1,"username":"ana","channels":["chat_*"]}"#;
    let record = TokenRecord::read(record).ok().expect("a record");
    let mut tokens: Vec<String> = Vec::with_capacity(256);
    count("issue a token in memory", 128, || {
        tokens.extend((0..128).map(|_| now!(store.issue(&record)).expect("a token")));
    });
    let mut tokens = tokens.iter();
    count("consume a token in memory", 128, || {
        for token in tokens.by_ref().take(128) {
            assert!(now!(store.consume(token)).expect("the store").is_some());
        }
    });
    let verifier = JwtVerifier::new(&config.jwt).expect("keys");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    // Each for another user, so that no answer is a remembered one.
    let jwts: Vec<String> = (0..32)
        .map(|user| {
            let claims = json!({"user_id": 1000 + user, "username": "ana", "exp": now + 3600});
            jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a JWT")
        })
        .collect();
    let mut jwts = jwts.iter();
    count("verify a JWT, HS256", 16, || {
        for jwt in jwts.by_ref().take(16) {
            assert!(now!(verifier.verify(jwt)).is_ok());
        }
    });
}

fn telemetry() {
    let _metrics = install().expect("the recorder");
    let (control, filter) = log_filter("info", None).expect("a level");
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(io::sink);
    tracing_subscriber::registry().with(filter).with(lines).init();
    let trace = TraceContext::new();
    let (request, channel) = (RequestId::new(None, &trace), ChannelName::new("chat_1"));
    let channel = channel.expect("a name");
    let connection = ConnectionId::random();
    let fields =
        ConnectionFields { connection, request: &request, user: None, channel: Some(&channel) };
    let metrics = RouteMetrics::of(&PathPattern::parse("/").expect("a pattern"));
    let record = || {
        frame_received(fields, FrameKind::Message, 64, Some("m-1"));
        metrics.messages.queued(fields, Some("task-1"));
    };
    count("metrics of a message", 128, || (0..128).for_each(|_| record()));
    control.set_level("debug").expect("a level");
    count("metrics and two log lines of a message", 32, || (0..32).for_each(|_| record()));
}
