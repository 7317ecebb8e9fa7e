"""Replies: how soon they begin, how they flow, how they end; nothing lost, nothing twice."""

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
# A cancelled reply is what its user wanted; one that another node took is counted there.
JUDGED = f'{ROUTES}, outcome!~"cancelled|taken|not_tracked"'
FAILED = f'{ROUTES}, outcome=~"worker_lost|task_failed|overdue|engine_down"'


def within(seconds):
    """The share of first chunks of the chosen time that came within one of the histogram's bounds."""
    within, every = grown(f"{FIRST}_bucket", f'{ROUTES}, le="{seconds}"'), grown(f"{FIRST}_count", ROUTES)
    return success(f"({every} - {within})", every)


NOW = [
    number(
        "Completed",
        "percentunit",
        "Share of the chosen time's replies that ended as they should, cancelled ones aside. Objective: 99 %. Below it, "
        "«How they ended» says what the others met.",
        success(grown(TOTAL, FAILED), grown(TOTAL, JUDGED)),
        decimals=2,
        thresholds=steps(RED, (0.95, YELLOW), (0.99, GREEN)),
    ),
    number(
        "First chunk within 3 s",
        "percentunit",
        "Share of the chosen time's replies that began within 3 seconds. Objective: 95 %. Below it: more workers, "
        "or a model that answers sooner.",
        within("3"),
        decimals=1,
        thresholds=steps(RED, (0.9, YELLOW), (0.95, GREEN)),
    ),
    number(
        "First chunk, p95",
        "s",
        "From a message to its reply's first event, for 95 of 100.",
        quantile(0.95, FIRST, where=ROUTES),
        decimals=2,
        spark=True,
        thresholds=steps(GREEN, (3, YELLOW), (8, RED)),
    ),
    number(
        "Gap, p99",
        "s",
        "The pause between two chunks that one in a hundred exceeds. Above a second users see the text stutter: "
        "look at the model, and whether the worker batches its chunks.",
        quantile(0.99, GAP, where=ROUTES),
        decimals=2,
        spark=True,
        thresholds=steps(GREEN, (1, YELLOW), (5, RED)),
    ),
    number(
        "Lost or failed",
        "short",
        "Replies of the chosen time that did not come to their end. Their users were told (worker_lost, task_failed …). "
        "More than a few: the worker's log at those times.",
        grown(TOTAL, FAILED) + " or vector(0)",
        decimals=0,
        thresholds=steps(GREEN, (1, YELLOW), (20, RED)),
    ),
    number(
        "Duplicates in all",
        "short",
        "Messages and terminal events of the chosen time that came twice and were passed on once. Many repeated messages: "
        "clients whose answers do not come in time.",
        grown("tidegate_duplicates_total") + " or vector(0)",
        decimals=0,
    ),
]

PANELS = [
    row("How they ended"),
    graph(
        "How they ended",
        "reqps",
        "Replies per second. «worker_lost» = the upstream broke off, or fell silent for reply_idle_timeout; "
        "«task_failed» = the task's own error; «overdue» = no terminal event within max_duration: does the worker "
        "publish one of terminal_events? «engine_down» = Redis was away for too long; «not_tracked» = too many at once.",
        [(rate(TOTAL, "outcome", ROUTES), "{{outcome}}")],
        w=12,
        stack=True,
        colors={"completed": GREEN, "worker_lost": RED, "cancelled": YELLOW},
    ),
    graph(
        "Lost or failed, by route",
        "percentunit",
        "Share of the replies that did not come to their end. One route: its upstream. All: Redis, or the network.",
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
    row("How they flow"),
    graph(
        "First chunk",
        "s",
        "From a message to its reply's first event. All quantiles rise = not enough workers; p99 alone = a few slow prompts.",
        quantiles(FIRST, ROUTES),
    ),
    graph(
        "Gap between chunks",
        "s",
        "Between two events of one reply. Rises with the delivery latency (Overview) = the gateway; without it = the worker.",
        quantiles(GAP, ROUTES),
    ),
    graph(
        "Whole reply, by how it ended",
        "s",
        "The p95 of each ending. «worker_lost» at one and the same length is a timeout somewhere: a proxy, max_reply, "
        "reply_idle_timeout.",
        [(quantile(0.95, WHOLE, "outcome", ROUTES), "{{outcome}}")],
    ),
    graph(
        "First chunk by route, p95",
        "s",
        "Which route is slow. Follow it in the dashboard Route.",
        [(quantile(0.95, FIRST, "route", ROUTES), "{{route}}")],
    ),
    heat(
        "First chunk, how it spreads",
        "s",
        "Two bands are two kinds of prompts, or a cold and a warm model. A band that widens upwards is a queue.",
        FIRST,
        where=ROUTES,
        w=8,
    ),
    heat(
        "Gap between chunks, how it spreads",
        "s",
        "A second band high above the first is a worker that pauses: tools, retries, garbage collection.",
        GAP,
        where=ROUTES,
        w=8,
    ),
    row("Nothing lost, nothing twice"),
    graph(
        "Clients that came back",
        "ops",
        "Resumes per second. «not_recovered» = the history no longer reached back, and the client loads the conversation "
        "anew: raise [route.history] size or ttl, or look whether Redis evicts.",
        [(rate("tidegate_resumes_total", "outcome"), "{{outcome}}")],
        stack=True,
        colors={"recovered": GREEN, "not_recovered": RED},
    ),
    graph(
        "Publications sent again",
        "ops",
        "From histories, to clients that came back. A wave follows a roll-out; a steady stream means that clients "
        "reconnect all the time: look at «Closes».",
        [(rate("tidegate_replayed_publications_total"), "sent again")],
    ),
    graph(
        "Duplicates caught",
        "ops",
        "What came twice and was passed on once, per second. Repeated messages: clients whose answer came late, or not. "
        "Second terminal events: a worker that ends a task twice, often a retry.",
        [(rate("tidegate_duplicates_total", "kind"), "{{kind}}")],
        stack=True,
    ),
    graph(
        "What nodes missed",
        "ops",
        "Channels that a node had to catch up with after Redis was away. «lost» = the history did not hold it; their "
        "clients were closed with 1012.",
        [(rate("tidegate_catch_ups_total", "outcome"), "{{outcome}}")],
        colors={"complete": GREEN, "lost": RED},
    ),
    graph(
        "Taken over from dead nodes",
        "ops",
        "Replies whose node died and which another ended or goes on with. Any = a node died: see Uptime in the Overview.",
        [(rate("tidegate_generations_taken_over_total"), "taken over")],
    ),
    graph(
        "Answers not kept",
        "ops",
        "Messages that were relayed while the engine could not be told: a repeat of one is relayed again. Any = "
        "Redis was away just then.",
        [(rate("tidegate_message_answers_not_kept_total"), "not kept")],
    ),
]

DASHBOARD = dashboard(
    "tidegate-generations",
    "Tidegate / Generations",
    "Replies: how soon they begin, how they flow, how they end; nothing lost, nothing twice.",
    NOW + PANELS,
    [
        choice(
            "route",
            "Route",
            'label_values(tidegate_connections{job=~"$job", instance=~"$instance"}, route)',
        )
    ],
)
