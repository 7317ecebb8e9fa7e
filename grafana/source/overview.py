"""Is everybody served? Where to look next, if not."""

from .panels import (
    GREEN,
    GREY,
    RED,
    YELLOW,
    dashboard,
    graph,
    grown,
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
# A cancelled reply is what its user wanted; one that another node took is counted there.
JUDGED = 'outcome!~"cancelled|taken|not_tracked"'
FAILED = 'outcome=~"worker_lost|task_failed|overdue|engine_down"'

NOW = [
    number(
        "Alerts firing",
        "none",
        "Tidegate's alerts that fire now, of all jobs. Each has its section in docs/runbook.md: cause, look, fix. "
        "Needs deploy/prometheus/alerts.yml in Prometheus.",
        'count(ALERTS{alertname=~"Tidegate.*", alertstate="firing"}) or vector(0)',
        w=3,
        thresholds=steps(GREEN, (1, RED)),
    ),
    number(
        "Nodes ready",
        "percentunit",
        "Nodes that say they are ready, of those that Prometheus scrapes. Below 100 %: ask the missing node's "
        "/readyz, which names what it lacks. Nodes that drain are not ready either.",
        f"sum(tidegate_ready{selector()}) / count(up{selector()})",
        w=3,
        thresholds=steps(RED, (0.5, YELLOW), (1, GREEN)),
    ),
    number(
        "Open connections",
        "short",
        "WebSocket sessions open now. A sudden fall with closes by «lost» is a network or load balancer; with "
        "closes by the gateway, the panel «Closes» has the reason.",
        total("tidegate_connections"),
        w=3,
        spark=True,
    ),
    number(
        "Messages taken",
        "reqps",
        "Clients' messages per second that an upstream took. Zero with open connections at a busy time: look at "
        "«Messages not taken», then at the upstreams.",
        rate("tidegate_messages_total", where='outcome="queued"'),
        w=3,
        spark=True,
    ),
    number(
        "Generations completed",
        "percentunit",
        "Share of the replies of the chosen time that ended as they should; cancelled ones do not count. "
        "Below 99 %: the dashboard Generations says how the others ended.",
        success(grown(GENERATIONS, FAILED), grown(GENERATIONS, JUDGED)),
        w=3,
        decimals=2,
        thresholds=steps(RED, (0.95, YELLOW), (0.99, GREEN)),
    ),
    number(
        "First chunk, p95",
        "s",
        "From a message to the first event of its reply, for 95 of 100 messages. High with an ordinary «Upstream "
        "answer»: workers are busy, add some. High with that: the upstream or its model is slow.",
        quantile(0.95, "tidegate_generation_first_chunk_seconds"),
        w=3,
        decimals=2,
        spark=True,
        thresholds=steps(GREEN, (3, YELLOW), (8, RED)),
    ),
    number(
        "Redis",
        "none",
        "The worst of all connections to Redis and subscriptions. While it is lost, open sockets stay and new ones "
        "are refused with 1013. See the dashboard Redis and upstreams.",
        f"min(tidegate_redis_up{selector()})",
        w=3,
        names={"0": ("LOST", RED), "1": ("up", GREEN)},
    ),
    number(
        "Circuits open",
        "none",
        "Upstreams that are not asked now, since they failed too often. Their clients get upstream_unavailable. "
        "Look at the upstream first, not at the gateway.",
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
        "Sessions of each node. Uneven after a roll-out is usual, for sockets stay where they are; the next drain "
        "or the load balancer's least-connections evens it out.",
        [(total("tidegate_connections", "instance"), "{{instance}}")],
        stack=True,
    ),
    graph(
        "Handshakes",
        "reqps",
        "Decided handshakes per second. A wave of admitted ones after a roll-out are clients that come back. A "
        "surge of one refusal has one cause: «origin» = a page that is not in [origins] allow, «token» and «jwt…» "
        "= the backend's credentials, «connects» and «connections» = a client that loops, «engine» = Redis.",
        [(rate("tidegate_handshakes_total", "outcome"), "{{outcome}}")],
        stack=True,
        colors={"admitted": GREEN},
    ),
    graph(
        "Closes",
        "reqps",
        "Connections that ended, per second: who ended them, and why. «gateway too_slow» = clients that do not "
        "read, «gateway pong_timeout» = dead networks, «gateway restarting» = a drain, «gateway broker_gap» = "
        "Redis was away on a channel without history. docs/runbook.md has each close code.",
        [(rate("tidegate_closes_total", "by, reason"), "{{by}} {{reason}}")],
        stack=True,
    ),
    graph(
        "Messages taken, by route",
        "reqps",
        "Clients' messages that an upstream took. Follow one route in the dashboard Route.",
        [(rate("tidegate_messages_total", "route", 'outcome="queued"'), "{{route}}")],
        stack=True,
    ),
    graph(
        "Messages not taken",
        "reqps",
        "Messages that were answered with an error, or were repeats. «rate_limited» = as configured; "
        "«busy» = max_in_flight or generations_per_user; «upstream_…» = the upstream; «invalid_json», "
        "«message_too_long» = a client's fault, look for a new version of it.",
        [(rate("tidegate_messages_total", "outcome", 'outcome!="queued"'), "{{outcome}}")],
        stack=True,
    ),
    graph(
        "Publications and deliveries",
        "ops",
        "Publications that reached nodes, and what they became: one delivery for each connection of the channel. "
        "Deliveries that fall while publications go on: nobody listens, or the subscription is not live. "
        "A publication that is too large never arrives: raise max_publication_bytes or send less.",
        [
            (rate("tidegate_publications_total", "outcome"), "publications {{outcome}}"),
            (rate("tidegate_deliveries_total"), "deliveries"),
        ],
    ),
]

FELT = [
    row("What clients feel"),
    graph(
        "First chunk",
        "s",
        "From a message to the first event of its reply. The user looks at an empty bubble for this long. "
        "Compare with «Upstream answer»; the rest is the worker's queue and model.",
        quantiles("tidegate_generation_first_chunk_seconds"),
    ),
    graph(
        "Delivery, inside the gateway",
        "s",
        "From a publication's arrival to its last write. Above 100 ms the node is out of CPU or its intake is "
        "full: look at «CPU» and «Queues», then add a node.",
        quantiles("tidegate_delivery_latency_seconds"),
    ),
    graph(
        "Handshake",
        "s",
        "From an upgrade request to its decision. Slow ones wait for Redis (tokens, limits), for the authorize URL "
        "or for the key set.",
        quantiles("tidegate_handshake_duration_seconds"),
    ),
    graph(
        "Clients that came back",
        "ops",
        "Resumes per second. «not_recovered» = the history no longer reached back: raise [route.history] size or ttl, "
        "or look whether Redis evicts.",
        [(rate("tidegate_resumes_total", "outcome"), "{{outcome}}")],
        stack=True,
        colors={"recovered": GREEN, "not_recovered": RED},
    ),
    graph(
        "Limits that refused",
        "reqps",
        "Refusals per second by limit. «connections_total» = the node is full ([server] max_connections). "
        "One user's limits are lifted by POST /v1/limits/reset.",
        [(rate("tidegate_limit_refusals_total", "limit"), "{{limit}}")],
        stack=True,
    ),
    graph(
        "Connection tokens",
        "ops",
        "Tokens issued, and used. «unknown_or_replayed» = expired before they were used, or used twice: a client "
        "that reconnects with its old token. «malformed_record» = the backend writes records that cannot be read.",
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
        "Cores in use by each node. At the number of its threads a node is full: latencies rise. Add nodes; "
        "new connections spread, open ones only with a drain.",
        [(rate("process_cpu_seconds_total", "instance"), "{{instance}}")],
    ),
    graph(
        "Memory",
        "bytes",
        "Resident memory. Grows with connections (docs/performance.md: per connection), with send queues and, "
        "on the memory engine, with histories up to max_history_bytes. A slope that fits none of them is a leak: "
        "restart by a drain, and report it.",
        [
            (total("process_resident_memory_bytes", "instance"), "{{instance}}"),
        ],
    ),
    graph(
        "Waiting for slow clients",
        "bytes",
        "Bytes in all send queues of a node. Each client is bounded by send_queue and closed with 4008 beyond it. A rise "
        "at many clients at once is the network in front of the node.",
        [(total("tidegate_send_queue_bytes", "instance"), "{{instance}}")],
    ),
    graph(
        "Queues",
        "short",
        "Publications in a node's intake (of 16,384) and batches before its busiest thread (of 64). Near those "
        "the node is too slow for what is published: add nodes, or publish fewer and larger chunks.",
        [(f"max by (queue) (tidegate_queue_depth{selector()})", "{{queue}}")],
    ),
    graph(
        "Open files",
        "percentunit",
        "Share of the process's file limit. Each connection takes one, each proxied one two. At 100 % no connection "
        "is accepted: raise LimitNOFILE, or lower [server] max_connections.",
        [(f"process_open_fds{selector()} / process_max_fds{selector()}", "{{instance}}")],
        highest=1,
        limits=steps("transparent", (0.8, RED)),
    ),
    graph(
        "Places taken",
        "percentunit",
        "Open connections of the public port, WebSockets and others, as a share of [server] max_connections. At 100 % new "
        "ones get 503: add a node, or raise it if memory and files allow.",
        [(f"tidegate_client_sockets{selector()} / tidegate_client_sockets_max{selector()}", "{{instance}}")],
        highest=1,
        limits=steps("transparent", (0.85, RED)),
    ),
    graph(
        "Connections that could not be read",
        "ops",
        "Requests that ended before their end: «timeout» = slow or idle clients, «malformed» = no HTTP (scanners), "
        "«broken» = resets. Accept errors mean that the process has no files left.",
        [
            (rate("tidegate_http_errors_total", "cause"), "{{cause}}"),
            (rate("tidegate_accept_errors_total"), "accept errors"),
        ],
    ),
    graph(
        "Proxied requests",
        "reqps",
        "Requests that are no route, by the answer's class. «unreachable» and «timed_out» are the API behind the gateway.",
        [(rate("tidegate_proxy_requests_total", "outcome"), "{{outcome}}")],
        stack=True,
    ),
    graph(
        "Server API",
        "reqps",
        "Calls by call and outcome. «unauthorized» = a key that was not rolled out, or somebody at the door: the log's "
        "api_unauthorized.",
        [(rate("tidegate_api_calls_total", "call, outcome"), "{{call}} {{outcome}}")],
        stack=True,
    ),
    graph(
        "Uptime",
        "s",
        "Since each process began. Saw teeth outside of a roll-out are crashes or the OOM killer: look at the exit "
        "code, and at «Memory» just before.",
        [(f"time() - process_start_time_seconds{selector()}", "{{instance}}")],
    ),
    table(
        "Versions",
        "none",
        "What runs where. More than one version outside of a roll-out: a node that was forgotten.",
        f"tidegate_build_info{selector()}",
        columns={"instance": "node", "job": "job", "version": "version", "build": "build"},
    ),
    number(
        "Configuration",
        "none",
        "Whether each node's last reload was taken. «REFUSED»: the node goes on with the one before; its log's line, "
        "and `tidegate check`, name every mistake.",
        f"tidegate_config_last_reload_successful{selector()}",
        h=8,
        legend="{{instance}}",
        names={"0": ("REFUSED", RED), "1": ("ok", GREEN)},
    ),
    number(
        "Restart needed",
        "none",
        "Nodes whose file has changed in a way that only a restart brings in. Their log names the keys.",
        f"tidegate_config_restart_needed{selector()}",
        h=8,
        legend="{{instance}}",
        names={"0": ("no", GREY), "1": ("yes", YELLOW)},
    ),
    graph(
        "Log lines held back",
        "ops",
        "Repeats that the log's limit ([log] repeats) kept away. Many = something happens over and over: the last line "
        "of that event in the log says what.",
        [(rate("tidegate_log_lines_suppressed_total", "instance"), "{{instance}}")],
    ),
    graph(
        "Spans of traces",
        "ops",
        "Spans by what became of them; none while [tracing] is off. «failed» = the collector cannot be reached, or refuses "
        "them; «dropped» = more than it takes: sample fewer. Clients notice neither.",
        [(rate("tidegate_spans_total", "outcome"), "{{outcome}}")],
        stack=True,
        colors={"exported": GREEN},
    ),
]

DASHBOARD = dashboard(
    "tidegate-overview",
    "Tidegate / Overview",
    "Is everybody served? Where to look next, if not.",
    NOW + TRAFFIC + FELT + NODES,
)
