//! Keys of `[route.generations]`.

use super::values::{CONCURRENT, DUPLICATE_TERMINAL};
use crate::config::Generations;
use crate::config::kinds;
use crate::config::section::Section;

pub fn generations(s: &mut Section<'_>) -> Option<Generations> {
    let dedup_ttl = s.key(
        "dedup_ttl",
        kinds::DURATION,
        "10m",
        "A message with an \"id\" is relayed only once within this time; \"0s\" = every time.",
    );
    let terminal_events = s.list(
        "terminal_events",
        kinds::NAME,
        &["complete", "completed", "error", "cancelled"],
        "Names of the events that end a generation.",
    );
    let reply_idle_timeout = s.key(
        "reply_idle_timeout",
        kinds::DURATION,
        "0s",
        "A queue worker that publishes nothing for this long is reported as \"worker_lost\"; \"0s\" = never.",
    );
    let first_event_warning = s.key(
        "first_event_warning",
        kinds::OPTIONAL_DURATION,
        "30s",
        "A worker's reply of which nothing was heard for this long is logged (\"reply_unheard\"), with the settings to \
         check; \"0s\" = never.",
    );
    let max_duration = s.key(
        "max_duration",
        kinds::POSITIVE_DURATION,
        "30m",
        "The longest that a queue's generation counts as running.",
    );
    let duplicate_terminal = s.key(
        "duplicate_terminal",
        DUPLICATE_TERMINAL,
        "drop",
        "A second terminal event of a task: \"drop\" discards it, \"pass\" delivers it.",
    );
    let concurrent = s.key(
        "concurrent",
        CONCURRENT,
        "parallel",
        "A message while a reply runs on its channel: \"parallel\" relays it at once, \"queue\" after the replies before it, \"reject\" answers \"busy\".",
    );
    let max_waiting = s.key(
        "max_waiting",
        kinds::WAITING,
        16,
        "Messages of one channel that wait with concurrent = \"queue\"; beyond that, clients get \"busy\".",
    );
    let max_waiting_per_user = s.key(
        "max_waiting_per_user",
        kinds::COUNT,
        0,
        "The same for one user, or for the anonymous clients of one address; 0 = half of max_waiting.",
    );
    Some(Generations {
        dedup_ttl: dedup_ttl?,
        terminal_events: terminal_events?,
        reply_idle_timeout: reply_idle_timeout?,
        first_event_warning: first_event_warning?,
        max_duration: max_duration?,
        duplicate_terminal: duplicate_terminal?,
        concurrent: concurrent?,
        max_waiting: max_waiting?,
        max_waiting_per_user: max_waiting_per_user?,
    })
}
