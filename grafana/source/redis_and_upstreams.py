"""What the gateway depends on: Redis, the channel layer, upstreams, key sets."""

from .panels import (
    GREEN,
    RED,
    YELLOW,
    choice,
    dashboard,
    graph,
    increase,
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
        "Share of all connections of all nodes. Below 100 %, «Redis, by connection» shows which are down. One connection "
        "on all nodes: that Redis. All connections of one node: that node's network.",
        f"sum(tidegate_redis_up{selector()}) / count(tidegate_redis_up{selector()})",
        thresholds=steps(RED, (0.5, YELLOW), (1, GREEN)),
    ),
    number(
        "Subscriptions live",
        "percentunit",
        "Share of the nodes that are subscribed to all their channels. The other nodes are not ready. They catch up when "
        "they are subscribed again.",
        f"sum(tidegate_redis_subscription_live{selector()}) / count(tidegate_redis_subscription_live{selector()})",
        thresholds=steps(RED, (0.5, YELLOW), (1, GREEN)),
    ),
    number(
        "Canary round trip, p99",
        "s",
        "Time of the canary through Redis and back. Above 100 ms, Redis is busy (SLOWLOG, big keys, AOF) or far away.",
        quantile(0.99, "tidegate_canary_seconds"),
        spark=True,
        decimals=3,
        thresholds=steps(GREEN, (0.1, YELLOW), (0.5, RED)),
    ),
    number(
        "Circuits open",
        "none",
        "Upstreams that get no requests now, counted on each node. Look at the upstream first.",
        total("tidegate_upstream_circuit_open", where=UPSTREAMS),
        thresholds=steps(GREEN, (1, RED)),
    ),
    number(
        "Upstream failures",
        "percentunit",
        "Share of the requests that no upstream accepted, in the selected time: unavailable, busy or not sent. A 4xx "
        "response does not count.",
        ratio(increase(REQUESTS, FAILED), increase(REQUESTS, UPSTREAMS)),
        decimals=2,
        thresholds=steps(GREEN, (0.01, YELLOW), (0.05, RED)),
    ),
    number(
        "Upstream answer, p95",
        "s",
        "Time from a message to the head of the response, retries included, for 95 of 100 requests.",
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
        "1 while Redis answers, is the primary and accepts what is sent; shows the worst node. The gateway reconnects "
        "every second. The log events redis_lost, redis_connect_failed and redis_probe_failed have the reason.",
        [(f"min by (connection) (tidegate_redis_up{selector()})", "{{connection}}")],
        highest=1,
        steps_drawn=True,
    ),
    graph(
        "Subscription, by node",
        "none",
        "1 while a node is subscribed to all its channels. At 0 its clients get no publications; they catch up from the "
        "histories afterwards.",
        [(f"tidegate_redis_subscription_live{selector()}", "{{instance}}")],
        highest=1,
        steps_drawn=True,
    ),
    graph(
        "Canary round trip",
        "s",
        "Time of the canary through Redis and back to the same node. Chunks take the same path.",
        quantiles("tidegate_canary_seconds"),
    ),
    graph(
        "Connects and losses",
        "ops",
        "Connections made, failed and lost, per second. If losses come at a fixed interval, a proxy or firewall cuts idle "
        "connections, or Redis does: set its `timeout` to 0.",
        [
            (rate("tidegate_redis_connects_total", "outcome"), "connects: {{outcome}}"),
            (rate("tidegate_redis_lost_total"), "lost"),
            (rate("tidegate_redis_subscription_losses_total"), "subscription lost"),
        ],
    ),
    graph(
        "Redis refusals and lost canaries",
        "ops",
        "Refused commands (log event redis_refused: OOM, READONLY after a failover, NOPERM), refused channels (ACL), and "
        "canaries that did not come back.",
        [
            (rate("tidegate_redis_refusals_total", "connection"), "refused: {{connection}}"),
            (rate("tidegate_redis_subscription_refusals_total"), "refused channels"),
            (rate("tidegate_canary_failures_total"), "canary failed"),
        ],
    ),
    graph(
        "Failures without Redis",
        "ops",
        "Limits that could not be checked (the client was told to try again), leases that could not be renewed, and "
        "presence. If all happen at once, check the Redis of limits_url.",
        [
            (rate("tidegate_limit_engine_down_total", "limit"), "limit: {{limit}}"),
            (rate("tidegate_lease_renewal_failures_total"), "lease renewals"),
            (rate("tidegate_presence_engine_failures_total", "step"), "presence: {{step}}"),
        ],
    ),
    graph(
        "Commands between nodes",
        "ops",
        "Disconnects and cancels that reached a node. Outcomes other than «done»: the node is overloaded or has another "
        "version.",
        [(rate("tidegate_control_orders_total", "outcome"), "{{outcome}}")],
        stack=True,
        colors={"done": GREEN},
    ),
    graph(
        "Key sets and sessions",
        "ops",
        "Fetches of the JSON Web Key Set, and checks of session versions in Redis. If fetches fail, check jwks_url; known "
        "keys still work.",
        [
            (rate("tidegate_jwks_fetches_total", "outcome"), "key set: {{outcome}}"),
            (rate("tidegate_sessions_checked_total", "outcome"), "session: {{outcome}}"),
        ],
    ),
    graph(
        "JWTs",
        "ops",
        "JWTs verified per second. «wrong_signature» after a change of keys: the gateway does not have the new key yet. "
        "Many «expired»: a wrong clock, or pages that were asleep.",
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
        "Upstream requests per second, by outcome. «unavailable»: failed or timed out; «busy»: the upstream said so, or "
        "its queue is full; «full»: max_in_flight; «circuit_open»: not sent after failures; «rejected»: a 4xx, see the "
        "upstream's log.",
        [(rate(REQUESTS, "upstream, outcome", UPSTREAMS), "{{upstream}} {{outcome}}")],
        stack=True,
    ),
    graph(
        "Failures",
        "percentunit",
        "Share of the requests that were not accepted. The alert fires above 5 %. One upstream: that service. All "
        "upstreams: DNS or the network.",
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
        "Time to the head of the response, retries included. At the upstream's `timeout` the request is aborted and "
        "counts as unavailable.",
        [(quantile(0.95, "tidegate_upstream_request_seconds", "upstream", UPSTREAMS), "{{upstream}}")],
    ),
    graph(
        "In flight",
        "short",
        "Messages, replies and sockets in progress on all nodes. At max_in_flight (per node) clients get «busy»: raise it "
        "if the upstream can handle more.",
        [(total("tidegate_upstream_in_flight", "upstream", UPSTREAMS), "{{upstream}}")],
    ),
    graph(
        "Circuit",
        "none",
        "1 while an upstream gets no requests, on any node. After `open` the next message is tried, and closes the "
        "circuit if it succeeds. Without messages it stays at 1.",
        [(f"max by (upstream) (tidegate_upstream_circuit_open{selector(UPSTREAMS)})", "{{upstream}}")],
        highest=1,
        steps_drawn=True,
    ),
    graph(
        "Retries",
        "reqps",
        "Requests that were sent again with the same key. A few all the time: the upstream closes idle connections too "
        "early. Its keep-alive should be longer than the gateway's.",
        [(rate("tidegate_upstream_retries_total", "upstream", UPSTREAMS), "{{upstream}}")],
    ),
    graph(
        "Streamed replies, by outcome",
        "reqps",
        "Streamed replies per second. «lost»: the upstream broke off; «too_long»: max_reply; «too_large»: an event over "
        "max_publication_bytes; «given_up»: cancelled, or the gateway stopped.",
        [(rate("tidegate_upstream_replies_total", "upstream, outcome", UPSTREAMS), "{{upstream}} {{outcome}}")],
        stack=True,
    ),
    graph(
        "Celery tasks",
        "ops",
        "Tasks whose result was read. «failed»: an exception in the task, see its worker's log; «unreadable»: not JSON, "
        "check result_serializer; «untracked»: ids that could not be stored where the backend looks for them.",
        [
            (rate("tidegate_celery_tasks_total", "outcome"), "{{outcome}}"),
            (rate("tidegate_celery_untracked_tasks_total"), "untracked"),
        ],
    ),
    graph(
        "Proxy, time to the head of the response",
        "s",
        "Time to the head of the response, for requests that [proxy] upstream handles. If it is slow, check the API "
        "behind the gateway.",
        quantiles("tidegate_proxy_duration_seconds"),
    ),
]

LAYER = [
    row("Channel layer (wire = \"channels-…\")"),
    graph(
        "Messages of the layer",
        "ops",
        "What group_send wrote for this gateway. «duplicate»: another node read it first, which is normal; «other_type»: "
        "not in `types`; «refused»: Redis did not append it.",
        [(rate("tidegate_channel_layer_messages_total", "outcome"), "{{outcome}}")],
        stack=True,
    ),
    graph(
        "In the mailbox",
        "short",
        "Messages in the mailbox at the last check. Near the backend's `capacity` the backend drops messages: add nodes, "
        "or raise the capacity in CHANNEL_LAYERS.",
        [(f"max(tidegate_channel_layer_mailbox_messages{selector()})", "messages")],
    ),
    graph(
        "Channel layer problems",
        "ops",
        "Gaps: messages may have been missed, and clients were told. Full: the mailbox reached its capacity. Memberships "
        "lost: Redis lost groups (eviction, restart). Unreadable: another serializer or key than the backend's.",
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
    "What the gateway depends on: Redis, the channel layer, upstreams, key sets.",
    NOW + REDIS + UPSTREAM + LAYER,
    [
        choice(
            "upstream",
            "Upstream",
            'label_values(tidegate_upstream_circuit_open{job=~"$job", instance=~"$instance"}, upstream)',
        )
    ],
)
