//! WebSocket servers behind a gateway: one that echoes, and one whose sockets the test controls.

use std::convert::Infallible;
use std::net::SocketAddr;

use fastwebsockets::upgrade::upgrade;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::socket::{Event, Socket};
use super::within;

/// A WebSocket server whose connections the test accepts one by one.
pub struct WebSocketServer {
    addr: SocketAddr,
    accepted: mpsc::UnboundedReceiver<Accepted>,
    server: JoinHandle<()>,
}

/// A connection from the gateway with the URI and headers of its handshake.
pub struct Accepted {
    pub socket: Socket,
    pub uri: Uri,
    pub headers: HeaderMap,
}

impl WebSocketServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().unwrap();
        let (sender, accepted) = mpsc::unbounded_channel();
        Self { addr, accepted, server: tokio::spawn(serve(listener, sender)) }
    }

    /// The URL `ws://127.0.0.1:PORT`, without a path.
    pub fn url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for the next connection that a gateway opens.
    pub async fn accept(&mut self) -> Accepted {
        within("connection from the gateway", self.accepted.recv()).await.expect("the server runs")
    }
}

impl Drop for WebSocketServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Sends every message back unchanged, and echoes the code of a close frame.
pub struct Echo {
    addr: SocketAddr,
    server: JoinHandle<()>,
}

impl Echo {
    pub async fn start() -> Self {
        let mut inner = WebSocketServer::start().await;
        let addr = inner.addr;
        let server = tokio::spawn(async move {
            while let Some(accepted) = inner.accepted.recv().await {
                tokio::spawn(echo(accepted.socket));
            }
        });
        Self { addr, server }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn echo(mut socket: Socket) {
    loop {
        match socket.next_without_deadline().await {
            message @ (Event::Text(_) | Event::Binary(_)) => {
                if !socket.try_send(message).await {
                    return;
                }
            }
            Event::Closed(..) | Event::Lost => return,
        }
    }
}

async fn serve(listener: TcpListener, accepted: mpsc::UnboundedSender<Accepted>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let _ = stream.set_nodelay(true);
        let accepted = accepted.clone();
        let service = service_fn(move |request| accept(request, accepted.clone()));
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades(),
        );
    }
}

async fn accept(
    mut request: Request<Incoming>,
    accepted: mpsc::UnboundedSender<Accepted>,
) -> Result<hyper::Response<http_body_util::Empty<bytes::Bytes>>, Infallible> {
    let Ok((response, upgraded)) = upgrade(&mut request) else {
        let refusal = hyper::Response::builder().status(400).body(http_body_util::Empty::new());
        return Ok(refusal.expect("a valid response"));
    };
    let (uri, headers) = (request.uri().clone(), request.headers().clone());
    tokio::spawn(async move {
        if let Ok(socket) = upgraded.await {
            let socket = Socket::new(socket);
            let _ = accepted.send(Accepted { socket, uri, headers });
        }
    });
    Ok(response)
}
