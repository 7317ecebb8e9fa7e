//! The app behind the gateway, as small as one gets: signs every visitor in, serves the chat page, and
//! answers what the gateway relays. On a loopback port and a thread of its own; it reaches nothing of
//! the gateway but what an app elsewhere would.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Secrets, worker};
use crate::config::Secret;
use crate::protocol::random_hex;
use crate::tokens::sign_hs;

const PAGE: &str = include_str!("page.html");
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The gateway bounds what it relays and proxies; this is for whoever finds the port.
const MAX_CONNECTIONS: usize = 1024;

const SESSION_SECONDS: u64 = 15 * 60;
/// An expired session is kept for so long, to know its owner again.
const COOKIE_SECONDS: u64 = 24 * 60 * 60;

pub type Body = BoxBody<Bytes, io::Error>;

struct App {
    jwt_secret: Secret,
    worker: worker::Worker,
}

/// Binds a free loopback port and serves it until the process ends.
pub fn start(secrets: &Secrets) -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let app = Arc::new(App {
        jwt_secret: secrets.jwt.clone(),
        worker: worker::Worker::new(secrets.signing.clone()),
    });
    std::thread::Builder::new().name("demo-app".to_owned()).spawn(move || {
        if let Err(error) = runtime.block_on(serve(listener, app)) {
            tracing::error!(event = "demo_app_failed", %error, "the demo's app has ended");
        }
    })?;
    Ok(address)
}

async fn serve(listener: std::net::TcpListener, app: Arc<App>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: others must close first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let app = Arc::clone(&app);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let app = Arc::clone(&app);
                async move { Ok::<_, Infallible>(app.answer(request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A peer that goes away is no fault of the app.
            let _ = connection.await;
            drop(place);
        });
    }
}

impl App {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/") => self.page(request.headers()),
            (&Method::GET, "/healthz") => text(StatusCode::OK, "text/plain", "ok\n"),
            (&Method::POST, path) if path.starts_with("/internal/chat/") => {
                self.worker.answer(request).await
            }
            _ => problem(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }

    /// The page, and a fresh session for whoever asks: this is the demo's whole sign-in.
    fn page(&self, headers: &HeaderMap) -> Response<Body> {
        let user = self.known_guest(headers).unwrap_or_else(|| format!("guest-{}", random_hex(2)));
        let session = match self.session(&user) {
            Ok(session) => session,
            Err(error) => return problem(StatusCode::INTERNAL_SERVER_ERROR, &error),
        };
        let nonce = random_hex(16);
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        );
        let html = PAGE.replace("@nonce@", &nonce).replace("@user@", &user);
        let cookies = [
            format!(
                "access_token={session}; Path=/; HttpOnly; SameSite=Lax; Max-Age={COOKIE_SECONDS}"
            ),
            format!("csrftoken={}; Path=/; SameSite=Lax; Max-Age={COOKIE_SECONDS}", random_hex(16)),
        ];
        let mut response = text(StatusCode::OK, "text/html; charset=utf-8", &html);
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = value.parse() {
                response.headers_mut().append(name, value);
            }
        };
        cookies.iter().for_each(|cookie| set(header::SET_COOKIE, cookie));
        set(header::CONTENT_SECURITY_POLICY, &policy);
        set(header::CACHE_CONTROL, "no-store");
        set(header::REFERRER_POLICY, "no-referrer");
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        response
    }

    fn session(&self, user: &str) -> Result<String, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let claims = json!({
            "user_id": user,
            "username": user,
            "token_type": "access",
            "iat": now,
            "exp": now.saturating_add(SESSION_SECONDS),
        });
        sign_hs(&self.jwt_secret, Algorithm::HS256, &claims)
    }

    /// Whom a session that this app signed names, even if it has expired: no password stands behind it.
    fn known_guest(&self, headers: &HeaderMap) -> Option<String> {
        let cookies =
            headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let session = cookies
            .flat_map(|line| line.split(';'))
            .find_map(|pair| pair.trim().strip_prefix("access_token="))?;
        let mut rules = Validation::new(Algorithm::HS256);
        rules.validate_exp = false;
        let key = DecodingKey::from_secret(self.jwt_secret.expose().as_bytes());
        let data = jsonwebtoken::decode::<serde_json::Value>(session, &key, &rules).ok()?;
        // Signed by us, but an earlier run may have had other ideas of a name.
        let user = data.claims.get("user_id")?.as_str()?;
        user.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-').then(|| user.to_owned())
    }
}

/// `{"error":"…"}`: what the gateway passes on to the client where it relays.
pub fn problem(status: StatusCode, error: &str) -> Response<Body> {
    text(status, "application/json", &json!({ "error": error }).to_string())
}

fn text(status: StatusCode, content_type: &'static str, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    let content_type = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    async fn get(address: SocketAddr, path: &str, cookie: &str) -> (StatusCode, HeaderMap, String) {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = Request::get(format!("http://{address}{path}"))
            .header("cookie", cookie)
            .body(Full::<Bytes>::default())
            .unwrap();
        let (head, body) = client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    fn cookie(headers: &HeaderMap, name: &str) -> String {
        let set = headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        let cookie = set.filter_map(|set| set.strip_prefix(&format!("{name}="))).next().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn the_page_signs_in_and_knows_its_guest_again() {
        let address = start(&Secrets::generate()).unwrap();
        let (status, headers, page) = get(address, "/", "").await;
        assert_eq!(status, StatusCode::OK);
        assert!(!page.contains("@nonce@") && !page.contains("@user@"));
        let policy = headers["content-security-policy"].to_str().unwrap();
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert!(page.contains(&format!("<script nonce=\"{nonce}\"")), "{policy}");
        assert!(!cookie(&headers, "csrftoken").is_empty());

        let session = cookie(&headers, "access_token");
        let user = page.split("data-user=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(user.starts_with("guest-"), "{user}");
        let (_, _, again) = get(address, "/", &format!("a=b; access_token={session}")).await;
        assert!(again.contains(&format!("data-user=\"{user}\"")));
        let (_, _, forged) = get(address, "/", &format!("access_token={session}x")).await;
        assert!(!forged.contains(&format!("data-user=\"{user}\"")));
    }

    #[tokio::test]
    async fn the_page_needs_nothing_from_elsewhere() {
        let outside = PAGE.split("://").count() - 1;
        let namespaces = PAGE.matches("http://www.w3.org/2000/svg").count();
        let sockets = PAGE.matches("\"ws://\"").count() + PAGE.matches("\"wss://\"").count();
        assert_eq!(outside, namespaces + sockets);
    }

    #[tokio::test]
    async fn health_and_nothing() {
        let address = start(&Secrets::generate()).unwrap();
        assert_eq!(get(address, "/healthz", "").await.0, StatusCode::OK);
        assert_eq!(get(address, "/nothing", "").await.0, StatusCode::NOT_FOUND);
        assert_eq!(get(address, "/internal/chat/1", "").await.0, StatusCode::NOT_FOUND);
    }
}
