//! Keys of the ports and of the process: `[server]`, `[admin]`, `[shutdown]`, `[proxy]`, `[origins]`
//! and `[log]`.

use std::net::SocketAddr;
use std::thread::available_parallelism;

use super::kinds::{self, Kind, choice, words};
use super::section::Section;
use super::{
    Admin, Log, LogFormat, MissingOrigin, Origins, Proxy, Reload, Server, Shutdown, Tracing,
};

const MISSING_ORIGIN: Kind<MissingOrigin> = words(r#""allow" or "reject""#, |value| {
    choice(value, &[("allow", MissingOrigin::Allow), ("reject", MissingOrigin::Reject)])
});

const LOG_FORMAT: Kind<LogFormat> = words(r#""text" or "json""#, |value| {
    choice(value, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
});

pub(super) fn server(s: &mut Section<'_>) -> Option<Server> {
    let listen = s.key(
        "listen",
        kinds::ADDRESS,
        "0.0.0.0:8000",
        "The public address: WebSockets, the token endpoint, and everything that is proxied.",
    );
    let reuse_port = s.key(
        "reuse_port",
        kinds::BOOLEAN,
        false,
        "Another gateway may listen on the same port at the same time, to take over from this one (SO_REUSEPORT).",
    );
    let threads = s.key(
        "threads",
        kinds::THREADS,
        0,
        "Worker threads, each with its own connections; 0 = one a core.",
    );
    let max_connections = s.key(
        "max_connections",
        kinds::POSITIVE_COUNT,
        100_000,
        "Open public connections of the whole process, WebSockets and HTTP together.",
    );
    let max_connections_per_ip = s.key(
        "max_connections_per_ip",
        kinds::COUNT,
        1000,
        "Open public connections of one client address; 0 = no limit.",
    );
    let trusted_proxies = s.list(
        "trusted_proxies",
        kinds::BLOCK,
        &[],
        "Address blocks of your load balancers; only their X-Forwarded-For is believed.",
    );
    let header_timeout = s.key(
        "header_timeout",
        kinds::POSITIVE_DURATION,
        "10s",
        "How long a client may take to send a request's head, and keep a connection idle between requests.",
    );
    let max_header_bytes = s.key(
        "max_header_bytes",
        kinds::HEADER_SIZE,
        "16KiB",
        "A request's head that is larger is refused with 431.",
    );
    Some(Server {
        listen: listen?,
        reuse_port: reuse_port?,
        threads: match threads? {
            0 => available_parallelism().map_or(1, usize::from),
            threads => threads,
        },
        max_connections: max_connections?,
        max_connections_per_ip: max_connections_per_ip?,
        trusted_proxies: trusted_proxies?,
        header_timeout: header_timeout?,
        max_header_bytes: max_header_bytes?,
    })
}

pub(super) fn admin(s: &mut Section<'_>) -> Option<Admin> {
    let listen = admin_listen(s);
    let api_keys = s.secret_list(
        "api_keys",
        kinds::SECRET,
        "Keys that open the server API. With none it answers 403; metrics and health need none.",
    );
    Some(Admin { listen: listen?, api_keys: api_keys? })
}

pub(super) fn admin_listen(s: &mut Section<'_>) -> Option<SocketAddr> {
    s.key(
        "listen",
        kinds::ADDRESS,
        "127.0.0.1:9000",
        "The private address: /metrics, /livez, /readyz and the server API.",
    )
}

pub(super) fn shutdown(s: &mut Section<'_>) -> Option<Shutdown> {
    let drain = s.key(
        "drain",
        kinds::DURATION,
        "30s",
        "On SIGTERM the open sockets are closed with 1012, spread evenly over this time.",
    );
    let grace = s.key(
        "grace",
        kinds::DURATION,
        "5s",
        "What is still open after that has this long to end before it is cut.",
    );
    Some(Shutdown { drain: drain?, grace: grace? })
}

pub(super) fn reload(s: &mut Section<'_>) -> Option<Reload> {
    let watch = s.key(
        "watch",
        kinds::OPTIONAL_DURATION,
        "2s",
        "How often the config file, and the files that it names, are looked at for changes; \"0s\" = only when SIGHUP comes.",
    );
    Some(Reload { watch: watch? })
}

pub(super) fn origins(s: &mut Section<'_>) -> Option<Origins> {
    let allow = s.list(
        "allow",
        kinds::ORIGIN,
        &[],
        "Origins of the web pages that may connect; a scheme or a port may be `*`, and a host may begin with `*.`.",
    );
    let missing = s.key(
        "missing",
        MISSING_ORIGIN,
        "allow",
        "What a request without an Origin gets, which no browser sends.",
    );
    Some(Origins { allow: allow?, missing: missing? })
}

pub(super) fn proxy(s: &mut Section<'_>) -> Option<Proxy> {
    let upstream = s.key(
        "upstream",
        kinds::OPTIONAL_HTTP_URL,
        "",
        "Where every request goes that is no route; \"\" = 404.",
    );
    let timeout = s.key(
        "timeout",
        kinds::POSITIVE_DURATION,
        "60s",
        "How long the upstream may take to begin its answer.",
    );
    Some(Proxy { upstream: upstream?, timeout: timeout? })
}

pub(super) fn tracing(s: &mut Section<'_>) -> Option<Tracing> {
    let otlp_endpoint = s.key(
        "otlp_endpoint",
        kinds::OPTIONAL_HTTP_URL,
        "",
        "Where spans go, such as \"http://127.0.0.1:4318\": OTLP over HTTP with protobuf, to /v1/traces unless a path is given. \"\" = there are none.",
    );
    let headers = s.secret_list(
        "headers",
        kinds::HEADER,
        "Headers of the requests to it, such as [\"authorization: Bearer ${OTLP_TOKEN}\"].",
    );
    let sample_ratio = s.key(
        "sample_ratio",
        kinds::RATIO,
        1.0,
        "The share of handshakes that is traced, where the client's traceparent does not decide.",
    );
    let service_name = s.key("service_name", kinds::NAME, "tidegate", "What it is called there.");
    let timeout = s.key(
        "timeout",
        kinds::POSITIVE_DURATION,
        "5s",
        "Of one request; also of what is left at the gateway's end.",
    );
    Some(Tracing {
        otlp_endpoint: otlp_endpoint?,
        headers: headers?,
        sample_ratio: sample_ratio?,
        service_name: service_name?,
        timeout: timeout?,
    })
}

pub(super) fn log(s: &mut Section<'_>) -> Option<Log> {
    let format = s.key("format", LOG_FORMAT, "text", "One line an event.");
    let level = s.key(
        "level",
        kinds::LOG_LEVEL,
        "info",
        "off, error, warn, info, debug or trace; for single targets \"audit=info,warn\" (docs/logs.md).",
    );
    let repeats = s.key(
        "repeats",
        kinds::REPEATS,
        "10/10s",
        "As many lines that say the same are written within this time; more are counted, and told in one. Not for audit, debug and connection_closed. \"off\" = all are written.",
    );
    Some(Log { format: format?, level: level?, repeats: repeats? })
}
