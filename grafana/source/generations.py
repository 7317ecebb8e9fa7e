"""Replies: time to the first chunk, gaps, outcomes, recovery and duplicates."""

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
    ratio,
    row,
    steps,
    success,
)

ROUTES = 'route=~"$route"'
TOTAL = "tidegate_generations_total"
FIRST = "tidegate_generation_first_chunk_seconds"
GAP = "tidegate_generation_chunk_gap_seconds"
WHOLE = "tidegate_generation_duration_seconds"
# Cancelled replies are not failures. A reply that another node took over is counted on that node.
JUDGED = f'{ROUTES}, outcome!~"cancelled|taken|not_tracked"'
FAILED = f'{ROUTES}, outcome=~"worker_lost|task_failed|overdue|engine_down"'


def within(seconds):
    """The share of first chunks within one of the histogram's bounds, in the selected time."""
    within, every = increase(f"{FIRST}_bucket", f'{ROUTES}, le="{seconds}"'), increase(f"{FIRST}_count", ROUTES)
    return success(f"({every} - {within})", every)


NOW = [
    number(
        "Completed",
        "percentunit",
        "Share of the replies that completed, in the selected time. Cancelled replies do not count. Objective: 99 %. "
        "Below it, «Outcomes» shows what happened to the others.",
        success(increase(TOTAL, FAILED), increase(TOTAL, JUDGED)),
        decimals=2,
        thresholds=steps(RED, (0.95, YELLOW), (0.99, GREEN)),
    ),
    number(
        "First chunk within 3 s",
        "percentunit",
        "Share of the replies that started within 3 seconds, in the selected time. Objective: 95 %. Below it: add "
        "workers, or use a model that answers faster.",
        within("3"),
        decimals=1,
        thresholds=steps(RED, (0.9, YELLOW), (0.95, GREEN)),
    ),
    number(
        "First chunk, p95",
        "s",
        "Time from a message to the first event of its reply, for 95 of 100 replies.",
        quantile(0.95, FIRST, where=ROUTES),
        decimals=2,
        spark=True,
        thresholds=steps(GREEN, (3, YELLOW), (8, RED)),
    ),
    number(
        "Gap, p99",
        "s",
        "Pause between two chunks that is exceeded by one in a hundred. Above a second, users see the text stutter: check "
        "the model, and whether the worker batches its chunks.",
        quantile(0.99, GAP, where=ROUTES),
        decimals=2,
        spark=True,
        thresholds=steps(GREEN, (1, YELLOW), (5, RED)),
    ),
    number(
        "Lost or failed",
        "short",
        "Replies that did not complete, in the selected time. Their users got an error (worker_lost, task_failed …). If "
        "there are more than a few, check the worker's log at these times.",
        increase(TOTAL, FAILED) + " or vector(0)",
        decimals=0,
        thresholds=steps(GREEN, (1, YELLOW), (20, RED)),
    ),
    number(
        "Duplicates",
        "short",
        "Messages and terminal events that arrived twice and were passed on once, in the selected time. Many repeated "
        "messages: clients do not get their answers in time.",
        increase("tidegate_duplicates_total") + " or vector(0)",
        decimals=0,
    ),
]

PANELS = [
    row("Outcomes"),
    graph(
        "Outcomes",
        "reqps",
        "Replies per second, by outcome. «worker_lost»: the upstream broke off, or was silent for reply_idle_timeout; "
        "«task_failed»: the task's own error; «overdue»: no terminal event within max_duration, so check that the worker "
        "publishes one of terminal_events; «engine_down»: Redis was down for too long; «not_tracked»: too many at once.",
        [(rate(TOTAL, "outcome", ROUTES), "{{outcome}}")],
        w=12,
        stack=True,
        colors={"completed": GREEN, "worker_lost": RED, "cancelled": YELLOW},
    ),
    graph(
        "Lost or failed, by route",
        "percentunit",
        "Share of the replies that did not complete. On one route: its upstream. On all routes: Redis or the network.",
        [
            (
                ratio(rate(TOTAL, "route", FAILED), rate(TOTAL, "route", JUDGED)),
                "{{route}}",
            )
        ],
        w=12,
        highest=1,
        limits=steps("transparent", (0.02, RED)),
    ),
    row("Timing"),
    graph(
        "First chunk",
        "s",
        "Time from a message to the first event of its reply. If all quantiles rise, there are too few workers. If only "
        "p99 rises, a few prompts are slow.",
        quantiles(FIRST, ROUTES),
    ),
    graph(
        "Gap between chunks",
        "s",
        "Time between two events of one reply. If it rises together with the delivery latency (Overview), the gateway is "
        "slow; otherwise the worker.",
        quantiles(GAP, ROUTES),
    ),
    graph(
        "Duration, by outcome",
        "s",
        "Duration of replies, the p95 of each outcome. If «worker_lost» always has the same duration, it is a timeout: of "
        "a proxy, max_reply or reply_idle_timeout.",
        [(quantile(0.95, WHOLE, "outcome", ROUTES), "{{outcome}}")],
    ),
    graph(
        "First chunk by route, p95",
        "s",
        "Shows which route is slow. The dashboard Route shows it in detail.",
        [(quantile(0.95, FIRST, "route", ROUTES), "{{route}}")],
    ),
    heat(
        "First chunk, distribution",
        "s",
        "Two bands are two kinds of prompts, or a cold and a warm model. A band that widens upwards is a queue.",
        FIRST,
        where=ROUTES,
        w=8,
    ),
    heat(
        "Gap between chunks, distribution",
        "s",
        "A second band far above the first means that a worker pauses: tools, retries, garbage collection.",
        GAP,
        where=ROUTES,
        w=8,
    ),
    row("Recovery and duplicates"),
    graph(
        "Resumes",
        "ops",
        "Resumes per second. «not_recovered»: the history did not reach back far enough, and the client reloads the "
        "conversation. Raise [route.history] size or ttl, or check whether Redis evicts keys.",
        [(rate("tidegate_resumes_total", "outcome"), "{{outcome}}")],
        stack=True,
        colors={"recovered": GREEN, "not_recovered": RED},
    ),
    graph(
        "Publications replayed",
        "ops",
        "Publications from histories, sent to clients that reconnected. A peak follows a rollout. A constant rate means "
        "that clients reconnect all the time: look at «Closes».",
        [(rate("tidegate_replayed_publications_total"), "replayed")],
    ),
    graph(
        "Duplicates dropped",
        "ops",
        "What arrived twice and was passed on once, per second. Repeated messages: clients that got their answer late or "
        "never. Second terminal events: a worker that ends a task twice, often after a retry.",
        [(rate("tidegate_duplicates_total", "kind"), "{{kind}}")],
        stack=True,
    ),
    graph(
        "Catch-ups",
        "ops",
        "Channels that a node had to catch up with after Redis was down. «lost»: the history did not contain what was "
        "missed, and their clients were closed with 1012.",
        [(rate("tidegate_catch_ups_total", "outcome"), "{{outcome}}")],
        colors={"complete": GREEN, "lost": RED},
    ),
    graph(
        "Failover from dead nodes",
        "ops",
        "Replies of a node that died, which another node ended or continues. Any value means that a node died: see "
        "«Uptime» in the Overview.",
        [(rate("tidegate_generations_taken_over_total"), "taken over")],
    ),
    graph(
        "Answers not stored",
        "ops",
        "Messages that were relayed while their answer could not be stored in the engine. A repeat of such a message is "
        "relayed again. Any value means that Redis was down at that moment.",
        [(rate("tidegate_message_answers_not_kept_total"), "not stored")],
    ),
]

DASHBOARD = dashboard(
    "tidegate-generations",
    "Tidegate / Generations",
    "Replies: time to the first chunk, gaps, outcomes, recovery and duplicates.",
    NOW + PANELS,
    [
        choice(
            "route",
            "Route",
            'label_values(tidegate_connections{job=~"$job", instance=~"$instance"}, route)',
        )
    ],
)
