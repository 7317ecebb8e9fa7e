//! Heads of HTTP requests: read by the real HTTP library, then by the gateway's own checks in their order. The first
//! byte chooses whether the peer is a trusted proxy, the second into which pieces the bytes are cut.
#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use libfuzzer_sys::fuzz_target;
use tidegate::internals::Config;
use tidegate::internals::handshake::{
    ClientAddress, ForwardingHeader, Found, Handshake, HandshakeAttempt, check_head,
    unify_forwarding, upgrade,
};
use tidegate_fuzz::{Pieces, block_on};

/// The JWT of `seeds/handshake`, which is valid. No other one can be found.
const SIGNATURE: &str = "t8gQXuYAorhtkFrSa8YaqLViOi6Px8GHFLgvK0vjUjc";

const CONFIG: &str = r#"
[server]
trusted_proxies = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]
[tokens]
issue_path = "/auth/ws-token/"
[jwt]
keys = [{ alg = "HS256", secret = "0123456789abcdef0123456789abcdef" }]
[origins]
allow = ["https://app.example.com", "https://*.example.org", "http://localhost:*"]
[[route]]
path = "/ws/chat/{room}/"
channel = "chat_{room}"
auth = ["connection_token", "cookie", "bearer", "query"]
authorize = "none"
upstream = ""
[[route]]
path = "/ws/open/{room}/"
channel = "open_{room}"
auth = ["connection_token", "anonymous"]
upstream = ""
[[route]]
path = "/ws/health/"
reply = '{"status":"ok"}'
"#;

struct World {
    config: Config,
    handshake: Handshake,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let config = Config::from_toml(CONFIG).expect("a configuration");
    let handshake = Handshake::in_memory(&config, "chat_own").expect("a handshake");
    World { config, handshake }
});

fuzz_target!(|bytes: &[u8]| {
    let &[peer, cut, ref head @ ..] = bytes else { return };
    let peer: IpAddr = if peer & 1 == 0 { [192, 0, 2, 7] } else { [127, 0, 0, 1] }.into();
    let (io, written) = Pieces::request(head, usize::from(cut));
    let answers = RefCell::new(0_usize);
    let service = service_fn(|request| {
        let answers = &answers;
        async move {
            let answer = answer(peer, request).await;
            *answers.borrow_mut() += 1;
            Ok::<_, Infallible>(answer)
        }
    });
    // A request that is not valid HTTP ends the connection, with an answer or without.
    let _ = block_on(http1::Builder::new().half_close(true).serve_connection(io, service));
    let written = written.borrow();
    assert!(
        written.is_empty()
            || written.starts_with(b"HTTP/1.1 ")
            || written.starts_with(b"HTTP/1.0 ")
    );
    assert!(*answers.borrow() == 0 || !written.is_empty());
});

/// As the listener answers.
async fn answer(peer: IpAddr, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let World { config, handshake } = &*WORLD;
    if let Err(mistake) = check_head(&mut request) {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::from_u16(mistake.response().0).expect("a status");
        return refusal(response);
    }
    check_framing(&request);
    let header = match request.method() == Method::GET {
        true => ForwardingHeader::Auto,
        false => ForwardingHeader::Forwarded,
    };
    let trusted = &config.server.trusted_proxies;
    // A disagreement leaves no header that is believed.
    let _ = unify_forwarding(request.headers_mut(), peer, trusted, header);
    let headers = request.headers();
    let address = ClientAddress::resolve(peer, headers, &config.server.trusted_proxies);
    check_address(peer, address, headers);
    match handshake.find_route(request.uri().path()) {
        Some(Found::Route(route, params)) => {
            let values: Vec<String> = params.iter().map(|(_, value)| value.to_owned()).collect();
            assert!(values.iter().all(|value| (1..=255).contains(&value.len())));
            assert!(!values.iter().any(|value| matches!(&**value, "." | "..")));
            assert!(values.iter().flat_map(|value| value.chars()).all(|char| !char.is_control()));
            let attempt = HandshakeAttempt::new(headers, address);
            let upgrade = match upgrade::check(&request, false) {
                Ok(upgrade) => upgrade,
                Err(response) => return refusal(response),
            };
            check_upgrade(&request);
            match handshake.admit(Arc::clone(&route), params, &request, &attempt).await {
                Ok(admission) => {
                    check_origin(headers);
                    let prefix = if admission.identity.user_id.is_some() {
                        assert!(has_credential(&request), "a user without a credential");
                        "chat_"
                    } else {
                        "open_"
                    };
                    let channel = admission.channel.as_ref().expect("the routes have one").as_str();
                    assert_eq!(channel, format!("{prefix}{}", values[0]));
                    assert!(channel.len() <= 255 && !channel.starts_with("chat_own"));
                    upgrade.accept(admission.subprotocol.as_deref())
                }
                Err(rejection) => refusal(rejection.to_response()),
            }
        }
        Some(Found::Reply(_)) => match upgrade::check(&request, false) {
            Ok(upgrade) => {
                check_upgrade(&request);
                upgrade.accept_to_close()
            }
            Err(response) => refusal(response),
        },
        None if handshake.is_token_endpoint(request.uri().path()) => {
            let (parts, body) = request.into_parts();
            let head = Request::from_parts(parts.clone(), ());
            let response = handshake.issue(Request::from_parts(parts, body), address).await;
            if response.status() == StatusCode::OK {
                check_origin(head.headers());
                assert!(head.method() == Method::POST && has_credential(&head));
            }
            response
        }
        None | Some(Found::Unfit(_)) => Response::new(Full::default()),
    }
}

/// One host, and a body that ends where everybody sees its end.
fn check_framing<B>(request: &Request<B>) {
    let values = |name| request.headers().get_all(name).iter().collect::<Vec<_>>();
    let hosts = values(header::HOST);
    assert!(hosts.len() == 1 || (hosts.is_empty() && request.version() == Version::HTTP_10));
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b"/?#@,\\".contains(byte);
    assert!(hosts.iter().all(|host| host.as_bytes().iter().all(is_plain)), "{hosts:?}");
    let codings = values(header::TRANSFER_ENCODING);
    assert!(
        codings.len() < 2
            && codings.iter().all(|it| it.as_bytes().eq_ignore_ascii_case(b"chunked"))
    );
    assert!(codings.is_empty() || values(header::CONTENT_LENGTH).is_empty());
    assert!(request.method() != Method::CONNECT);
    let path = request.uri().path();
    assert!(path.starts_with('/') || (path == "*" && request.method() == Method::OPTIONS));
}

fn refusal(response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    assert!(response.status().is_client_error() || response.status().is_server_error());
    response
}

/// Only a trusted peer names another client, in a header that it sent.
fn check_address(peer: IpAddr, address: ClientAddress, headers: &HeaderMap) {
    assert_eq!(address.peer, peer);
    assert_eq!(address.through_proxy, peer.is_loopback());
    assert!(address.ip == address.ip.to_canonical());
    let is_named = address.through_proxy && headers.contains_key("x-forwarded-for");
    assert!(address.ip == peer || is_named);
}

fn check_upgrade<B>(request: &Request<B>) {
    let count = |name| request.headers().get_all(name).iter().count();
    assert!(request.method() == Method::GET && request.version() == Version::HTTP_11);
    assert_eq!((count(header::HOST), count(header::SEC_WEBSOCKET_KEY)), (1, 1));
    assert_eq!(request.headers()[header::SEC_WEBSOCKET_KEY].len(), 24);
}

/// At most one origin, which is of the allowlist to the last byte.
fn check_origin(headers: &HeaderMap) {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return };
    assert!(origins.next().is_none(), "several origins");
    let origin = origin.to_str().expect("ASCII").to_ascii_lowercase();
    let (scheme, authority) = origin.split_once("://").expect("a scheme");
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_host = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            )
    };
    assert!(host.bytes().all(is_host), "{origin:?} is not well-formed");
    let port = port.map(|port| port.parse::<u16>().unwrap_or_else(|_| panic!("{origin:?}")));
    let is_allowed = match scheme {
        "https" => {
            (host == "app.example.com" || host.ends_with(".example.org"))
                && port.is_none_or(|port| port == 443)
        }
        "http" => host == "localhost",
        _ => false,
    };
    assert!(is_allowed, "{origin:?} is not allowed");
}

/// Whether the valid JWT is somewhere in the request, percent-encoded if in the query.
fn has_credential<B>(request: &Request<B>) -> bool {
    let decoded = percent_encoding::percent_decode_str(request.uri().query().unwrap_or_default());
    let query = decoded.collect::<Vec<u8>>();
    let values = request.headers().values().map(|value| value.as_bytes().to_vec());
    let contains =
        |text: Vec<u8>| text.windows(SIGNATURE.len()).any(|part| part == SIGNATURE.as_bytes());
    values.chain([query]).any(contains)
}
