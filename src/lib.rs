//! Tidegate: a gateway that gives an existing HTTP API or queue worker WebSockets.
//!
//! ```text
//!             ┌─────────────────────────── public port ───────────────────────────┐
//! client ──►  listener ──► handshake ──► session ──► replies ──► upstream ──► your API / queue worker
//!               │                                                                 │ publishes replies
//!               └──► proxy (requests that match no route) ──► your API            ▼
//! client ◄── socket ◄── outbox (bounded) ◄── hub: channel → sockets ◄── broker ◄── engine
//!             └─────────────── admin port: metrics, health, server API ───────────┘
//! ```
//!
//! There is one module per stage. A module uses only modules of lower ranks. The modules below are sorted by
//! rank, the highest first: the order in which a message flows.
//!
//! The library is for the binary only, which uses [`cli::run`]. The feature `internals` exports what fuzz
//! targets and integration tests use.

// Rank 10.
// Arguments, logging, signals and exit codes of every command.
pub mod cli;

// Rank 9.
// The composition root: binds sockets, builds and runs the parts, reloads and drains.
mod gateway;

// Rank 8.
// The admin port: metrics, health and the server API.
mod admin;
// The public port: accepting, the HTTP phase, and the start of a session after an admission.
mod listener;

// Rank 7.
// Admits or rejects a client: route, origin, credentials, channel and connection limits.
mod handshake;
// Forwards requests that match no route.
mod proxy;
// The life of one connection: frames, checks, heartbeat, credentials, resume and presence.
mod session;

// Rank 6.
// The reply to a checked message: relays the message, publishes or monitors the reply, and ends it once.
mod replies;

// Rank 5.
// Orders and renews the certificate of the public port.
mod acme;
// Publishes and subscribes, and keeps the histories of channels.
mod broker;
// Commands from one node to all nodes, such as disconnect and cancel.
mod control;
// Which messages were relayed, and which replies are running or have ended.
mod generations;
// Rates and counts per user, connection and address.
mod limits;
// Who is on a channel.
mod presence;
// Who a client is: connection tokens, JWTs and session versions.
mod tokens;
// Delivers messages to upstreams and reads their replies.
mod upstream;

// Rank 4.
// The formats and names of Django Channels layers.
mod channel_layer;
// Channel → sockets, one part per thread.
mod hub;
// Leases in the engine, which expire when their node dies.
mod leases;

// Rank 3.
// HTTP clients: connections, TLS roots and error texts.
mod http_client;
// Supervised connections to Redis.
mod redis_link;
// The server side of a WebSocket: frames, the outbox and closing.
mod socket;

// Rank 2.
// Checked settings from the config file, the environment and the defaults.
mod config;
// Inherited sockets from systemd, and notifications to it.
mod service_manager;
// The two stages of a shutdown: drain and kill.
mod shutdown;
// Metrics, logs and spans, with one function per fact.
mod telemetry;

// Rank 1.
// Wall-clock time and RFC 3339.
mod clock;
// A bounded map whose entries expire, for stores in memory.
mod expiring_map;
// A reader of MessagePack.
mod msgpack;
// A reader and writer of Python pickles that hold data only.
mod pickle;
// What goes over the wire: envelopes, events, close reasons, ids, names and patterns.
mod protocol;
// Retries of calls while the engine is unavailable.
mod retry;
// Bounds of which each client has a share.
mod shares;
// A parser for server-sent events.
mod sse;
// The server side of TLS: certificates, handshakes and records.
mod tls;

/// What fuzz targets and integration tests use. Not a stable interface.
#[cfg(feature = "internals")]
pub mod internals {
    pub use crate::channel_layer::Serializer;
    pub use crate::config::{Config, LayerSerializer, Secret};
    pub use crate::protocol::{
        ClientAction, ClientFrame, CloseReason, DeflateTerms, ErrorCode, EventName,
        MAX_TASK_ID_BYTES,
    };
    pub use crate::socket::{
        Decoder, FrameScanner, Incoming, MAX_KEPT, Proceed, ScanFault, Scanned,
    };

    /// Delivering publications to sockets.
    pub mod delivery {
        pub use crate::broker::MemoryHistory;
        pub use crate::config::{History, SendQueue};
        pub use crate::hub::HubPart;
        pub use crate::protocol::ChannelName;
        pub use crate::socket::{
            ByteStream, ClientTcp, Delivery, Socket, frame, watch_connections,
        };
    }

    /// The gateway in the process of a test, which counts what it allocates.
    pub mod gateway {
        pub use crate::gateway::{Addresses, Inherited, Outcome, Process, run};
        pub use crate::telemetry::log::filter as log_filter;
    }

    pub mod handshake {
        pub use crate::handshake::{Found, Handshake, HandshakeAttempt, upgrade};
        pub use crate::protocol::{ClientAddress, ForwardingHeader, check_head, unify_forwarding};
    }

    pub mod proxies {
        pub use crate::protocol::{
            ClientAddress, ForwardingHeader, HeaderMistake, HeaderProgress, ProxyHeader,
            append_forwarded, read_proxy_header, unify_forwarding,
        };
    }

    pub mod json {
        pub use crate::protocol::{has_lone_surrogate, json_members, json_text, published_object};
    }

    pub mod limits {
        pub use crate::limits::{LimitName, LocalBucket, SharedLimits, Verdict};
        pub use crate::protocol::Params;
    }

    pub mod msgpack {
        pub use crate::msgpack::{MAX_GROWTH, to_json};
    }

    pub mod pickle {
        pub use crate::pickle::{MAX_BYTES, MAX_JSON_BYTES, read, write_json};
    }

    pub mod server_api {
        pub use crate::admin::{Front, front};
    }

    pub mod sse {
        pub use crate::sse::SseParser;
    }

    pub mod telemetry {
        pub use crate::protocol::{ConnectionId, PathPattern, RequestId, TraceContext};
        pub use crate::telemetry::log::{ConnectionFields, LogControl};
        pub use crate::telemetry::messages::{FrameKind, frame_received};
        pub use crate::telemetry::recorder::install;
        pub use crate::telemetry::route::RouteMetrics;
    }

    pub mod tokens {
        pub use crate::tokens::{JwtVerifier, TokenRecord, TokenStore};
    }

    pub mod upstream {
        pub use crate::upstream::{ReadResponse, ReplyBroken, ResponseReader};
    }
}
