//! The baseline for comparisons: the same service in the obvious design, on fastwebsockets and hyper.
//!
//! It uses `upgrade()`, a reading and a writing task per connection with a bounded channel between them, a
//! mutex around the map of channels, and a copy of the publication for each subscriber. It has the same URLs
//! and the same JSON, and leaves out what the comparison does not need: tokens, limits, histories, metrics, drain.
//! With `--redis` it also delivers what is published in Redis, and with `--list` it relays to a list there.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use clap::Parser;
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use redis::AsyncCommands;
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// The length of a client's send queue, as in the gateway.
const SEND_QUEUE: usize = 256;

#[derive(Parser)]
#[command(about = "The obvious design: fastwebsockets and hyper, two tasks per connection")]
struct Options {
    /// The address for WebSockets, at /ws/chat/{id}/.
    #[arg(long, default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
    /// The address for POST /v1/publish.
    #[arg(long, default_value = "127.0.0.1:9102")]
    admin: SocketAddr,
    /// The URL that messages are relayed to.
    #[arg(long, default_value = "http://127.0.0.1:9103/messages")]
    upstream: String,
    /// A Redis whose channels are subscribed to, such as redis://127.0.0.1:6379.
    #[arg(long)]
    redis: Option<String>,
    /// The list in this Redis that messages are relayed to, in place of the upstream.
    #[arg(long, requires = "redis")]
    list: Option<String>,
}

type Outgoing = mpsc::Sender<Frame<'static>>;

struct Server {
    channels: Mutex<HashMap<String, Vec<Outgoing>>>,
    client: Client<HttpConnector, Full<Bytes>>,
    upstream: String,
    redis: Option<Redis>,
}

struct Redis {
    subscriptions: tokio::sync::Mutex<PubSubSink>,
    commands: MultiplexedConnection,
    list: Option<String>,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: Options) -> std::io::Result<()> {
    let (redis, published) = match &options.redis {
        Some(url) => {
            let (redis, published) =
                connect(url, options.list).await.map_err(std::io::Error::other)?;
            (Some(redis), Some(published))
        }
        None => (None, None),
    };
    let server = Arc::new(Server {
        channels: Mutex::default(),
        client: Client::builder(TokioExecutor::new()).build_http(),
        upstream: options.upstream,
        redis,
    });
    if let Some(mut published) = published {
        let server = server.clone();
        tokio::spawn(async move {
            while let Some(message) = published.next().await {
                server.deliver(message.get_channel_name(), message.get_payload_bytes());
            }
        });
    }
    let public = TcpListener::bind(options.listen).await?;
    let admin = TcpListener::bind(options.admin).await?;
    println!("listening on {} and {}", public.local_addr()?, admin.local_addr()?);
    let publishing = server.clone();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = admin.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let server = publishing.clone();
            let service = service_fn(move |request| publish(server.clone(), request));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    loop {
        let (stream, _) = public.accept().await?;
        let _ = stream.set_nodelay(true);
        let server = server.clone();
        let service = service_fn(move |request| accept(server.clone(), request));
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades(),
        );
    }
}

async fn connect(url: &str, list: Option<String>) -> redis::RedisResult<(Redis, PubSubStream)> {
    let client = redis::Client::open(url)?;
    let (sink, stream) = client.get_async_pubsub().await?.split();
    let commands = client.get_multiplexed_async_connection().await?;
    Ok((Redis { subscriptions: sink.into(), commands, list }, stream))
}

impl Server {
    fn deliver(&self, channel: &str, payload: &[u8]) {
        let channels = self.channels.lock().unwrap();
        for subscriber in channels.get(channel).into_iter().flatten() {
            // If a slow client's queue is full, it loses the publication.
            let _ = subscriber.try_send(text(payload.into()));
        }
    }

    /// Adds a subscriber, and returns whether it is the first of its channel.
    fn join(&self, channel: &str, outgoing: &Outgoing) -> bool {
        let mut channels = self.channels.lock().unwrap();
        let subscribers = channels.entry(channel.to_owned()).or_default();
        subscribers.push(outgoing.clone());
        subscribers.len() == 1
    }

    /// Removes a subscriber, and returns whether it was the last of its channel.
    fn leave(&self, channel: &str, outgoing: &Outgoing) -> bool {
        let mut channels = self.channels.lock().unwrap();
        let Some(subscribers) = channels.get_mut(channel) else { return false };
        subscribers.retain(|other| !other.same_channel(outgoing));
        let last = subscribers.is_empty();
        if last {
            channels.remove(channel);
        }
        last
    }
}

async fn accept(
    server: Arc<Server>,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let id = request.uri().path().strip_prefix("/ws/chat/").map(|id| id.trim_end_matches('/'));
    let Some(id) = id.map(str::to_owned) else { return Ok(answer(StatusCode::NOT_FOUND, "")) };
    let Ok((response, upgraded)) = upgrade(&mut request) else {
        return Ok(answer(StatusCode::BAD_REQUEST, ""));
    };
    tokio::spawn(async move { drop(session(server, upgraded, id).await) });
    Ok(response.map(|_| Full::default()))
}

async fn session(
    server: Arc<Server>,
    upgraded: UpgradeFut,
    id: String,
) -> Result<(), WebSocketError> {
    let (reader, mut writer) = upgraded.await?.split(tokio::io::split);
    let mut reader = FragmentCollectorRead::new(reader);
    let (outgoing, mut queue) = mpsc::channel::<Frame>(SEND_QUEUE);
    tokio::spawn(async move {
        while let Some(frame) = queue.recv().await {
            if writer.write_frame(frame).await.is_err() {
                return;
            }
        }
    });
    let channel = format!("chat_{id}");
    let connected = json!({"event": "connected", "conversation_id": id});
    if server.join(&channel, &outgoing)
        && let Some(redis) = &server.redis
    {
        let _ = redis.subscriptions.lock().await.subscribe(&channel).await;
    }
    let _ = outgoing.send(text(connected.to_string().into())).await;
    let ended = read(&server, &mut reader, &outgoing, &channel).await;
    if server.leave(&channel, &outgoing)
        && let Some(redis) = &server.redis
    {
        let _ = redis.subscriptions.lock().await.unsubscribe(&channel).await;
    }
    ended
}

type Reader = FragmentCollectorRead<tokio::io::ReadHalf<TokioIo<hyper::upgrade::Upgraded>>>;

async fn read(
    server: &Server,
    reader: &mut Reader,
    outgoing: &Outgoing,
    channel: &str,
) -> Result<(), WebSocketError> {
    loop {
        let frame = reader
            .read_frame(&mut |frame: Frame<'_>| {
                // The library sends pongs and closes through this callback.
                let payload = Payload::Owned(frame.payload.to_vec());
                let frame = Frame::new(true, frame.opcode, None, payload);
                let outgoing = outgoing.clone();
                async move { outgoing.send(frame).await }
            })
            .await?;
        let answers = match frame.opcode {
            OpCode::Text => message(server, &frame.payload, channel).await,
            OpCode::Close => return Ok(()),
            _ => continue,
        };
        for answer in answers {
            if outgoing.send(text(answer.into_bytes())).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn text(payload: Vec<u8>) -> Frame<'static> {
    Frame::text(Payload::Owned(payload))
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    message: Option<String>,
}

/// Relays a message, and returns what its client gets: an answer, and the events of a streamed reply.
async fn message(server: &Server, frame: &[u8], channel: &str) -> Vec<String> {
    let error =
        |code: &str| vec![json!({"event": "error", "error": code, "code": code}).to_string()];
    let Ok(message) = serde_json::from_slice::<Message>(frame) else {
        return error("invalid_json");
    };
    if message.kind == Some("ping") {
        return vec![json!({"event": "pong"}).to_string()];
    }
    let Some(text) = message.message.filter(|text| !text.trim().is_empty()) else {
        return error("empty_message");
    };
    let task_id = uuid::Uuid::new_v4().to_string();
    let data: &RawValue = serde_json::from_slice(frame).expect("parsed before");
    let body = json!({"message": text, "data": data, "channel": channel, "task_id": task_id});
    let mut answers = vec![json!({"event": "task_queued", "task_id": task_id}).to_string()];
    if let Some(Redis { commands, list: Some(list), .. }) = &server.redis {
        let pushed: redis::RedisResult<()> = commands.clone().lpush(list, body.to_string()).await;
        return if pushed.is_ok() { answers } else { error("upstream_unavailable") };
    }
    let request = Request::post(&server.upstream)
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .expect("a valid request");
    let Ok(response) = server.client.request(request).await else {
        return error("upstream_unavailable");
    };
    let successful = response.status().is_success();
    let body = response.into_body().collect().await;
    let Some(body) = body.ok().filter(|_| successful) else { return error("upstream_unavailable") };
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    answers.extend(body.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned));
    answers
}

#[derive(Deserialize)]
struct Publish<'a> {
    #[serde(borrow)]
    publications: Option<Vec<Publication<'a>>>,
    #[serde(borrow)]
    channel: Option<&'a str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Publication<'a> {
    channel: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

async fn publish(
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let Ok(publish) = serde_json::from_slice::<Publish>(&body) else {
        return Ok(answer(StatusCode::BAD_REQUEST, "{}"));
    };
    let single = publish.channel.zip(publish.data);
    let single = single.map(|(channel, data)| Publication { channel, data });
    for publication in publish.publications.into_iter().flatten().chain(single) {
        server.deliver(publication.channel, publication.data.get().as_bytes());
    }
    Ok(answer(StatusCode::OK, "{}"))
}

fn answer(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}
