//! Keys of the ports and of the process: `[server]`, `[admin]`, `[shutdown]`, `[reload]`, `[origins]`,
//! `[proxy]`, `[tracing]` and `[log]`.

use std::net::SocketAddr;
use std::thread::available_parallelism;

use super::kinds::{self, Kind, choice, words};
use super::section::Section;
use super::tls;
use super::{
    Admin, AdminAccess, Log, LogFormat, MinPace, MissingOrigin, Origins, ProxyProtocol, Reload,
    Secret, Server, Shutdown, Tracing,
};
use crate::protocol::ForwardingHeader;

const MISSING_ORIGIN: Kind<MissingOrigin> = words(r#""allow" or "reject""#, |value| {
    choice(value, &[("allow", MissingOrigin::Allow), ("reject", MissingOrigin::Reject)])
});

const LOG_FORMAT: Kind<LogFormat> = words(r#""text" or "json""#, |value| {
    choice(value, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
});

const FORWARDING_HEADER: Kind<ForwardingHeader> =
    words(r#""auto", "x-forwarded-for" or "forwarded""#, |value| {
        let words = [
            ("auto", ForwardingHeader::Auto),
            ("x-forwarded-for", ForwardingHeader::XForwardedFor),
            ("forwarded", ForwardingHeader::Forwarded),
        ];
        choice(value, &words)
    });

const PROXY_PROTOCOL: Kind<ProxyProtocol> = words(r#""off" or "required""#, |value| {
    choice(value, &[("off", ProxyProtocol::Off), ("required", ProxyProtocol::Required)])
});

pub(super) fn server(s: &mut Section<'_>) -> Option<Server> {
    let listen = s.key(
        "listen",
        kinds::ADDRESS,
        "0.0.0.0:8000",
        "The public address, for WebSockets, the token endpoint and the proxy.",
    );
    let reuse_port = s.key(
        "reuse_port",
        kinds::BOOLEAN,
        false,
        "Lets another gateway listen on the same port, for a handover without downtime (SO_REUSEPORT).",
    );
    let threads = s.key(
        "threads",
        kinds::THREADS,
        0,
        "Worker threads; 0 = one per core. With 1, one thread does everything.",
    );
    let max_connections = s.key(
        "max_connections",
        kinds::POSITIVE_COUNT,
        100_000,
        "Open public connections of the process, WebSocket and HTTP.",
    );
    let max_connections_per_ip = s.key(
        "max_connections_per_ip",
        kinds::COUNT,
        1000,
        "Open public connections per client address, at most a quarter of those that the limit of open files allows; 0 = \
         no limit. With 0 and without trusted_proxies, addresses are \
         taken to tell nobody apart: each anonymous connection has a share of bounds of its own.",
    );
    let max_memory = s.key(
        "max_memory",
        kinds::MEMORY,
        "2GiB",
        "Bytes that send queues, partial messages, histories in memory and messages in progress may take together. \
         Beyond it the largest send queue is closed first (4008), then new connections are refused (1013, 503): only \
         those of addresses whose messages take more than a quarter, if others cause no more. 0 = no limit.",
    );
    let refusal_delay = s.key(
        "refusal_delay",
        kinds::REFUSAL_DELAY,
        "1s",
        "With reject = \"close\", the longest time that the close of a refused client waits. It doubles with each \
         refusal of an address within a minute, from a sixteenth of this. 0s = no wait.",
    );
    let trusted_proxies = s.list(
        "trusted_proxies",
        kinds::NETWORK,
        &[],
        "Address blocks of your load balancers. Forwarded and X-Forwarded-* are trusted from these only.",
    );
    let forwarding_header = s.key(
        "forwarding_header",
        FORWARDING_HEADER,
        "auto",
        "What your proxies set, X-Forwarded-* or Forwarded (RFC 7239); clients may have written the other. With \"auto\" \
         whichever a request has counts, and one that has both in contradiction counts as the proxy's own.",
    );
    let proxy_protocol = s.key(
        "proxy_protocol",
        PROXY_PROTOCOL,
        "off",
        "Whether each connection begins with a header of the PROXY protocol (1 or 2), in which a load balancer of \
         trusted_proxies names the client. With \"required\" nobody else can connect.",
    );
    let http2 = s.key(
        "http2",
        kinds::BOOLEAN,
        false,
        "HTTP/2 beside HTTP/1.1, also for WebSockets (RFC 8441): over TLS for clients that choose it, without TLS for \
         those that know it beforehand, such as a proxy or a service mesh. A connection may have 128 streams.",
    );
    let header_timeout =
        s.key("header_timeout", kinds::POSITIVE_DURATION, "10s", "Time limit for a request head.");
    let keep_alive = s.key(
        "keep_alive",
        kinds::POSITIVE_DURATION,
        "90s",
        "How long a connection may wait for its next request. Longer than your load balancer keeps connections.",
    );
    let progress_timeout = s.key(
        "progress_timeout",
        kinds::POSITIVE_DURATION,
        "30s",
        "A client that the gateway has waited for this long, to send the body of a request or to take a response, \
         must have moved min_rate on average.",
    );
    let min_rate = s.key(
        "min_rate",
        kinds::BYTES_PER_SECOND,
        240,
        "Bytes a second, measured while the client is waited for; 0 = any progress is enough.",
    );
    let max_header_bytes = s.key(
        "max_header_bytes",
        kinds::HEADER_SIZE,
        "16KiB",
        "Larger request heads are refused with 431.",
    );
    let is_written = s.is_written("tls");
    let tls = s.section(
        "tls",
        "[server.tls]",
        "TLS on the public port. Without a certificate it speaks plain HTTP.",
        |s| tls::server(s, is_written),
    );
    Some(Server {
        listen: listen?,
        tls: tls?,
        reuse_port: reuse_port?,
        threads: match threads? {
            0 => available_parallelism().map_or(1, usize::from),
            threads => threads,
        },
        max_connections: max_connections?,
        max_connections_per_ip: max_connections_per_ip?,
        max_memory: max_memory?,
        refusal_delay: refusal_delay?,
        trusted_proxies: trusted_proxies?,
        forwarding_header: forwarding_header?,
        proxy_protocol: proxy_protocol?,
        http2: http2?,
        header_timeout: header_timeout?,
        keep_alive: keep_alive?,
        min_pace: MinPace { timeout: progress_timeout?, min_rate: min_rate? },
        max_header_bytes: max_header_bytes?,
    })
}

pub(super) fn admin(s: &mut Section<'_>) -> Option<Admin> {
    let listen = admin_listen(s);
    let api_keys = api_keys(s);
    let is_written = s.is_written("tls");
    let tls = s.section(
        "tls",
        "[admin.tls]",
        "TLS on the admin port. Without a certificate it speaks plain HTTP.",
        |s| tls::admin(s, is_written),
    );
    Some(Admin { listen: listen?, api_keys: api_keys?, tls: tls? })
}

/// Reads what commands need.
pub(super) fn admin_access(s: &mut Section<'_>) -> Option<AdminAccess> {
    let (listen, api_keys) = (admin_listen(s), api_keys(s));
    let doc = "TLS on the admin port.";
    let certificate = s.section("tls", "[admin.tls]", doc, tls::certificate_only);
    Some(AdminAccess { listen: listen?, api_keys: api_keys?, certificate: certificate? })
}

fn api_keys(s: &mut Section<'_>) -> Option<Vec<Secret>> {
    s.secret_list(
        "api_keys",
        kinds::SECRET,
        "Keys of the server API, which answers 403 without any. Metrics and health need no key.",
    )
}

pub(super) fn admin_listen(s: &mut Section<'_>) -> Option<SocketAddr> {
    s.key(
        "listen",
        kinds::ADDRESS,
        "127.0.0.1:9000",
        "The private address, for /metrics, /livez, /readyz and the server API.",
    )
}

pub(super) fn shutdown(s: &mut Section<'_>) -> Option<Shutdown> {
    let drain = s.key(
        "drain",
        kinds::DURATION,
        "30s",
        "On SIGTERM, open sockets are closed with 1012, spread evenly over this time.",
    );
    let grace = s.key(
        "grace",
        kinds::DURATION,
        "5s",
        "After that, what is still running has this long to end before it is aborted.",
    );
    Some(Shutdown { drain: drain?, grace: grace? })
}

pub(super) fn reload(s: &mut Section<'_>) -> Option<Reload> {
    let watch = s.key(
        "watch",
        kinds::OPTIONAL_DURATION,
        "2s",
        "How often the config file and the files that it names are checked for changes; \"0s\" = reload on SIGHUP only.",
    );
    Some(Reload { watch: watch? })
}

pub(super) fn origins(s: &mut Section<'_>) -> Option<Origins> {
    let allow = s.list(
        "allow",
        kinds::ORIGIN,
        &[],
        "Origins of web pages that may connect. Scheme and port may be `*`, and a host may start with `*.`. \
         Origins of apps and extensions, such as capacitor://localhost, have no wildcards. \"self\" is the gateway's own: \
         the scheme, host and port of the request itself, behind trusted_proxies those that the proxy reports.",
    );
    let missing = s.key(
        "missing",
        MISSING_ORIGIN,
        "allow",
        "Requests without an Origin header, which browsers never send.",
    );
    Some(Origins { allow: allow?, missing: missing? })
}

pub(super) fn tracing(s: &mut Section<'_>) -> Option<Tracing> {
    let otlp_endpoint = s.key(
        "otlp_endpoint",
        kinds::OPTIONAL_HTTP_URL,
        "",
        "OTLP endpoint (HTTP, protobuf), such as \"http://127.0.0.1:4318\"; the default path is /v1/traces. \"\" = no spans.",
    );
    let headers = s.secret_list(
        "headers",
        kinds::HEADER,
        "Headers of export requests, such as [\"authorization: Bearer ${OTLP_TOKEN}\"].",
    );
    let sample_ratio = s.key(
        "sample_ratio",
        kinds::RATIO,
        1.0,
        "Share of handshakes that is traced, unless the traceparent of a trusted proxy decides.",
    );
    let service_name =
        s.key("service_name", kinds::NAME, "tidegate", "The service name of the spans.");
    let timeout = s.key(
        "timeout",
        kinds::POSITIVE_DURATION,
        "5s",
        "Time limit for one export request, and for the last export at shutdown.",
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
    let format = s.key("format", LOG_FORMAT, "text", "One line per event.");
    let level = s.key(
        "level",
        kinds::LOG_LEVEL,
        "info",
        "off, error, warn, info, debug or trace; per target as in \"audit=info,warn\" (docs/logs.md).",
    );
    let repeats = s.key(
        "repeats",
        kinds::REPEATS,
        "10/10s",
        "How many similar lines are written per interval; the rest are counted and summed up in one line. Does not apply to audit, debug and connection_closed. \"off\" = all are written.",
    );
    Some(Log { format: format?, level: level?, repeats: repeats? })
}
