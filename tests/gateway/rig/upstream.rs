//! The HTTP server that a gateway relays to. It records requests, and the test decides its replies.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::within;

/// A request as it was received.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub method: String,
    /// The path and the query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Recorded {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of ASCII"))
    }
}

/// How an [`Upstream`] answers a request.
pub enum Reply {
    /// A complete answer.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: Bytes },
    /// The headers at once, then the body that the test writes; see [`Reply::stream`].
    Stream { content_type: &'static str, body: Chunks },
    /// Another reply, once the test releases it.
    Delayed(watch::Receiver<bool>, Box<Reply>),
    /// No answer for as long as the gateway waits.
    Hang,
    /// The connection ends without an answer.
    Hangup,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: Bytes::new() }
    }

    pub fn json(status: u16, value: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self::Answer { status, headers, body: value.to_string().into() }
    }

    /// Streams a body that the test writes piece by piece through the returned handle.
    pub fn stream(content_type: &'static str) -> (StreamWriter, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (StreamWriter(sender), Self::Stream { content_type, body: Chunks(receiver) })
    }
}

/// Answers requests with these replies in order, then with 202.
pub fn in_turn(
    replies: impl IntoIterator<Item = Reply>,
) -> impl Fn(&Recorded) -> Reply + Clone + Send + Sync + 'static {
    let mut replies: Vec<Reply> = replies.into_iter().collect();
    replies.reverse();
    let replies = Arc::new(Mutex::new(replies));
    move |_| replies.lock().unwrap().pop().unwrap_or_else(|| Reply::status(202))
}

/// Writes the body of a streamed answer. Dropping it ends the body normally.
#[derive(Clone)]
pub struct StreamWriter(mpsc::UnboundedSender<io::Result<Bytes>>);

impl StreamWriter {
    /// Writes a piece of the body. Returns `false` if the gateway has closed the response.
    pub fn write(&self, bytes: impl Into<Bytes>) -> bool {
        self.0.send(Ok(bytes.into())).is_ok()
    }

    /// Closes the connection in the middle of the body.
    pub fn abort(self) {
        let _ = self.0.send(Err(io::Error::other("the test breaks the response off")));
    }

    /// Waits until the gateway has closed the response.
    pub async fn closed(&self) {
        within("end of the response by the gateway", self.0.closed()).await;
    }
}

/// The body of a streamed answer.
pub struct Chunks(mpsc::UnboundedReceiver<io::Result<Bytes>>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

/// A loopback HTTP server whose behaviour is a closure from request to [`Reply`].
pub struct Upstream {
    addr: SocketAddr,
    requests: Arc<Mutex<Vec<Recorded>>>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<Recorded>>,
    server: JoinHandle<()>,
}

impl Upstream {
    pub async fn start(
        behaviour: impl Fn(&Recorded) -> Reply + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let recorder = Recorder { requests: requests.clone(), arrived };
        let server = tokio::spawn(serve(listener, recorder, behaviour));
        Self { addr, requests, arrivals: arrivals.into(), server }
    }

    /// Accepts every message with an empty 202.
    pub async fn accepting() -> Self {
        Self::start(|_| Reply::status(202)).await
    }

    /// Answers every connection with the same bytes, whatever the request is, and closes it.
    pub async fn sending(bytes: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().unwrap();
        let (_, arrivals) = mpsc::unbounded_channel();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(bytes).await;
            }
        });
        Self { addr, requests: Arc::default(), arrivals: arrivals.into(), server }
    }

    /// The URL `http://127.0.0.1:PORT` followed by `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for the next request that has not been returned here yet.
    pub async fn next_request(&self) -> Recorded {
        let mut arrivals = self.arrivals.lock().await;
        within("request to the upstream", arrivals.recv()).await.expect("the upstream runs")
    }

    /// Every request that has been received so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Recorder {
    requests: Arc<Mutex<Vec<Recorded>>>,
    arrived: mpsc::UnboundedSender<Recorded>,
}

impl Recorder {
    async fn record(&self, request: Request<Incoming>) -> io::Result<Recorded> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let method = head.method.to_string();
        let recorded = Recorded { method, path, headers: head.headers, body };
        self.requests.lock().unwrap().push(recorded.clone());
        let _ = self.arrived.send(recorded.clone());
        Ok(recorded)
    }
}

async fn serve(
    listener: TcpListener,
    recorder: Recorder,
    behaviour: impl Fn(&Recorded) -> Reply + Clone + Send + Sync + 'static,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let (recorder, behaviour) = (recorder.clone(), behaviour.clone());
        let service = service_fn(move |request| {
            let (recorder, behaviour) = (recorder.clone(), behaviour.clone());
            async move {
                let recorded = recorder.record(request).await?;
                answer(behaviour(&recorded)).await
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

/// Builds the response of a reply. An error makes hyper close the connection.
async fn answer(mut reply: Reply) -> io::Result<Response<BoxBody<Bytes, io::Error>>> {
    while let Reply::Delayed(mut released, later) = reply {
        released.wait_for(|released| *released).await.map_err(io::Error::other)?;
        reply = *later;
    }
    let (response, body) = match reply {
        Reply::Answer { status, headers, body } => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            let body = Full::new(body).map_err(|never: Infallible| match never {});
            (response, body.boxed())
        }
        Reply::Stream { content_type, body } => {
            (Response::builder().header("content-type", content_type), body.boxed())
        }
        Reply::Delayed(..) | Reply::Hang => std::future::pending().await,
        Reply::Hangup => return Err(io::Error::other("the test hangs up")),
    };
    response.body(body).map_err(io::Error::other)
}
