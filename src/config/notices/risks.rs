//! Settings by which strangers may get more than was meant.

use url::{Host, Url};

use crate::config::{AuthSource, Authorize, Config, HttpUpstream, Route, Secret, UpstreamKind};
use crate::protocol::{Template, UserId};

/// A shorter key or secret can be guessed.
const MIN_SECRET_BYTES: usize = 16;
const TOO_SHORT: &str = "shorter than 16 bytes, so that it can be guessed";

/// One line per risk: the key, then what to look at.
pub(super) fn of(config: &Config) -> Vec<String> {
    let mut notices = Vec::new();
    let mut add = |key: &str, text: &str| notices.push(format!("{key}: {text}"));
    let is_short = |secret: &Secret| secret.expose().len() < MIN_SECRET_BYTES;
    for (index, _) in config.admin.api_keys.iter().enumerate().filter(|(_, key)| is_short(key)) {
        add(&format!("admin.api_keys[{index}]"), TOO_SHORT);
    }
    for route in &config.routes {
        let key = |name: &str| format!("route {}: {name}", route.path.as_str());
        if is_open_to_all_users(config, route) {
            let text = "any signed-in user may join every channel of this route, if its JWT has no channel patterns; \
                        ask your API ({ url = … }), or write \"none\" if this is meant";
            add(&key("authorize"), text);
        }
        if route.auth.contains(&AuthSource::Anonymous) && uses_user_id(config, route) {
            let text =
                format!("all anonymous clients share one {{user_id}}, {}", UserId::ANONYMOUS);
            add(&key("auth"), &text);
        }
        if let Authorize::Url(url) = &route.authorize
            && url.signing_secret.as_ref().is_some_and(is_short)
        {
            add(&key("authorize.signing_secret"), TOO_SHORT);
        }
        if has_jwts(config) && route.auth.contains(&AuthSource::Query) {
            let text =
                "with \"query\", JWTs are in URLs, which proxies write to their logs; leave it out";
            add(&key("auth"), text);
        }
    }
    for (name, upstream) in &config.upstreams {
        let UpstreamKind::Http(http) = &upstream.kind else { continue };
        let of_posts = http.on_complete.as_ref().and_then(|it| it.signing_secret.as_ref());
        if of_posts.is_some_and(is_short) {
            add(&format!("upstream.{name}.on_complete.signing_secret"), TOO_SHORT);
        }
        let key = format!("upstream.{name}.signing_secret");
        match &http.signing_secret {
            Some(secret) if is_short(secret) => add(&key, TOO_SHORT),
            None if is_reached_by_proxy(config, http) => {
                let text = "missing, and [proxy] leads to this URL as well, so that anybody can post messages there as \
                            any user; sign them, or keep the path from the proxy";
                add(&key, text);
            }
            _ => {}
        }
    }
    notices
}

fn has_jwts(config: &Config) -> bool {
    !config.jwt.keys.is_empty() || config.jwt.jwks_url.is_some()
}

/// Whether a JWT without channel patterns, or a connection token that was issued for one, opens channels that the client
/// names.
fn is_open_to_all_users(config: &Config, route: &Route) -> bool {
    let takes_jwts = route.auth.iter().any(|source| match source {
        AuthSource::Cookie | AuthSource::Bearer | AuthSource::Query => true,
        AuthSource::ConnectionToken => config.tokens.issue_path.is_some(),
        AuthSource::Anonymous => false,
    });
    has_jwts(config)
        && takes_jwts
        && route.authorize == Authorize::Claims
        && !route.auth.contains(&AuthSource::Anonymous)
        && route.channel.iter().flat_map(Template::names).any(|name| name != "user_id")
}

/// Whether the name of a channel, URL or key depends on the user.
fn uses_user_id(config: &Config, route: &Route) -> bool {
    let uses = |template: &Template| template.names().any(|name| name == "user_id");
    let upstream = route.upstream.as_ref().and_then(|name| config.upstreams.get(name));
    route.channel.as_ref().is_some_and(uses)
        || upstream.is_some_and(|upstream| match &upstream.kind {
            UpstreamKind::Http(_) | UpstreamKind::WebSocket(_) => upstream.urls().iter().any(uses),
            UpstreamKind::RedisStream(queue) | UpstreamKind::RedisList(queue) => uses(&queue.key),
            UpstreamKind::Celery(celery) => {
                celery.track.as_ref().is_some_and(|track| uses(&track.key))
            }
        })
}

/// Whether a request of a stranger can get to the endpoint through the proxy.
fn is_reached_by_proxy(config: &Config, http: &HttpUpstream) -> bool {
    let is_reached = |url| config.proxy.urls.iter().any(|proxy| is_below(proxy, url));
    http.urls.iter().any(is_reached)
}

/// Whether a URL has the host and port of `proxy`, and a path below its path.
fn is_below(proxy: &Url, url: &Template) -> bool {
    let Ok(url) = Url::parse(&url.example()) else { return false };
    let is_same_host = match (proxy.host(), url.host()) {
        (Some(one), Some(other)) => {
            host_name(&one) == host_name(&other) || (is_local(&one) && is_local(&other))
        }
        _ => false,
    };
    let base = proxy.path().trim_end_matches('/');
    is_same_host
        && proxy.port_or_known_default() == url.port_or_known_default()
        && url.path().strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))
}

/// The host without the dot that ends a full name.
fn host_name(host: &Host<&str>) -> String {
    host.to_string().trim_end_matches('.').to_owned()
}

/// Whether the host is this machine.
fn is_local(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(_) => {
            let name = host_name(host);
            name == "localhost" || name.ends_with(".localhost")
        }
        Host::Ipv4(ip) => ip.is_loopback() || ip.is_unspecified(),
        Host::Ipv6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_local(&Host::Ipv4(ip)),
            None => ip.is_loopback() || ip.is_unspecified(),
        },
    }
}
