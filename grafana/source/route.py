"""One route: who connects, what they send, what they wait for, how they leave."""

from .panels import (
    GREEN,
    RED,
    YELLOW,
    choice,
    dashboard,
    graph,
    grown,
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

# Grafana quotes it for `=`, since it has one value only.
ROUTE = 'route="$route"'


def here(more):
    return f"{ROUTE}, {more}"


NOW = [
    number(
        "Open connections",
        "short",
        "Sessions of this route. Compare with yesterday; a fall with no closes is a page that no longer connects.",
        total("tidegate_connections", where=ROUTE),
        spark=True,
    ),
    number(
        "Handshakes admitted",
        "percentunit",
        "Share of the chosen time's handshakes that were let in. Low: «Handshakes refused» has the cause.",
        success(
            grown("tidegate_handshakes_total", here('outcome!="admitted"')),
            grown("tidegate_handshakes_total", ROUTE),
        ),
        decimals=1,
        thresholds=steps(RED, (0.7, YELLOW), (0.9, GREEN)),
    ),
    number(
        "Messages taken",
        "percentunit",
        "Share of the chosen time's messages that an upstream took, or had taken before. Low: «Messages» has the answers.",
        success(
            grown("tidegate_messages_total", here('outcome!~"queued|duplicate"')),
            grown("tidegate_messages_total", ROUTE),
        ),
        decimals=1,
        thresholds=steps(RED, (0.9, YELLOW), (0.98, GREEN)),
    ),
    number(
        "Generations completed",
        "percentunit",
        "Share of the chosen time's replies that ended as they should, cancelled ones aside. Low: the dashboard "
        "Generations, and the worker's log.",
        success(
            grown("tidegate_generations_total", here('outcome=~"worker_lost|task_failed|overdue|engine_down"')),
            grown("tidegate_generations_total", here('outcome!~"cancelled|taken|not_tracked"')),
        ),
        decimals=1,
        thresholds=steps(RED, (0.95, YELLOW), (0.99, GREEN)),
    ),
    number(
        "First chunk, p95",
        "s",
        "From a message to its reply's first event, for 95 of 100. Above what your page promises: add workers, or "
        "look at the model.",
        quantile(0.95, "tidegate_generation_first_chunk_seconds", where=ROUTE),
        decimals=2,
        spark=True,
        thresholds=steps(GREEN, (3, YELLOW), (8, RED)),
    ),
    number(
        "Closed as too slow",
        "short",
        "Clients closed with 4008 in the chosen time: they did not read. Some are normal (phones); many at once are the "
        "network in front, or a send_queue that is too small for the events of this route.",
        grown("tidegate_closes_total", here('by="gateway", reason="too_slow"')) + " or vector(0)",
        decimals=0,
    ),
]

PANELS = [
    row("Connections"),
    graph(
        "Open connections by node",
        "short",
        "Sessions of this route on each node. One node with none: the load balancer does not send it any, or it is not ready.",
        [(total("tidegate_connections", "instance", ROUTE), "{{instance}}")],
        stack=True,
    ),
    graph(
        "Handshakes",
        "reqps",
        "Decided handshakes per second. Refusals: «origin» = add the page to [origins] allow; «token», «jwt», "
        "«no_credentials» = the client's credentials; «channel», «authorize» = not this user's; «connects», "
        "«connections» = limits; «engine», «authorize_unavailable» = nobody could decide, and the client may try again.",
        [(rate("tidegate_handshakes_total", "outcome", ROUTE), "{{outcome}}")],
        stack=True,
        colors={"admitted": GREEN},
    ),
    graph(
        "Closes",
        "reqps",
        "How sessions ended, per second. docs/runbook.md has each close code: what it means and what helps.",
        [(rate("tidegate_closes_total", "by, reason", ROUTE), "{{by}} {{reason}}")],
        stack=True,
    ),
    row("Messages"),
    graph(
        "Messages",
        "reqps",
        "Messages per second by their answer. «rate_limited» = [route.limits]; «busy» = the upstream's "
        "max_in_flight or generations_per_user; «upstream_unavailable» = the upstream; «upstream_rejected» = it said no "
        "(4xx), look at its log; «invalid_json» and others = the client.",
        [(rate("tidegate_messages_total", "outcome", ROUTE), "{{outcome}}")],
        w=12,
        stack=True,
        colors={"queued": GREEN},
    ),
    graph(
        "Generations by how they ended",
        "reqps",
        "Replies per second. «worker_lost» = the upstream broke off or fell silent; «task_failed» = its own error; "
        "«overdue» = no end within max_duration; «engine_down» = Redis. See the dashboard Generations.",
        [(rate("tidegate_generations_total", "outcome", ROUTE), "{{outcome}}")],
        w=12,
        stack=True,
        colors={"completed": GREEN, "worker_lost": RED},
    ),
    row("What clients wait for"),
    graph(
        "First chunk",
        "s",
        "From a message to its reply's first event. Rising p50 = not enough workers; rising p99 alone = a few slow prompts.",
        quantiles("tidegate_generation_first_chunk_seconds", ROUTE),
    ),
    graph(
        "Gap between chunks",
        "s",
        "Between two events of one reply. Text that stutters: above a second, the model or the network to it.",
        quantiles("tidegate_generation_chunk_gap_seconds", ROUTE),
    ),
    graph(
        "Whole reply",
        "s",
        "From a message to the end of its reply. Longer than max_reply or max_duration it is cut: set them above p99.",
        quantiles("tidegate_generation_duration_seconds", ROUTE),
    ),
    heat(
        "First chunk, how it spreads",
        "s",
        "Two bands are two kinds of prompts, or a cold and a warm model. A band that widens upwards is a queue.",
        "tidegate_generation_first_chunk_seconds",
        where=ROUTE,
    ),
    heat(
        "Gap between chunks, how it spreads",
        "s",
        "A second band high above the first is a worker that pauses: tools, retries, garbage collection.",
        "tidegate_generation_chunk_gap_seconds",
        where=ROUTE,
    ),
]

DASHBOARD = dashboard(
    "tidegate-route",
    "Tidegate / Route",
    "One route: who connects, what they send, what they wait for, how they leave.",
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
