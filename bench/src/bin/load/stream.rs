//! Measures streamed replies per second of the server's CPU time: the upstream writes a long reply, and the server
//! publishes each of its deltas.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::connection::{Connection, text_frame};
use super::process::cpu_seconds;
use super::replies::Reply;
use super::{Result, Target};

const WARM_UP: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// The address of the upstream that the server relays to.
    #[arg(long, default_value = "127.0.0.1:9103")]
    upstream: SocketAddr,
    /// The format of the reply, which the server must be configured for.
    #[arg(long)]
    dialect: String,
    /// The deltas of a reply.
    #[arg(long, default_value_t = 2000)]
    deltas: u64,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let Target { server, pid, connections } = options.target;
    let upstream = TcpListener::bind(options.upstream).await?;
    let reply = Reply::new(&options.dialect, options.deltas)?;
    // task_queued, processing_started, what is in the reply, and complete.
    let frames = reply.events + 3;
    tokio::task::spawn_local(accept(upstream, Rc::new(reply)));
    let answered = Rc::new(Cell::new(0_u64));
    let mut clients = Vec::new();
    for number in 0..connections {
        let connection = Connection::open(server, &format!("stream-{number}")).await?;
        clients.push(tokio::task::spawn_local(talk(connection, frames, answered.clone())));
    }
    tokio::time::sleep(WARM_UP).await;
    let (started, cpu, first) = (Instant::now(), cpu_seconds(pid)?, answered.get());
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(pid)? - cpu);
    let deltas = (answered.get() - first) as f64;
    if clients.iter().any(|client| client.is_finished()) {
        return Err("the server ended a connection, or a reply had other events".into());
    }
    Ok(json!({
        "connections": connections,
        "deltas": deltas,
        "server_cpu_seconds": cpu,
        "deltas_per_second": (deltas / seconds).round(),
        "deltas_per_core_second": (deltas / cpu).round(),
    }))
}

/// Asks for one reply after the other on one connection. Ends if a reply has more events than it should.
async fn talk(mut connection: Connection, frames: u64, answered: Rc<Cell<u64>>) {
    let frame = text_frame(br#"{"message":"Tell me a long story."}"#);
    while connection.write(&frame).await.is_ok() {
        let mut left = frames;
        while left > 0 {
            let Ok(received) = connection.frames().await else { return };
            let Some(rest) = left.checked_sub(received) else { return };
            left = rest;
            answered.set(answered.get() + received);
        }
    }
}

async fn accept(listener: TcpListener, reply: Rc<Reply>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let reply = reply.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let reply = reply.clone();
            async move {
                let _ = request.into_body().collect().await;
                let mut response = Response::new(Full::new(reply.body.clone()));
                let kind = HeaderValue::from_static(reply.content_type);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                Ok::<_, Infallible>(response)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::task::spawn_local(connection);
    }
}
