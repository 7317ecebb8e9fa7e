//! A response body that keeps a permit until it was sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};

use super::ProxyBody;

/// A body, and a permit of the request that it answers.
pub struct HeldBody<P> {
    body: ProxyBody,
    _permit: P,
}

impl<P: Send + Sync + Unpin + 'static> HeldBody<P> {
    /// Keeps `permit`, if there is one, until the body of `response` is dropped.
    pub fn hold(response: Response<ProxyBody>, permit: Option<P>) -> Response<ProxyBody> {
        match permit {
            Some(permit) => response.map(|body| Self { body, _permit: permit }.boxed()),
            None => response,
        }
    }
}

impl<P: Unpin> Body for HeldBody<P> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
