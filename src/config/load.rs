//! From text to checked settings: every section's keys, each defined once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::Value;
use url::Url;

use super::mistakes::{Mistake, Mistakes};
use super::reader::{Definition, Findings, Section, text};
use super::routes::{route, upstream};
use super::source::{self, Environment};
use super::*;
use crate::protocol::{OriginPattern, Template};

impl Config {
    /// Reads a file in the environment of this process.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Mistakes::new(vec![Mistake {
                key: String::new(),
                found: format!("{}: {error}", path.display()),
                right: "name a file that can be read".to_owned(),
            }])
        })?;
        Self::read(&text, &Environment::of_process()).0
    }

    /// Reads a text, without any environment.
    pub fn from_toml(text: &str) -> Result<Self, Mistakes> {
        Self::read(text, &Environment::empty()).0
    }

    /// The settings or the mistakes, and every key that was asked for.
    pub(super) fn read(
        text: &str,
        environment: &Environment,
    ) -> (Result<Self, Mistakes>, Vec<Definition>) {
        let findings = Findings::default();
        let mut mistakes = Vec::new();
        let table = source::read(text, environment, &mut mistakes);
        let unreadable = mistakes.iter().any(|mistake| mistake.key.is_empty());
        findings.mistakes.borrow_mut().append(&mut mistakes);
        let config = if unreadable { None } else { root(Section::root(&table, &findings)) };
        let mistakes = findings.mistakes.into_inner();
        let result = match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => Err(Mistakes::new(mistakes)),
        };
        (result, findings.definitions.into_inner())
    }
}

/// `None` = there are mistakes.
fn root(root: Section<'_>) -> Option<Config> {
    let server = server(root.section("server"));
    let admin = admin(root.section("admin"));
    let shutdown = shutdown(root.section("shutdown"));
    let engine = engine(root.section("engine"));
    let tokens = tokens(root.section("tokens"));
    let jwt = jwt(root.section("jwt"));
    let origins = origins(root.section("origins"));
    let proxy = proxy(root.section("proxy"));
    let given = root.list("route");
    let sections: Vec<String> = given.iter().map(|route| route.path().to_owned()).collect();
    let routes: Vec<_> = given.into_iter().map(route).collect();
    let default_redis = match &engine.kind {
        EngineKind::Redis(redis) => Some(redis.url.clone()),
        EngineKind::Memory => None,
    };
    let upstreams: BTreeMap<_, _> = root
        .named("upstream")
        .into_iter()
        .map(|(name, section)| (name.clone(), upstream(name, section, default_redis.as_ref())))
        .collect();
    let log = log(root.section("log"));
    if sections.is_empty() {
        root.mistake("route", "none", "write at least one [[route]]");
    }
    // What is between the parts can only be checked where the parts themselves are right.
    let whole = routes.iter().all(Option::is_some) && upstreams.values().all(Option::is_some);
    let routes: Vec<Arc<Route>> = routes.into_iter().flatten().map(Arc::new).collect();
    let upstreams: BTreeMap<String, Arc<Upstream>> =
        upstreams.into_iter().filter_map(|(name, u)| Some((name, Arc::new(u?)))).collect();
    let config = Config {
        server,
        admin,
        shutdown,
        engine,
        tokens,
        jwt,
        origins,
        proxy,
        routes,
        upstreams,
        log,
    };
    if whole {
        super::relations::check(&config, &sections, &root);
    }
    root.finish();
    whole.then_some(config)
}

fn server(s: Section<'_>) -> Server {
    let threads = s.number("threads", "0", "Worker threads; 0 = one a core. At most 64.", 0..=64);
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(64);
    let server = Server {
        listen: s.text("listen", "\"0.0.0.0:8000\"", "The public port: WebSockets, the token endpoint, everything proxied.", address),
        threads: if threads == 0 { cores } else { threads as usize },
        max_connections: s.number("max_connections", "100000", "Open public connections of the whole process.", 1..=10_000_000) as usize,
        max_connections_per_ip: s.number("max_connections_per_ip", "1000", "Open public connections of one client address; 0 = no limit.", 0..=10_000_000) as usize,
        trusted_proxies: s.texts("trusted_proxies", "[]", "Addresses and networks whose X-Forwarded-For is believed.", values::network),
        header_timeout: s.text("header_timeout", "\"10s\"", "The time a client has for a whole request head, and the longest a connection idles between requests.", positive),
        max_header_bytes: s.value("max_header_bytes", "\"16KiB\"", "The largest request head; at least 8KiB.", |value| {
            values::size(value).and_then(|size| match size {
                8192..=1_048_576 => Ok(size),
                _ => Err("write a size from \"8KiB\" to \"1MiB\"".to_owned()),
            })
        }),
    };
    s.finish();
    server
}

fn admin(s: Section<'_>) -> Admin {
    let listen = s.text(
        "listen",
        "\"127.0.0.1:9000\"",
        "The admin port: /metrics, /livez, /readyz and the server API.",
        address,
    );
    let mut api_keys: Vec<Secret> =
        s.texts("api_keys", "[]", "Keys that open the server API; none = it answers 403.", |key| {
            (key.len() >= 16)
                .then(|| Secret::new(key))
                .ok_or_else(|| "write keys of at least 16 characters".to_owned())
        });
    let file = s.text("api_keys_file", "\"\"", "A file with more of them, one a line.", |file| {
        Ok(file.to_owned())
    });
    if !file.is_empty() {
        let lines = s.file("api_keys_file", &file).unwrap_or_default();
        api_keys
            .extend(lines.lines().map(str::trim).filter(|key| !key.is_empty()).map(Secret::new));
    }
    s.finish();
    Admin { listen, api_keys }
}

fn shutdown(s: Section<'_>) -> Shutdown {
    let shutdown = Shutdown {
        drain: s.text(
            "drain",
            "\"30s\"",
            "SIGTERM: connections are closed with 1012 spread evenly over this time.",
            values::duration,
        ),
        grace: s.text(
            "grace",
            "\"5s\"",
            "What is left then has this long before it is cut.",
            values::duration,
        ),
    };
    s.finish();
    shutdown
}

fn engine(s: Section<'_>) -> Engine {
    let is_redis = s.text(
        "kind",
        "\"memory\"",
        "\"memory\": one node, nothing else to run. \"redis\": any number of nodes share it.",
        |kind| match kind {
            "memory" => Ok(false),
            "redis" => Ok(true),
            _ => Err("write \"memory\" or \"redis\"".to_owned()),
        },
    );
    let max_publication_bytes = s.value("max_publication_bytes", "\"1MiB\"", "Larger publications are refused by the API, and counted and dropped when they come from Redis.", |value| {
        values::size(value).and_then(|size| match size {
            1..=33_554_432 => Ok(size),
            _ => Err("write a size up to \"32MiB\"".to_owned()),
        })
    });
    let r = s.section("redis");
    let url = redis_url(&r, "url", "url_file", "redis://, rediss:// (TLS) or redis+unix://. With kind = \"redis\", \"\" is redis://127.0.0.1:6379.")
        .unwrap_or_else(|| Secret::new("redis://127.0.0.1:6379"));
    let part =
        |key, key_file, doc| redis_url(&r, key, key_file, doc).unwrap_or_else(|| url.clone());
    let redis = RedisEngine {
        tokens_url: part(
            "tokens_url",
            "tokens_url_file",
            "Where connection tokens live; \"\" = url.",
        ),
        limits_url: part("limits_url", "limits_url_file", "Where limits are counted; \"\" = url."),
        pubsub_url: part(
            "pubsub_url",
            "pubsub_url_file",
            "Where channels are subscribed; \"\" = url.",
        ),
        key_prefix: s_text(
            &r,
            "key_prefix",
            "\"tg:\"",
            "Prefix of the gateway's own keys. Channels keep their bare name.",
        ),
        url: url.clone(),
    };
    r.finish();
    s.finish();
    Engine {
        kind: if is_redis { EngineKind::Redis(redis) } else { EngineKind::Memory },
        max_publication_bytes,
    }
}

fn tokens(s: Section<'_>) -> Tokens {
    let c = s.section("csrf");
    let csrf = Csrf {
        cookie: c.text(
            "cookie",
            "\"csrftoken\"",
            "Its value must be repeated in the header where a cookie authenticates.",
            token_name,
        ),
        header: c.text("header", "\"X-CSRFToken\"", "The header that repeats it.", token_name),
    };
    c.finish();
    let tokens = Tokens {
        ttl: s.text("ttl", "\"60s\"", "How long a connection token is good for.", positive),
        key_prefix: s_text(&s, "key_prefix", "\"ws_conn_token:\"", "A token's record is at this prefix and the token; a backend may write records itself."),
        issue_path: s.text("issue_path", "\"/api/v1/auth/ws-connection-token/\"", "Where browsers get connection tokens; \"\" = not here.", |path| match path {
            "" => Ok(None),
            path if path.starts_with('/') => Ok(Some(path.to_owned())),
            _ => Err("write a path that begins with a slash, or \"\"".to_owned()),
        }),
        csrf,
        binding: s.text("binding", "\"\"", "A record's connection_id must match this, for example \"chat-{conversation_id}-*\"; \"\" = need not.", |text| {
            if text.is_empty() { Ok(None) } else { Template::parse(text).map(Some) }
        }),
    };
    s.finish();
    tokens
}

fn jwt(s: Section<'_>) -> Jwt {
    let optional = |text: &str| Ok((!text.is_empty()).then(|| text.to_owned()));
    let jwt = Jwt {
        keys: s.list("keys").into_iter().filter_map(jwt_key).collect(),
        jwks_url: s.text(
            "jwks_url",
            "\"\"",
            "A JSON Web Key Set: fetched, cached, fetched again on an unknown kid.",
            |text| {
                if text.is_empty() { Ok(None) } else { http_url(text).map(Some) }
            },
        ),
        issuer: s.text(
            "issuer",
            "\"\"",
            "The iss that a token must have; \"\" = not checked.",
            optional,
        ),
        audience: s.text(
            "audience",
            "\"\"",
            "The aud that a token must have; \"\" = not checked.",
            optional,
        ),
        leeway: s.text("leeway", "\"30s\"", "How far clocks may be apart.", values::duration),
        cookie: s.text(
            "cookie",
            "\"access_token\"",
            "The cookie that carries a session's JWT.",
            token_name,
        ),
        user_claim: s_text(
            &s,
            "user_claim",
            "\"user_id\"",
            "The claim that names the user, a text or a whole number; \"sub\" where it is missing.",
        ),
        name_claim: s_text(&s, "name_claim", "\"username\"", "The claim with the user's name."),
        channels_claim: s_text(
            &s,
            "channels_claim",
            "\"channels\"",
            "The claim with patterns of the channels that a token is limited to.",
        ),
    };
    s.finish();
    jwt
}

fn jwt_key(s: Section<'_>) -> Option<JwtKey> {
    use jsonwebtoken::Algorithm;
    let right = "write one of HS256, HS384, HS512, RS256, PS256, ES256, EdDSA";
    let alg = s.required(
        "alg",
        "HS256, HS384, HS512, RS256, PS256, ES256 or EdDSA.",
        |value| {
            Ok(match text(value)? {
                "HS256" => Algorithm::HS256,
                "HS384" => Algorithm::HS384,
                "HS512" => Algorithm::HS512,
                "RS256" => Algorithm::RS256,
                "PS256" => Algorithm::PS256,
                "ES256" => Algorithm::ES256,
                "EdDSA" => Algorithm::EdDSA,
                _ => return Err(right.to_owned()),
            })
        },
        right,
    );
    let kid = s.text(
        "kid",
        "\"\"",
        "Only tokens with this kid are tried with the key; \"\" = all.",
        |kid| Ok((!kid.is_empty()).then(|| kid.to_owned())),
    );
    let secret = s.secret(
        "secret",
        "secret_file",
        "The shared secret of HS256, HS384, HS512; at least 16 bytes.",
    );
    let public =
        s.text("public_key_file", "\"\"", "PEM file with the public key of the others.", |file| {
            Ok(file.to_owned())
        });
    let symmetric = alg
        .is_some_and(|alg| matches!(alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512));
    let material = match (alg?, secret) {
        (_, Some(secret)) if symmetric && secret.expose().len() < 16 => {
            s.mistake("secret", "a secret of less than 16 bytes", "write a longer one");
            None
        }
        (_, Some(secret)) if symmetric => Some(JwtKeyMaterial::Secret(secret)),
        (_, None) if symmetric => {
            s.mistake("secret", "missing", "give the secret or secret_file");
            None
        }
        _ if public.is_empty() => {
            s.mistake("public_key_file", "missing", "name a PEM file with the public key");
            None
        }
        _ => s.file("public_key_file", &public).map(JwtKeyMaterial::PublicPem),
    };
    s.finish();
    Some(JwtKey { alg: alg?, kid, material: material? })
}

fn origins(s: Section<'_>) -> Origins {
    let origins = Origins {
        allow: s.texts("allow", "[]", "Browsers' origins: \"https://app.example.com\", \"https://*.example.com\", \"http://localhost:*\".", OriginPattern::parse),
        missing: s.text("missing", "\"allow\"", "What a request without Origin gets, which no browser sends: \"allow\" or \"reject\".", |text| match text {
            "allow" => Ok(MissingOrigin::Allow),
            "reject" => Ok(MissingOrigin::Reject),
            _ => Err("write \"allow\" or \"reject\"".to_owned()),
        }),
    };
    s.finish();
    origins
}

fn proxy(s: Section<'_>) -> Proxy {
    let proxy = Proxy {
        upstream: s.text(
            "upstream",
            "\"\"",
            "Every request that is no route goes here, streamed both ways; \"\" = 404.",
            |text| {
                if text.is_empty() { Ok(None) } else { http_url(text).map(Some) }
            },
        ),
        timeout: s.text(
            "timeout",
            "\"60s\"",
            "To the head of its response; the body may last as long as it flows.",
            positive,
        ),
    };
    s.finish();
    proxy
}

fn log(s: Section<'_>) -> Log {
    let log = Log {
        format: s.text(
            "format",
            "\"text\"",
            "\"text\" for people, \"json\" for machines; one line an event on stderr.",
            |text| match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err("write \"text\" or \"json\"".to_owned()),
            },
        ),
        level: s.text(
            "level",
            "\"info\"",
            "error, warn, info, debug, trace, or a filter such as \"tidegate=debug,warn\".",
            |text| {
                text.parse::<tracing_subscriber::filter::Targets>()
                    .map(|_| text.to_owned())
                    .map_err(|_| "write error, warn, info, debug, trace or a filter".to_owned())
            },
        ),
    };
    s.finish();
    log
}

fn s_text(s: &Section<'_>, key: &'static str, default: &'static str, doc: &'static str) -> String {
    s.text(key, default, doc, |text| Ok(text.to_owned()))
}

fn address(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an address and port such as \"0.0.0.0:8000\" or \"[::]:8000\"".to_owned()
    })
}

pub(super) fn positive(text: &str) -> Result<Duration, String> {
    values::duration(text).and_then(|duration| {
        if duration.is_zero() {
            Err("write a duration above zero".to_owned())
        } else {
            Ok(duration)
        }
    })
}

pub(super) fn positive_size(value: &Value) -> Result<usize, String> {
    values::size(value).and_then(|size| match size {
        1..=1_073_741_824 => Ok(size),
        _ => Err("write a size from 1 byte to \"1GiB\"".to_owned()),
    })
}

/// A cookie's or header's name (RFC 9110 section 5.6.2).
fn token_name(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !text.is_empty() && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("write a name of letters, digits, - and _".to_owned())
    }
}

pub(super) fn http_url(text: &str) -> Result<Url, String> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| "write an http or https URL".to_owned())
}

pub(super) fn redis_url(
    s: &Section<'_>,
    key: &'static str,
    key_file: &'static str,
    doc: &'static str,
) -> Option<Secret> {
    let url = s.secret(key, key_file, doc)?;
    // Opens no connection. The error may show the URL, so it is not passed on.
    if redis::Client::open(url.expose()).is_ok() {
        Some(url)
    } else {
        s.mistake(
            key,
            "no Redis URL",
            "write redis://[user:password@]host[:port][/database], or rediss:// for TLS",
        );
        None
    }
}
