//! What an HTTP upstream is sent for a message.

use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};

use super::ValueTemplate;

/// The request for a message, besides its URL.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRequest {
    pub method: Method,
    /// Headers that each request has. Their values may be secrets, and their debug output does not show them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub forward: ForwardedNames,
    pub body: RequestBody,
    /// Whether the client's `message` is a part of the request, so that it must be a text.
    pub needs_text: bool,
}

impl HttpRequest {
    /// Whether a request of this method has a body.
    pub fn has_body(&self) -> bool {
        method_has_body(&self.method)
    }

    /// Whether the client's whole object is a part of the body.
    pub fn sends_whole_object(&self) -> bool {
        self.has_body() && matches!(self.body, RequestBody::Envelope | RequestBody::Data)
    }
}

impl Default for HttpRequest {
    fn default() -> Self {
        Self {
            method: Method::POST,
            headers: Vec::new(),
            forward: ForwardedNames::default(),
            body: RequestBody::Envelope,
            needs_text: true,
        }
    }
}

/// The body of a request. It is JSON in any case.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestBody {
    /// The gateway's own object with the message, its client and its channel.
    Envelope,
    /// The client's object as it is.
    Data,
    Template(ValueTemplate),
}

/// The headers and cookies of a client's handshake that each of its messages is sent with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardedNames {
    pub headers: Vec<HeaderName>,
    pub cookies: Vec<String>,
}

/// `GET` and `DELETE` requests have no body.
pub fn method_has_body(method: &Method) -> bool {
    *method != Method::GET && *method != Method::DELETE
}
