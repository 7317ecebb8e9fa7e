//! Calls of `POST /v1/publish`: what the gateway reads without the HTTP library, the library reads as the same request.
//! The first byte chooses into which pieces the bytes are cut.
#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use libfuzzer_sys::fuzz_target;
use tidegate::internals::handshake::check_head;
use tidegate::internals::server_api::{Front, front};
use tidegate_fuzz::{Pieces, block_on};

fuzz_target!(|bytes: &[u8]| {
    let &[cut, ref bytes @ ..] = bytes else { return };
    let call = match front(bytes) {
        Front::Call(call) => call,
        Front::Partial { length, .. } => return assert!(length > bytes.len()),
        Front::Other => return,
    };
    let (io, _) = Pieces::request(&bytes[..call.body.end], usize::from(cut));
    let read = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| {
        let read = &read;
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            read.borrow_mut().push(Request::from_parts(head, body));
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    });
    // The peer has closed after its request.
    let _ = block_on(http1::Builder::new().half_close(true).serve_connection(io, service));
    let mut read = read.take();
    assert_eq!(read.len(), 1);
    let mut request = read.remove(0);
    check_head(&mut request).expect("a valid head");
    assert_eq!((request.method(), request.version()), (&Method::POST, Version::HTTP_11));
    assert_eq!(request.uri(), "/v1/publish");
    let header = |name: &str| {
        let mut values = request.headers().get_all(name).iter();
        let value = values.next().map(|value| value.to_str().expect("visible ASCII"));
        assert!(values.next().is_none(), "{name} occurs twice");
        value
    };
    assert_eq!(header("authorization"), call.authorization);
    assert_eq!(header("x-api-key"), call.api_key);
    let mut connection = request.headers().get_all("connection").iter();
    assert!(connection.all(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive")));
    assert_eq!(header("transfer-encoding"), None);
    assert_eq!(request.body(), &bytes[call.body]);
});
