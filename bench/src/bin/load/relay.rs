//! Measures round trips per second of the server's CPU time: client → server → upstream → server → client.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::connection::{Connection, text_frame};
use super::process::{cpu_seconds, peak_memory};
use super::{Result, Target};

const WARM_UP: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// The address of the upstream that the server relays to.
    #[arg(long, default_value = "127.0.0.1:9103")]
    upstream: SocketAddr,
    /// The path of the clients, before the name of their conversation.
    #[arg(long, default_value = "/ws/chat/")]
    path: String,
    /// The size in bytes of each message, which holds a whole conversation; 0: a short message.
    #[arg(long, default_value_t = 0)]
    bytes: usize,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let Target { server, pid, connections } = options.target;
    let upstream = TcpListener::bind(options.upstream).await?;
    let taken = Rc::new(Cell::new(0_u64));
    tokio::task::spawn_local(accept(upstream, taken.clone()));
    let answered = Rc::new(Cell::new(0_u64));
    let frame: Rc<[u8]> = text_frame(message(options.bytes).as_bytes()).into();
    let mut clients = Vec::new();
    for number in 0..connections {
        let path = format!("{}relay-{number}/", options.path);
        let connection = Connection::open_path(server, &path).await?;
        clients.push(tokio::task::spawn_local(talk(connection, frame.clone(), answered.clone())));
    }
    tokio::time::sleep(WARM_UP).await;
    let (started, cpu, first) = (Instant::now(), cpu_seconds(pid)?, answered.get());
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(pid)? - cpu);
    let trips = (answered.get() - first) as f64;
    if clients.iter().any(|client| client.is_finished()) {
        return Err("the server ended a connection".into());
    }
    // An error event would count as an answer, so the upstream must have received as many messages.
    if taken.get() < answered.get() {
        return Err(format!("{} answers, {} messages", answered.get(), taken.get()).into());
    }
    Ok(json!({
        "connections": connections,
        "round_trips": trips,
        "server_cpu_seconds": cpu,
        "round_trips_per_second": (trips / seconds).round(),
        "round_trips_per_core_second": (trips / cpu).round(),
        "server_peak_bytes": peak_memory(pid)?,
    }))
}

/// Sends messages on one connection, one in flight at a time.
async fn talk(mut connection: Connection, frame: Rc<[u8]>, answered: Rc<Cell<u64>>) {
    while connection.write(&frame).await.is_ok() {
        match connection.frames().await {
            Ok(frames) => answered.set(answered.get() + frames),
            Err(_) => return,
        }
    }
}

/// A message of a chat page: the latest text and, up to a size, the conversation so far.
fn message(bytes: usize) -> String {
    let text = "How is the weather on the other side of the gateway today?";
    let turn = json!({"role": "user", "content": format!("\"{text}\"\n").repeat(8)});
    let mut message = json!({"message": text, "messages": []});
    let count = bytes.saturating_sub(message.to_string().len()) / (turn.to_string().len() + 1);
    message["messages"] = vec![turn; count].into();
    message.to_string()
}

async fn accept(listener: TcpListener, taken: Rc<Cell<u64>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let taken = taken.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let taken = taken.clone();
            async move {
                let _ = request.into_body().collect().await;
                taken.set(taken.get() + 1);
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.status_mut() = StatusCode::ACCEPTED;
                Ok::<_, Infallible>(response)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::task::spawn_local(connection);
    }
}
