//! HTTP pass-through of everything that is no route. Streams both ways; owns hop-by-hop and
//! forwarding headers.

use std::net::IpAddr;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::config;

pub type ProxyBody = BoxBody<Bytes, hyper::Error>;

/// One a worker thread: its connection pool is its own.
#[derive(Clone)]
pub struct Proxy {}

impl Proxy {
    pub fn new(settings: &config::Proxy) -> Result<Self, String> {
        let _ = settings;
        todo!()
    }

    /// Never fails: what goes wrong is a 404, 502 or 504 with a JSON body.
    pub async fn forward(&self, request: Request<Incoming>, client: IpAddr) -> Response<ProxyBody> {
        let _ = (request, client);
        todo!()
    }
}
