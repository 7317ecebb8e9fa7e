//! The body of an answer: complete, or a stream that goes on.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Frame, SizeHint};

/// Gives the next part of a stream; `None` ends it.
type NextPart = dyn FnMut(&mut Context<'_>) -> Poll<Option<Bytes>>;

/// The body of an answer.
pub enum Body {
    Complete(Full<Bytes>),
    Stream(Box<NextPart>),
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Complete(Full::from(text))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Complete(Full::from(bytes))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Complete(Full::from(text))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Complete(body) => Pin::new(body).poll_frame(cx),
            Self::Stream(next) => next(cx).map(|part| Some(Ok(Frame::data(part?)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Complete(body) => body.is_end_stream(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Complete(body) => body.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
