"""What the gateway rests on: Redis, the channel layer, upstreams, key sets."""

from .panels import (
    GREEN,
    RED,
    YELLOW,
    choice,
    dashboard,
    graph,
    grown,
    number,
    quantile,
    quantiles,
    rate,
    ratio,
    row,
    selector,
    steps,
    total,
)

UPSTREAMS = 'upstream=~"$upstream"'
REQUESTS = "tidegate_upstream_requests_total"
FAILED = f'{UPSTREAMS}, outcome=~"unavailable|busy|full|circuit_open"'

NOW = [
    number(
        "Redis connections up",
        "percentunit",
        "Of all connections of all nodes. Below 100 %: «Redis, by connection» names which. One connection on all nodes = that "
        "Redis; all connections of one node = that node's network.",
        f"sum(tidegate_redis_up{selector()}) / count(tidegate_redis_up{selector()})",
        thresholds=steps(RED, (0.5, YELLOW), (1, GREEN)),
    ),
    number(
        "Subscriptions live",
        "percentunit",
        "Nodes whose channels are all subscribed. The others are not ready, and catch up when they are.",
        f"sum(tidegate_redis_subscription_live{selector()}) / count(tidegate_redis_subscription_live{selector()})",
        thresholds=steps(RED, (0.5, YELLOW), (1, GREEN)),
    ),
    number(
        "Loop through Redis, p99",
        "s",
        "What the canary's publication takes through Redis and back. Above 100 ms: Redis is busy (SLOWLOG, big keys, "
        "AOF) or far away.",
        quantile(0.99, "tidegate_canary_seconds"),
        spark=True,
        decimals=3,
        thresholds=steps(GREEN, (0.1, YELLOW), (0.5, RED)),
    ),
    number(
        "Circuits open",
        "none",
        "Upstreams that are not asked now, counted on each node. Look at the upstream first.",
        total("tidegate_upstream_circuit_open", where=UPSTREAMS),
        thresholds=steps(GREEN, (1, RED)),
    ),
    number(
        "Upstream failures",
        "percentunit",
        "Share of the chosen time's requests that no upstream took: unavailable, busy, or not asked. A refusal (4xx) is "
        "none.",
        ratio(grown(REQUESTS, FAILED), grown(REQUESTS, UPSTREAMS)),
        decimals=2,
        thresholds=steps(GREEN, (0.01, YELLOW), (0.05, RED)),
    ),
    number(
        "Upstream answer, p95",
        "s",
        "From a message to the head of the answer, retries included, for 95 of 100.",
        quantile(0.95, "tidegate_upstream_request_seconds", where=UPSTREAMS),
        spark=True,
        decimals=2,
        thresholds=steps(GREEN, (1, YELLOW), (5, RED)),
    ),
]

REDIS = [
    row("Redis"),
    graph(
        "Redis, by connection",
        "none",
        "1 while it answers, the worst of all nodes. A lost one is tried again every second. Is Redis there, is its password right, "
        "has it reached maxclients? The log's redis_lost and redis_connect_failed say why.",
        [(f"min by (connection) (tidegate_redis_up{selector()})", "{{connection}}")],
        highest=1,
        steps_drawn=True,
    ),
    graph(
        "Subscription, by node",
        "none",
        "1 while all channels are subscribed. 0 = nothing that is published reaches this node's clients; they catch up "
        "from the histories afterwards.",
        [(f"tidegate_redis_subscription_live{selector()}", "{{instance}}")],
        highest=1,
        steps_drawn=True,
    ),
    graph(
        "Loop through Redis",
        "s",
        "The canary's publication through Redis and back to the same node. It measures the way that chunks take.",
        quantiles("tidegate_canary_seconds"),
    ),
    graph(
        "Connects and losses",
        "ops",
        "Connections made, failed and lost, per second. Losses at one and the same interval are a proxy or firewall that cuts "
        "idle connections, or Redis' timeout: set it to 0.",
        [
            (rate("tidegate_redis_connects_total", "outcome"), "connects: {{outcome}}"),
            (rate("tidegate_redis_lost_total"), "lost"),
            (rate("tidegate_redis_subscription_losses_total"), "subscription lost"),
        ],
    ),
    graph(
        "What Redis refused, and what was not heard",
        "ops",
        "Refused commands (the log's redis_refused: OOM, READONLY after a failover, NOPERM), refused channels (ACL), and "
        "canaries that did not come back.",
        [
            (rate("tidegate_redis_refusals_total", "connection"), "refused: {{connection}}"),
            (rate("tidegate_redis_subscription_refusals_total"), "refused channels"),
            (rate("tidegate_canary_failures_total"), "canary failed"),
        ],
    ),
    graph(
        "What had to go on without Redis",
        "ops",
        "Limits that could not be asked (the client was answered «try again»), leases that could not be renewed, presence. "
        "All at once = limits_url's Redis.",
        [
            (rate("tidegate_limit_engine_down_total", "limit"), "limit: {{limit}}"),
            (rate("tidegate_lease_renewal_failures_total"), "lease renewals"),
            (rate("tidegate_presence_engine_failures_total", "step"), "presence: {{step}}"),
        ],
    ),
    graph(
        "Orders between nodes",
        "ops",
        "Disconnects and cancels that reached a node. Others than «done»: a node that is overloaded, or of another version.",
        [(rate("tidegate_control_orders_total", "outcome"), "{{outcome}}")],
        stack=True,
        colors={"done": GREEN},
    ),
    graph(
        "Key sets and sessions",
        "ops",
        "Fetches of the JSON Web Key Set, and what Redis said of sessions. Failed fetches: jwks_url; keys known before go on.",
        [
            (rate("tidegate_jwks_fetches_total", "outcome"), "key set: {{outcome}}"),
            (rate("tidegate_sessions_checked_total", "outcome"), "session: {{outcome}}"),
        ],
    ),
    graph(
        "JWTs",
        "ops",
        "Verified per second. «wrong_signature» after a change of keys: the new key is not here yet. «expired» in masses: a "
        "clock, or pages that were asleep.",
        [(rate("tidegate_jwts_verified_total", "outcome"), "{{outcome}}")],
        stack=True,
        colors={"accepted": GREEN},
    ),
]

UPSTREAM = [
    row("Upstreams"),
    graph(
        "Requests",
        "reqps",
        "By what became of them. «unavailable» = failed or timed out; «busy» = it said so, or its queue is full; «full» = "
        "max_in_flight; «circuit_open» = not asked after failures; «rejected» = a 4xx, look at its log.",
        [(rate(REQUESTS, "upstream, outcome", UPSTREAMS), "{{upstream}} {{outcome}}")],
        stack=True,
    ),
    graph(
        "Failures",
        "percentunit",
        "Share of requests that were not taken. Over 5 % the alert fires. One upstream: that service. All: DNS, network.",
        [
            (
                ratio(rate(REQUESTS, "upstream", FAILED), rate(REQUESTS, "upstream", UPSTREAMS)),
                "{{upstream}}",
            )
        ],
        highest=1,
        limits=steps("transparent", (0.05, RED)),
    ),
    graph(
        "Answer, p95",
        "s",
        "To the head of the answer, retries included. At the upstream's timeout it is cut and counts as unavailable.",
        [(quantile(0.95, "tidegate_upstream_request_seconds", "upstream", UPSTREAMS), "{{upstream}}")],
    ),
    graph(
        "In flight",
        "short",
        "Messages, replies and sockets under way on all nodes. At max_in_flight (each node) clients get «busy»: raise it, if the "
        "upstream can bear it.",
        [(total("tidegate_upstream_in_flight", "upstream", UPSTREAMS), "{{upstream}}")],
    ),
    graph(
        "Circuit",
        "none",
        "1 while an upstream is not asked, on any node. After `open` the next message tries it, and closes the circuit if that goes well; without messages it stays at 1.",
        [(f"max by (upstream) (tidegate_upstream_circuit_open{selector(UPSTREAMS)})", "{{upstream}}")],
        highest=1,
        steps_drawn=True,
    ),
    graph(
        "Retries",
        "reqps",
        "Requests that were asked again with the same key. A steady few = connections that the upstream closes too early: its "
        "keep-alive should outlast the gateway's.",
        [(rate("tidegate_upstream_retries_total", "upstream", UPSTREAMS), "{{upstream}}")],
    ),
    graph(
        "Streamed replies, by how they ended",
        "reqps",
        "«lost» = the upstream broke off; «too_long» = max_reply; «too_large» = an event over max_publication_bytes; "
        "«given_up» = cancelled, or the gateway stopped.",
        [(rate("tidegate_upstream_replies_total", "upstream, outcome", UPSTREAMS), "{{upstream}} {{outcome}}")],
        stack=True,
    ),
    graph(
        "Celery tasks",
        "ops",
        "Tasks whose result was seen. «failed» = an exception of the task: its worker's log. «unreadable» = no JSON: "
        "result_serializer. «untracked» = ids that could not be put where the backend looks.",
        [
            (rate("tidegate_celery_tasks_total", "outcome"), "{{outcome}}"),
            (rate("tidegate_celery_untracked_tasks_total"), "untracked"),
        ],
    ),
    graph(
        "Proxy, to the head of the answer",
        "s",
        "Requests that are no route, passed on to [proxy] upstream. Slow = the API behind the gateway.",
        quantiles("tidegate_proxy_duration_seconds"),
    ),
]

LAYER = [
    row("Channel layer (wire = \"channels-…\")"),
    graph(
        "Messages of the layer",
        "ops",
        "What group_send wrote for this gateway. «duplicate» = another node had it first, as it should be; «other_type» = not in "
        "`types`; «refused» = Redis would not append it.",
        [(rate("tidegate_channel_layer_messages_total", "outcome"), "{{outcome}}")],
        stack=True,
    ),
    graph(
        "In the mailbox",
        "short",
        "When last looked at. Near the backend's `capacity` the backend drops: more nodes, or a higher capacity in CHANNEL_LAYERS.",
        [(f"max(tidegate_channel_layer_mailbox_messages{selector()})", "messages")],
    ),
    graph(
        "What went wrong",
        "ops",
        "Gaps = messages may have been missed, and clients were told. Full = the mailbox was at its capacity. Memberships lost = "
        "Redis forgot groups (eviction, restart). Unreadable = another serializer or key than the backend's.",
        [
            (rate("tidegate_channel_layer_gaps_total"), "gaps"),
            (rate("tidegate_channel_layer_losses_total"), "connection lost"),
            (rate("tidegate_channel_layer_mailbox_full_total"), "mailbox full"),
            (rate("tidegate_channel_layer_memberships_lost_total"), "memberships lost"),
            (rate("tidegate_channel_layer_unreadable_total"), "unreadable"),
        ],
    ),
]

DASHBOARD = dashboard(
    "tidegate-redis-upstreams",
    "Tidegate / Redis and upstreams",
    "What the gateway rests on: Redis, the channel layer, upstreams, key sets.",
    NOW + REDIS + UPSTREAM + LAYER,
    [
        choice(
            "upstream",
            "Upstream",
            'label_values(tidegate_upstream_circuit_open{job=~"$job", instance=~"$instance"}, upstream)',
        )
    ],
)
