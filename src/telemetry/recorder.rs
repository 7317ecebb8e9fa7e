//! The process's metrics recorder: what each metric means, and the buckets of its histograms.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Seconds. From a delivery on loopback to a slow upstream.
const SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Installs the recorder; once a process.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    for &(name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for &(name, help) in GAUGES {
        describe_gauge!(name, help);
    }
    for &(name, help) in HISTOGRAMS {
        describe_histogram!(name, help);
    }
    gauge!("tidegate_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("tidegate_send_queue_bytes").set(0.0);
    for name in ["tidegate_deliveries_total", "tidegate_delivery_drops_total"] {
        counter!(name).absolute(0);
    }
    Ok(handle)
}

const COUNTERS: &[(&str, &str)] = &[
    ("tidegate_accept_errors_total", "Connections that the operating system could not give"),
    ("tidegate_api_calls_total", "Calls of the server API, by call and outcome"),
    ("tidegate_authorize_failures_total", "Authorize URLs that gave no decision"),
    ("tidegate_celery_tasks_total", "Tasks whose result was seen, by how they ended"),
    ("tidegate_celery_untracked_tasks_total", "Tasks whose id was not added to the backend's key"),
    (
        "tidegate_canary_failures_total",
        "Publications of the node's own that did not come back from Redis",
    ),
    ("tidegate_catch_ups_total", "Channels that this node missed a part of, by outcome"),
    (
        "tidegate_channel_layer_gaps_total",
        "Times at which messages of the layer may have been missed",
    ),
    ("tidegate_channel_layer_losses_total", "Connections to the layer's mailbox that were lost"),
    ("tidegate_channel_layer_mailbox_full_total", "Reads that found the mailbox at its capacity"),
    ("tidegate_channel_layer_memberships_lost_total", "Groups that had to be joined again"),
    ("tidegate_channel_layer_messages_total", "Messages of the channel layer, by outcome"),
    (
        "tidegate_channel_layer_unreadable_total",
        "Payloads of the layer without a message, by reason",
    ),
    ("tidegate_closes_total", "Connections that ended, by who ended them and why"),
    ("tidegate_control_orders_total", "Orders that reached this node, by outcome"),
    ("tidegate_deliveries_total", "Publications handed to connections"),
    ("tidegate_delivery_drops_total", "Publications that a connection could not take"),
    ("tidegate_expiry_notices_total", "Clients told that their credentials end soon"),
    ("tidegate_generations_total", "Replies to messages, by how they ended"),
    ("tidegate_generations_taken_over_total", "Generations whose node was gone"),
    ("tidegate_handshakes_total", "WebSocket handshakes, by outcome"),
    ("tidegate_http_errors_total", "Connections that ended inside a request, by cause"),
    ("tidegate_jwks_fetches_total", "Fetches of the JSON Web Key Set, by outcome"),
    ("tidegate_jwts_verified_total", "JWTs, by outcome"),
    ("tidegate_sessions_checked_total", "Sessions of good JWTs, by what Redis keeps of them"),
    ("tidegate_lease_releases_forgotten_total", "Leases left to expire, since the engine was away"),
    ("tidegate_lease_renewal_failures_total", "Lease renewals that failed and are tried again"),
    ("tidegate_limit_engine_down_total", "Limits that could not be asked, by limit"),
    ("tidegate_limit_refusals_total", "Refusals, by limit"),
    (
        "tidegate_message_answers_not_kept_total",
        "Relayed messages that the engine could not be told of",
    ),
    ("tidegate_messages_total", "Clients' messages, by outcome"),
    ("tidegate_presence_engine_failures_total", "Calls about presence that failed, by step"),
    ("tidegate_proxy_requests_total", "Proxied requests, by outcome"),
    ("tidegate_publications_total", "Publications that reached this node, by outcome"),
    ("tidegate_redis_connects_total", "Attempts to connect to Redis, by outcome"),
    ("tidegate_redis_lost_total", "Connections to Redis that were lost"),
    ("tidegate_redis_reconnects_total", "Connections to Redis that were made again"),
    ("tidegate_redis_refusals_total", "Commands that Redis refused"),
    ("tidegate_redis_subscription_failures_total", "Attempts to subscribe that failed"),
    ("tidegate_redis_subscription_losses_total", "Live subscriptions that were lost"),
    ("tidegate_redis_subscription_refusals_total", "Channels that Redis refused"),
    ("tidegate_refreshes_total", "Credentials offered for open connections, by outcome"),
    ("tidegate_replayed_publications_total", "Publications sent from a history"),
    ("tidegate_resumes_total", "Clients that asked to resume, by outcome"),
    ("tidegate_tokens_consumed_total", "Connection tokens used, by outcome"),
    ("tidegate_tokens_issued_total", "Connection tokens issued, by outcome"),
    ("tidegate_upstream_replies_total", "Streamed replies, by upstream and how they ended"),
    ("tidegate_upstream_requests_total", "Requests to upstreams, by upstream and outcome"),
    ("tidegate_upstream_retries_total", "Requests that were tried again, by upstream"),
];

const GAUGES: &[(&str, &str)] = &[
    ("tidegate_build_info", "1, with the version"),
    (
        "tidegate_channel_layer_mailbox_messages",
        "Messages in the layer's mailbox, when last looked at",
    ),
    ("tidegate_connections", "Open sessions, by route"),
    ("tidegate_presence_members", "Connections of this node that are members of their channel"),
    ("tidegate_queue_depth", "Publications in the intake, and batches before the busiest worker"),
    ("tidegate_redis_subscription_live", "1 while all channels are subscribed"),
    ("tidegate_redis_up", "1 while Redis answers, by connection"),
    ("tidegate_send_queue_bytes", "What waits for slow clients, seen once a second"),
    ("tidegate_upstream_circuit_open", "1 while an upstream is not asked"),
    ("tidegate_upstream_in_flight", "Messages, replies and sockets in flight, by upstream"),
];

const HISTOGRAMS: &[(&str, &str)] = &[
    ("tidegate_canary_seconds", "From a publication of the node's own to its return from Redis"),
    ("tidegate_delivery_latency_seconds", "From a publication's arrival to its last write"),
    ("tidegate_handshake_duration_seconds", "From an upgrade request to its decision"),
    ("tidegate_proxy_duration_seconds", "From a proxied request to the head of its response"),
    ("tidegate_upstream_request_seconds", "From a relayed message to the upstream's answer"),
];
