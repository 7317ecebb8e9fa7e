//! One connection, which whoever uses it drives.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::unconstrained;

use super::Body;
use crate::http_client::connections::Noted;

type Stream = Noted<MaybeHttpsStream<TokioIo<TcpStream>>>;

/// A connection that serves one request at a time.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    /// `None` once the connection has ended.
    driver: Option<http1::Connection<Stream, Body>>,
    /// A response has come over it.
    pub was_used: bool,
}

/// A request that has no response.
pub(super) struct Unsent {
    pub error: hyper::Error,
    /// The request, if none of it was written.
    pub request: Option<Request<Body>>,
}

impl Connection {
    pub async fn open(stream: Stream) -> hyper::Result<Box<Self>> {
        let (sender, driver) = http1::handshake(stream).await?;
        Ok(Box::new(Self { sender, driver: Some(driver), was_used: false }))
    }

    /// Reads and writes as far as possible. Returns false once the connection has ended.
    pub fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        // Its error was given to the request or to the body.
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            // Dropping it ends what still waits for it.
            self.driver = None;
        }
        self.driver.is_some()
    }

    /// Whether it can take a request.
    pub fn is_ready(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Sends a request, and waits for the head of its response.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Unsent> {
        // The response comes by a poll of the driver, which the caller's waker follows. So this future needs no waker
        // of its own, nor may it give way to other tasks, which needs one.
        let mut response = pin!(unconstrained(self.sender.try_send_request(request)));
        let driver = &mut self.driver;
        let received = poll_fn(|cx| {
            if let Some(driving) = driver
                && Pin::new(driving).poll(cx).is_ready()
            {
                *driver = None;
            }
            match response.as_mut().poll(&mut unwoken()) {
                Poll::Ready(received) => Poll::Ready(received),
                Poll::Pending => Poll::Pending,
            }
        });
        received.await.map_err(|mut error| {
            let request = error.take_message();
            Unsent { error: error.into_error(), request }
        })
    }
}

/// The context of a poll that the driver completes.
pub(super) fn unwoken() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
