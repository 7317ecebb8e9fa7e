"""The health of all nodes, and where to look next."""

from .panels import (
    GREEN,
    GREY,
    RED,
    YELLOW,
    dashboard,
    graph,
    increase,
    number,
    quantile,
    quantiles,
    rate,
    row,
    selector,
    steps,
    success,
    table,
    total,
)

GENERATIONS = "tidegate_generations_total"
# Cancelled replies are not failures. A reply that another node took over is counted on that node.
JUDGED = 'outcome!~"cancelled|taken|not_tracked"'
FAILED = 'outcome=~"worker_lost|task_failed|overdue|engine_down"'

NOW = [
    number(
        "Alerts firing",
        "none",
        "Tidegate alerts that fire now, for all jobs. docs/runbook.md has a section for each: cause, look, fix. Needs "
        "deploy/prometheus/alerts.yml in Prometheus.",
        'count(ALERTS{alertname=~"Tidegate.*", alertstate="firing"}) or vector(0)',
        w=3,
        thresholds=steps(GREEN, (1, RED)),
    ),
    number(
        "Nodes ready",
        "percentunit",
        "Share of the scraped nodes that are ready. Below 100 %: the /readyz of the missing node names the reason. "
        "Draining nodes are not ready either.",
        f"sum(tidegate_ready{selector()}) / count(up{selector()})",
        w=3,
        thresholds=steps(RED, (0.5, YELLOW), (1, GREEN)),
    ),
    number(
        "Open connections",
        "short",
        "Open WebSocket connections. A sudden drop with closes by «lost» is a network or load balancer problem. For "
        "closes by the gateway, the panel «Closes» shows the reason.",
        total("tidegate_connections"),
        w=3,
        spark=True,
    ),
    number(
        "Messages accepted",
        "reqps",
        "Client messages per second that an upstream accepted. If it is zero at a busy time, look at «Messages refused», "
        "then at the upstreams.",
        rate("tidegate_messages_total", where='outcome="queued"'),
        w=3,
        spark=True,
    ),
    number(
        "Generations completed",
        "percentunit",
        "Share of the replies that completed, in the selected time. Cancelled replies do not count. Below 99 %: the "
        "dashboard Generations shows how the others ended.",
        success(increase(GENERATIONS, FAILED), increase(GENERATIONS, JUDGED)),
        w=3,
        decimals=2,
        thresholds=steps(RED, (0.95, YELLOW), (0.99, GREEN)),
    ),
    number(
        "First chunk, p95",
        "s",
        "Time from a message to the first event of its reply, for 95 of 100 messages. If «Upstream answer, p95» is normal, all "
        "workers are busy: add some. If it is high too, the upstream or its model is slow.",
        quantile(0.95, "tidegate_generation_first_chunk_seconds"),
        w=3,
        decimals=2,
        spark=True,
        thresholds=steps(GREEN, (3, YELLOW), (8, RED)),
    ),
    number(
        "Redis",
        "none",
        "The worst state of all Redis connections and subscriptions. While Redis is lost, open sockets stay and new ones "
        "are refused with 1013. See the dashboard Redis and upstreams.",
        f"min(tidegate_redis_up{selector()})",
        w=3,
        names={"0": ("LOST", RED), "1": ("up", GREEN)},
    ),
    number(
        "Circuits open",
        "none",
        "Upstreams that get no requests now because they failed too often. Their clients get upstream_unavailable. Look "
        "at the upstream first, not at the gateway.",
        total("tidegate_upstream_circuit_open"),
        w=3,
        thresholds=steps(GREEN, (1, RED)),
    ),
]

TRAFFIC = [
    row("Traffic"),
    graph(
        "Open connections by node",
        "short",
        "Connections of each node. They are usually uneven after a rollout, because open sockets stay where they are. The "
        "next drain or the load balancer's least-connections evens them out.",
        [(total("tidegate_connections", "instance"), "{{instance}}")],
        stack=True,
    ),
    graph(
        "Handshakes",
        "reqps",
        "Handshakes per second, by result. After a rollout, many admitted ones are clients that reconnect. A rise of one "
        "refusal has one cause: «origin»: a page that is not in [origins] allow; «token» and «jwt…»: the backend's "
        "credentials; «connects» and «connections»: a client that reconnects in a loop; «engine»: Redis.",
        [(rate("tidegate_handshakes_total", "outcome"), "{{outcome}}")],
        stack=True,
        colors={"admitted": GREEN},
    ),
    graph(
        "Closes",
        "reqps",
        "Closed connections per second: who closed them, and why. «gateway too_slow»: clients that do not read; «gateway "
        "pong_timeout»: dead networks; «gateway restarting»: a drain; «gateway broker_gap»: Redis was down on a channel "
        "without history. docs/runbook.md describes each close code.",
        [(rate("tidegate_closes_total", "by, reason"), "{{by}} {{reason}}")],
        stack=True,
    ),
    graph(
        "Messages accepted, by route",
        "reqps",
        "Client messages that an upstream accepted. The dashboard Route shows one route in detail.",
        [(rate("tidegate_messages_total", "route", 'outcome="queued"'), "{{route}}")],
        stack=True,
    ),
    graph(
        "Messages refused",
        "reqps",
        "Messages that were answered with an error, and repeats. «rate_limited»: as configured; «busy»: max_in_flight or "
        "generations_per_user; «upstream_…»: the upstream; «invalid_json», «message_too_long»: a bug in a client, perhaps "
        "in its new version.",
        [(rate("tidegate_messages_total", "outcome", 'outcome!="queued"'), "{{outcome}}")],
        stack=True,
    ),
    graph(
        "Publications and deliveries",
        "ops",
        "Publications that nodes received, and their deliveries: one for each connection of the channel. If deliveries "
        "drop while publications continue, there are no clients or the subscription is not live. Publications that are "
        "too large are dropped: raise max_publication_bytes or send smaller ones.",
        [
            (rate("tidegate_publications_total", "outcome"), "publications {{outcome}}"),
            (rate("tidegate_deliveries_total"), "deliveries"),
        ],
    ),
]

FELT = [
    row("Latency for clients"),
    graph(
        "First chunk",
        "s",
        "Time from a message to the first event of its reply. The user sees an empty reply for this long. Compare it with "
        "«Upstream answer»: the rest is the worker's queue and model.",
        quantiles("tidegate_generation_first_chunk_seconds"),
    ),
    graph(
        "Delivery, inside the gateway",
        "s",
        "Time from the arrival of a publication to its last write. Above 100 ms the node has too little CPU or its intake "
        "queue is full: look at «CPU» and «Queues», then add a node.",
        quantiles("tidegate_delivery_latency_seconds"),
    ),
    graph(
        "Handshake",
        "s",
        "Time from an upgrade request to its result. Slow ones wait for Redis (tokens, limits), for the authorize URL or "
        "for the key set.",
        quantiles("tidegate_handshake_duration_seconds"),
    ),
    graph(
        "Resumes",
        "ops",
        "Resumes per second. «not_recovered»: the history did not reach back far enough. Raise [route.history] size or "
        "ttl, or check whether Redis evicts keys.",
        [(rate("tidegate_resumes_total", "outcome"), "{{outcome}}")],
        stack=True,
        colors={"recovered": GREEN, "not_recovered": RED},
    ),
    graph(
        "Limit refusals",
        "reqps",
        "Refusals per second, by limit. «connections_total»: the node is full ([server] max_connections). POST "
        "/v1/limits/reset resets the limits of one user.",
        [(rate("tidegate_limit_refusals_total", "limit"), "{{limit}}")],
        stack=True,
    ),
    graph(
        "Connection tokens",
        "ops",
        "Connection tokens issued and used. «unknown_or_replayed»: expired or already used, for example by a client that "
        "reconnects with its old token. «malformed_record»: the backend writes records that the gateway cannot read.",
        [
            (rate("tidegate_tokens_issued_total", "outcome"), "issued: {{outcome}}"),
            (rate("tidegate_tokens_consumed_total", "outcome"), "used: {{outcome}}"),
        ],
    ),
]

NODES = [
    row("Nodes"),
    graph(
        "CPU",
        "short",
        "CPU cores used by each node. A node that uses as many cores as it has threads is full, and latencies rise. Add "
        "nodes: new connections spread over them, open ones only after a drain.",
        [(rate("process_cpu_seconds_total", "instance"), "{{instance}}")],
    ),
    graph(
        "Memory",
        "bytes",
        "Resident memory. It grows with connections (docs/performance.md), with send queues and, on the memory engine, "
        "with histories up to max_history_bytes. Any other growth is a leak: restart the node with a drain and report it.",
        [
            (total("process_resident_memory_bytes", "instance"), "{{instance}}"),
        ],
    ),
    graph(
        "Send queues",
        "bytes",
        "Bytes in all send queues of a node. The gateway closes a client with 4008 when its queue exceeds send_queue. If "
        "many clients are slow at once, check the network in front of the node.",
        [(total("tidegate_send_queue_bytes", "instance"), "{{instance}}")],
    ),
    graph(
        "Queues",
        "short",
        "Publications in a node's intake queue (at most 16,384) and batches in the queue of its busiest thread (at most "
        "64). Near these values the node is too slow: add nodes, or publish fewer and larger chunks.",
        [(f"max by (queue) (tidegate_queue_depth{selector()})", "{{queue}}")],
    ),
    graph(
        "Open files",
        "percentunit",
        "Share of the process's file limit. A connection needs one file, a proxied one two. At 100 % no connection is "
        "accepted: raise LimitNOFILE, or lower [server] max_connections.",
        [(f"process_open_fds{selector()} / process_max_fds{selector()}", "{{instance}}")],
        highest=1,
        limits=steps("transparent", (0.8, RED)),
    ),
    graph(
        "Connections used",
        "percentunit",
        "Open connections of the public port, WebSocket and HTTP, as a share of [server] max_connections. At 100 % new "
        "ones get 503: add a node, or raise it if memory and files allow.",
        [(f"tidegate_client_sockets{selector()} / tidegate_client_sockets_max{selector()}", "{{instance}}")],
        highest=1,
        limits=steps("transparent", (0.85, RED)),
    ),
    graph(
        "Failed requests",
        "ops",
        "Requests that failed before they were complete. «timeout»: slow or idle clients; «malformed»: not HTTP "
        "(scanners); «broken»: resets. Accept errors mean that the process has no file descriptors left.",
        [
            (rate("tidegate_http_errors_total", "cause"), "{{cause}}"),
            (rate("tidegate_accept_errors_total"), "accept errors"),
        ],
    ),
    graph(
        "Proxied requests",
        "reqps",
        "Requests whose path is not a route, by class of the response. «unreachable» and «timed_out»: the API behind the "
        "gateway does not answer.",
        [(rate("tidegate_proxy_requests_total", "outcome"), "{{outcome}}")],
        stack=True,
    ),
    graph(
        "Server API",
        "reqps",
        "Calls of the server API, by call and outcome. «unauthorized»: a new key was not rolled out, or somebody tries to "
        "get in. See the event api_unauthorized in the log.",
        [(rate("tidegate_api_calls_total", "call, outcome"), "{{call}} {{outcome}}")],
        stack=True,
    ),
    graph(
        "Uptime",
        "s",
        "Time since each process started. Drops outside a rollout are crashes or the OOM killer: check the exit code, and "
        "«Memory» just before.",
        [(f"time() - process_start_time_seconds{selector()}", "{{instance}}")],
    ),
    table(
        "Versions",
        "none",
        "The version of each node. More than one version outside a rollout means that a node was forgotten.",
        f"tidegate_build_info{selector()}",
        columns={"instance": "node", "job": "job", "version": "version", "build": "build"},
    ),
    number(
        "Configuration",
        "none",
        "Whether each node accepted its last configuration. «REFUSED»: the node still uses the previous one. Its log and "
        "`tidegate check` name every error.",
        f"tidegate_config_last_reload_successful{selector()}",
        h=8,
        legend="{{instance}}",
        names={"0": ("REFUSED", RED), "1": ("ok", GREEN)},
    ),
    number(
        "Restart needed",
        "none",
        "Nodes whose configuration has a change that needs a restart. Their log names the keys.",
        f"tidegate_config_restart_needed{selector()}",
        h=8,
        legend="{{instance}}",
        names={"0": ("no", GREY), "1": ("yes", YELLOW)},
    ),
    graph(
        "Log lines suppressed",
        "ops",
        "Repeated log lines that [log] repeats suppressed. Many of them mean that an event happens again and again. The "
        "last line of that event in the log says which.",
        [(rate("tidegate_log_lines_suppressed_total", "instance"), "{{instance}}")],
    ),
    graph(
        "Trace spans",
        "ops",
        "Trace spans by result; none while [tracing] is off. «failed»: the collector cannot be reached or refuses them; "
        "«dropped»: more than it accepts, so sample fewer. Clients are not affected.",
        [(rate("tidegate_spans_total", "outcome"), "{{outcome}}")],
        stack=True,
        colors={"exported": GREEN},
    ),
]

DASHBOARD = dashboard(
    "tidegate-overview",
    "Tidegate / Overview",
    "The health of all nodes, and where to look next.",
    NOW + TRAFFIC + FELT + NODES,
)
