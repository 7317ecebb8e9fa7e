//! The body of a response, which drives the connection that it comes over.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::Origin;
use super::connection::{Connection, unwoken};
use super::idle::IdleConnections;

/// The body of a response.
pub enum ResponseBody {
    /// Its connection is driven by a task, or it is empty.
    Driven(Incoming),
    Driving(Box<DrivingBody>),
}

/// A body that drives its connection, which is kept when all of the body was read.
pub struct DrivingBody {
    /// `None` only while this is dropped.
    body: Option<Incoming>,
    /// `None` once the body has ended.
    connection: Option<Box<Connection>>,
    origin: Origin,
    idle: IdleConnections,
}

impl From<Incoming> for ResponseBody {
    fn from(body: Incoming) -> Self {
        Self::Driven(body)
    }
}

impl IdleConnections {
    /// Leaves `connection` to the body that comes over it. One whose response is complete is kept at once.
    pub(super) fn attach(
        &self,
        body: Incoming,
        origin: &Origin,
        connection: Box<Connection>,
    ) -> ResponseBody {
        if body.is_end_stream() {
            self.recycle(origin, connection);
            return ResponseBody::Driven(body);
        }
        let (connection, origin) = (Some(connection), origin.clone());
        ResponseBody::Driving(Box::new(DrivingBody {
            body: Some(body),
            connection,
            origin,
            idle: self.clone(),
        }))
    }
}

impl DrivingBody {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = match self.poll_body() {
            // Asking for more is what makes the driver read it.
            Poll::Pending => {
                if let Some(connection) = &mut self.connection {
                    connection.drive(cx);
                }
                self.poll_body()
            }
            ready => ready,
        };
        if let Poll::Ready(None) = polled
            && let Some(connection) = self.connection.take()
        {
            self.idle.recycle(&self.origin, connection);
        }
        polled
    }

    fn poll_body(&mut self) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(&mut unwoken()),
            None => Poll::Ready(None),
        }
    }
}

/// What is left of the body is not read, unless it has come already.
impl Drop for DrivingBody {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // The driver sees that nobody wants the rest once the body is gone.
        self.body = None;
        self.idle.recycle(&self.origin, connection);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Driven(body) => Pin::new(body).poll_frame(cx),
            Self::Driving(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Driven(body) => body.is_end_stream(),
            Self::Driving(body) => body.body.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Driven(body) => body.size_hint(),
            Self::Driving(body) => body.body.as_ref().map(Body::size_hint).unwrap_or_default(),
        }
    }
}
