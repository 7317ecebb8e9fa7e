//! The app behind the demo's gateway: two loopback servers on one thread, as a team's API and its
//! internal worker would be.
//!
//! They have a port each, so that the public proxy reaches the page and not the worker.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::LocalSet;

use super::page::Page;
use super::worker;
use crate::config::Secret;

/// A server that cannot accept (out of files) tries again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The app's two ports. It lives until the process ends.
pub struct App {
    /// Serves the page, and the session that comes with it.
    pub page: SocketAddr,
    /// Answers messages.
    pub worker: SocketAddr,
}

impl App {
    /// Binds both servers to free loopback ports and starts their thread.
    pub fn start(jwt_secret: &Secret) -> std::io::Result<Self> {
        let (page, page_address) = bind()?;
        let (worker, worker_address) = bind()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let jwt_secret = jwt_secret.clone();
        std::thread::Builder::new().name("demo-app".to_owned()).spawn(move || {
            let pages = Rc::new(Page::new(jwt_secret));
            let answer = move |request| {
                let pages = Rc::clone(&pages);
                async move { pages.answer(&request) }
            };
            LocalSet::new().block_on(&runtime, async {
                tokio::join!(serve(page, answer), serve(worker, worker::answer));
            });
        })?;
        Ok(Self { page: page_address, worker: worker_address })
    }
}

fn bind() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn serve<F, A>(listener: TcpListener, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + 'static,
    A: Future<Output = Response<Body>> + 'static,
{
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(event = "demo_app_failed", %error, "demo app"),
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let answer = answer.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            let _closed = connection.await;
        });
    }
}

/// A status with a line of text.
pub fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}

pub fn full(body: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(body.into()).boxed_unsync()
}
