//! `tidegate check --connect`: asks every server that a config names.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::Full;
use hyper::header::USER_AGENT;
use hyper::{Method, Request, StatusCode};
use url::Url;

use super::super::print_line;
use crate::acme;
use crate::config::{Acme, Authorize, Config, EngineKind, RedisUrl, UpstreamKind};
use crate::http_client::{self, HttpClient, error_chain};
use crate::{redis_link, tokens};

/// How many servers are asked at the same time.
const AT_ONCE: usize = 16;

/// The time limit where the config has none.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The time limit where that of the config is longer, so that somebody can wait for it.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A server to ask.
struct Target {
    /// The keys of the config that name it.
    keys: Vec<String>,
    server: Server,
}

enum Server {
    Redis { url: RedisUrl, runs_scripts: bool },
    Http { url: String, timeout: Duration },
    KeySet(Url),
    AcmeDirectory(Acme),
}

/// Asks all servers, and prints a line for each. Returns whether all can be used.
pub(super) async fn all(config: &Config) -> bool {
    let mut answers = stream::iter(targets(config)).map(ask).buffered(AT_ONCE);
    let mut is_ok = true;
    while let Some((line, can_be_used)) = answers.next().await {
        print_line(line);
        is_ok &= can_be_used;
    }
    is_ok
}

async fn ask(target: Target) -> (String, bool) {
    let Target { keys, server } = target;
    let (name, answer) = match server {
        Server::Redis { url, runs_scripts } => {
            let answer = redis_link::check(&url, runs_scripts).await;
            let state = |servers| match url.is_cluster() {
                false => "is a primary that answers".to_owned(),
                true => format!("has all slots on {} that answer", super::count(servers, "master")),
            };
            (url.address(), answer.map(state))
        }
        Server::Http { url, timeout } => (origin(&url), options(&url, timeout).await),
        Server::AcmeDirectory(acme) => {
            let answer = acme::check(&acme).await.map(|()| "is an ACME directory".to_owned());
            (origin(acme.directory.as_str()), answer)
        }
        Server::KeySet(url) => {
            let keys = tokens::usable_keys(&url).await;
            let answer = keys.and_then(|keys| match keys {
                0 => Err("the key set has no key that can be used".to_owned()),
                keys => Ok(format!("has {}", super::count(keys, "usable key"))),
            });
            (origin(url.as_str()), answer)
        }
    };
    let keys = keys.join(", ");
    match answer {
        Ok(state) => (format!("{keys}: {name} {state}"), true),
        Err(reason) => (format!("{keys}: {name} cannot be used: {reason}"), false),
    }
}

/// The part of a URL that has no secrets.
fn origin(url: &str) -> String {
    Url::parse(url).map_or_else(|_| String::new(), |url| url.origin().ascii_serialization())
}

/// Sends an OPTIONS request, which changes nothing (RFC 9110 section 9.3.7).
async fn options(url: &str, timeout: Duration) -> Result<String, String> {
    let timeout = timeout.min(LONGEST_TIMEOUT);
    let tls = http_client::tls_config(url.starts_with("https"))?;
    let client: HttpClient = http_client::new(&tls, timeout, 0);
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(url)
        .header(USER_AGENT, http_client::USER_AGENT)
        .body(Full::<Bytes>::default())
        .map_err(|error| error.to_string())?;
    let response = match tokio::time::timeout(timeout, client.request(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(error_chain(&error)),
        Err(_) => return Err(format!("no answer within {timeout:?}")),
    };
    let status = response.status();
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Err(format!("answered {status}"))
        }
        _ => Ok(format!("answers (with {status} to OPTIONS)")),
    }
}

/// Returns the servers in the order of the config. One that several keys name is asked once.
fn targets(config: &Config) -> Vec<Target> {
    let mut targets = Targets::default();
    if let Some(acme) = config.server.tls.as_ref().and_then(|tls| tls.acme.as_ref()) {
        targets.push("server.tls.acme.directory".to_owned(), Server::AcmeDirectory(acme.clone()));
    }
    if let EngineKind::Redis(redis) = &config.engine.kind {
        targets.redis("engine.redis.url".to_owned(), &redis.url, true);
        targets.redis("engine.redis.tokens_url".to_owned(), &redis.tokens_url, true);
        targets.redis("engine.redis.limits_url".to_owned(), &redis.limits_url, true);
        targets.redis("engine.redis.pubsub_url".to_owned(), &redis.pubsub_url, false);
        for (index, host) in redis.channels.iter().flat_map(|layer| &layer.hosts).enumerate() {
            targets.redis(format!("engine.redis.channels.hosts[{index}]"), host, true);
        }
    }
    if let Some(url) = &config.jwt.jwks_url {
        targets.push("jwt.jwks_url".to_owned(), Server::KeySet(url.clone()));
    }
    if let Some(version) = &config.jwt.session_version {
        targets.redis("jwt.session_version.redis_url".to_owned(), &version.redis_url, false);
    }
    for (index, url) in config.proxy.urls.iter().enumerate() {
        let key = numbered("proxy.upstream", "proxy.urls", config.proxy.urls.len(), index);
        targets.http(key, url.to_string(), config.proxy.timeout);
    }
    for route in &config.routes {
        if let Authorize::Url(authorize) = &route.authorize {
            let key = format!("authorize of {}", route.path.as_str());
            targets.http(key, authorize.url.to_string(), authorize.timeout);
        }
    }
    for upstream in config.upstreams.values() {
        let name = format!("upstream.{}", upstream.name);
        match &upstream.kind {
            UpstreamKind::Http(_) | UpstreamKind::WebSocket(_) => {
                for (index, url) in upstream.urls().iter().enumerate() {
                    let (one, several) = (format!("{name}.url"), format!("{name}.urls"));
                    let key = numbered(&one, &several, upstream.urls().len(), index);
                    let url = url.example();
                    // The handshake of a WebSocket is an HTTP request.
                    let url = match url.strip_prefix("ws") {
                        Some(rest) => format!("http{rest}"),
                        None => url,
                    };
                    targets.http(key, url, upstream.timeout);
                }
                if let UpstreamKind::Http(http) = &upstream.kind
                    && let Some(posted) = &http.on_complete
                {
                    let key = format!("{name}.on_complete.url");
                    targets.http(key, posted.url.to_string(), posted.timeout);
                }
            }
            UpstreamKind::RedisStream(queue) | UpstreamKind::RedisList(queue) => {
                targets.redis(format!("{name}.redis_url"), &queue.redis_url, true);
            }
            UpstreamKind::Celery(celery) => {
                targets.redis(format!("{name}.broker_url"), &celery.broker_url, true);
                if let Some(results) = &celery.results {
                    targets.redis(format!("{name}.result_backend_url"), &results.url, false);
                }
                if let Some(url) = celery.track.as_ref().and_then(|track| track.redis_url.as_ref())
                {
                    targets.redis(format!("{name}.track.redis_url"), url, false);
                }
            }
        }
    }
    if let Some(url) = &config.tracing.otlp_endpoint {
        targets.http("tracing.otlp_endpoint".to_owned(), url.to_string(), TIMEOUT);
    }
    targets.0
}

/// The name of one of several URLs, or of the only one.
fn numbered(one: &str, several: &str, total: usize, index: usize) -> String {
    if total > 1 { format!("{several}[{index}]") } else { one.to_owned() }
}

#[derive(Default)]
struct Targets(Vec<Target>);

impl Targets {
    fn redis(&mut self, key: String, wanted: &RedisUrl, scripts: bool) {
        for Target { keys, server } in &mut self.0 {
            if let Server::Redis { url, runs_scripts } = server
                && url == wanted
            {
                *runs_scripts |= scripts;
                return keys.push(key);
            }
        }
        self.push(key, Server::Redis { url: wanted.clone(), runs_scripts: scripts });
    }

    fn http(&mut self, key: String, wanted: String, timeout: Duration) {
        for Target { keys, server } in &mut self.0 {
            if matches!(server, Server::Http { url, .. } if *url == wanted) {
                return keys.push(key);
            }
        }
        self.push(key, Server::Http { url: wanted, timeout });
    }

    fn push(&mut self, key: String, server: Server) {
        self.0.push(Target { keys: vec![key], server });
    }
}
