"""One route: handshakes, messages, latency and closes."""

from .panels import (
    GREEN,
    RED,
    YELLOW,
    choice,
    dashboard,
    graph,
    increase,
    heat,
    number,
    quantile,
    quantiles,
    rate,
    row,
    steps,
    success,
    total,
)

# Grafana quotes the value for `=`, because the variable has a single value.
ROUTE = 'route="$route"'


def here(more):
    return f"{ROUTE}, {more}"


NOW = [
    number(
        "Open connections",
        "short",
        "Connections of this route. Compare with yesterday. If it drops without closes, a page does not connect any more.",
        total("tidegate_connections", where=ROUTE),
        spark=True,
    ),
    number(
        "Handshakes admitted",
        "percentunit",
        "Share of the handshakes that were admitted, in the selected time. If it is low, «Handshakes» shows the cause.",
        success(
            increase("tidegate_handshakes_total", here('outcome!="admitted"')),
            increase("tidegate_handshakes_total", ROUTE),
        ),
        decimals=1,
        thresholds=steps(RED, (0.7, YELLOW), (0.9, GREEN)),
    ),
    number(
        "Messages accepted",
        "percentunit",
        "Share of the messages that an upstream accepted, repeats included, in the selected time. If it is low, "
        "«Messages» shows the answers.",
        success(
            increase("tidegate_messages_total", here('outcome!~"queued|duplicate"')),
            increase("tidegate_messages_total", ROUTE),
        ),
        decimals=1,
        thresholds=steps(RED, (0.9, YELLOW), (0.98, GREEN)),
    ),
    number(
        "Generations completed",
        "percentunit",
        "Share of the replies that completed, in the selected time. Cancelled replies do not count. If it is low, see the "
        "dashboard Generations and the worker's log.",
        success(
            increase("tidegate_generations_total", here('outcome=~"worker_lost|task_failed|overdue|engine_down"')),
            increase("tidegate_generations_total", here('outcome!~"cancelled|taken|not_tracked"')),
        ),
        decimals=1,
        thresholds=steps(RED, (0.95, YELLOW), (0.99, GREEN)),
    ),
    number(
        "First chunk, p95",
        "s",
        "Time from a message to the first event of its reply, for 95 of 100 replies. If it is above what your page "
        "promises, add workers or check the model.",
        quantile(0.95, "tidegate_generation_first_chunk_seconds", where=ROUTE),
        decimals=2,
        spark=True,
        thresholds=steps(GREEN, (3, YELLOW), (8, RED)),
    ),
    number(
        "Closed as too slow",
        "short",
        "Clients that were closed with 4008 in the selected time because they did not read. A few are normal (phones). "
        "Many at once: the network in front, or a send_queue that is too small for the events of this route.",
        increase("tidegate_closes_total", here('by="gateway", reason="too_slow"')) + " or vector(0)",
        decimals=0,
    ),
]

PANELS = [
    row("Connections"),
    graph(
        "Open connections by node",
        "short",
        "Connections of this route on each node. If a node has none, the load balancer sends it none, or it is not ready.",
        [(total("tidegate_connections", "instance", ROUTE), "{{instance}}")],
        stack=True,
    ),
    graph(
        "Handshakes",
        "reqps",
        "Handshakes per second, by result. «origin»: add the page to [origins] allow; «token», «jwt», «no_credentials»: "
        "the client's credentials; «channel», «authorize»: not allowed for this user; «connects», «connections»: limits; "
        "«engine», «authorize_unavailable»: the check failed, and the client may try again.",
        [(rate("tidegate_handshakes_total", "outcome", ROUTE), "{{outcome}}")],
        stack=True,
        colors={"admitted": GREEN},
    ),
    graph(
        "Closes",
        "reqps",
        "Closed connections per second, by reason. docs/runbook.md describes each close code: what it means and what "
        "helps.",
        [(rate("tidegate_closes_total", "by, reason", ROUTE), "{{by}} {{reason}}")],
        stack=True,
    ),
    row("Messages"),
    graph(
        "Messages",
        "reqps",
        "Messages per second, by answer. «rate_limited»: [route.limits]; «busy»: the upstream's max_in_flight or "
        "generations_per_user; «upstream_unavailable»: the upstream; «upstream_rejected»: the upstream answered with a "
        "4xx, see its log; «invalid_json» and others: the client.",
        [(rate("tidegate_messages_total", "outcome", ROUTE), "{{outcome}}")],
        w=12,
        stack=True,
        colors={"queued": GREEN},
    ),
    graph(
        "Generations by outcome",
        "reqps",
        "Replies per second, by outcome. «worker_lost»: the upstream broke off or went silent; «task_failed»: its own "
        "error; «overdue»: no end within max_duration; «engine_down»: Redis. See the dashboard Generations.",
        [(rate("tidegate_generations_total", "outcome", ROUTE), "{{outcome}}")],
        w=12,
        stack=True,
        colors={"completed": GREEN, "worker_lost": RED},
    ),
    row("Latency for clients"),
    graph(
        "First chunk",
        "s",
        "Time from a message to the first event of its reply. If p50 rises, there are too few workers. If only p99 rises, "
        "a few prompts are slow.",
        quantiles("tidegate_generation_first_chunk_seconds", ROUTE),
    ),
    graph(
        "Gap between chunks",
        "s",
        "Time between two events of one reply. Above a second the text stutters: check the model, or the network to it.",
        quantiles("tidegate_generation_chunk_gap_seconds", ROUTE),
    ),
    graph(
        "Reply duration",
        "s",
        "Time from a message to the end of its reply. Replies longer than max_reply or max_duration are cut: set both "
        "above p99.",
        quantiles("tidegate_generation_duration_seconds", ROUTE),
    ),
    heat(
        "First chunk, distribution",
        "s",
        "Two bands are two kinds of prompts, or a cold and a warm model. A band that widens upwards is a queue.",
        "tidegate_generation_first_chunk_seconds",
        where=ROUTE,
    ),
    heat(
        "Gap between chunks, distribution",
        "s",
        "A second band far above the first means that a worker pauses: tools, retries, garbage collection.",
        "tidegate_generation_chunk_gap_seconds",
        where=ROUTE,
    ),
]

DASHBOARD = dashboard(
    "tidegate-route",
    "Tidegate / Route",
    "One route: handshakes, messages, latency and closes.",
    NOW + PANELS,
    [
        choice(
            "route",
            "Route",
            'label_values(tidegate_connections{job=~"$job", instance=~"$instance"}, route)',
            many=False,
        )
    ],
)
