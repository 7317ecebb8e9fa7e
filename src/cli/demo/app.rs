//! The app behind the demo's gateway: an API and an internal worker, which are two loopback servers on one
//! thread.
//!
//! Each has its own port, so that the public proxy reaches the page but not the worker.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::LocalSet;

use super::page::Page;
use super::responses::Body;
use super::worker;
use crate::config::Secret;

/// The pause after a failed accept, for example because the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The addresses of the running app, which lives until the process ends.
pub struct App {
    /// Serves the page and its session.
    pub page: SocketAddr,
    /// Replies to messages.
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
                let response = answer(request);
                async move { Ok::<_, Infallible>(response.await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            // Errors of a client's connection do not matter to the demo.
            let _ = connection.await;
        });
    }
}
