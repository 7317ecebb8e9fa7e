//! An answer as text for people.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::answer::{
    Answer, Channel, Connection, Error, Generation, LocalLimit, Numbers, UserLimit,
};
use crate::cli::record::escape_controls;
use crate::clock;

/// Writes what is known of the `name`, a parameter of the call. `now` is in Unix seconds.
pub fn write(kind: &str, name: &str, answer: &Answer, now: u64) -> String {
    let mut lines = Lines::default();
    let kind = match kind {
        "connection_id" => "connection",
        "user_id" => "user",
        other => other,
    };
    lines.add(0, format!("{kind} {name}: {}", summary(answer)));
    for channel in answer.channels.iter().flatten() {
        lines.add(1, self::channel(channel));
    }
    for connection in &answer.connections {
        lines.connection(connection, answer, now);
    }
    let left_out = answer.total_connections.saturating_sub(answer.connections.len() as u64);
    if left_out > 0 {
        lines.add(0, format!("{left_out} more connections are not shown"));
    }
    lines.user_limits(answer);
    if !answer.generations.is_empty() {
        lines.add(0, "replies in progress".to_owned());
        answer.generations.iter().for_each(|one| lines.add(1, generation(one, now)));
        if answer.more_generations {
            lines.add(1, "more are not shown".to_owned());
        }
    }
    if !answer.errors.is_empty() {
        lines.add(0, "recent errors, the latest first".to_owned());
        answer.errors.iter().for_each(|one| lines.add(1, error(one)));
        if answer.more_errors {
            lines.add(1, "more are not shown".to_owned());
        }
    }
    lines.0
}

fn summary(answer: &Answer) -> String {
    let errors = answer.errors.len() as u64;
    format!(
        "{}, {}, {}",
        count(answer.total_connections, "open connection"),
        count(answer.generations.len() as u64, "reply in progress"),
        count(errors, "recent error")
    )
}

/// Lines of text, without control characters.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, level: usize, line: String) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{:width$}{}", "", escape_controls(&line), width = 2 * level);
    }

    fn connection(&mut self, one: &Connection, answer: &Answer, now: u64) {
        let since = clock::to_rfc3339(Duration::from_secs(one.connected_at));
        let age = span(now.saturating_sub(one.connected_at));
        self.add(0, format!("connection {}: open for {age}, since {since}", one.connection_id));
        let origin = one.origin.as_deref().map_or(String::new(), |it| format!(", origin {it}"));
        let who = user(&one.user_id, one.username.as_deref());
        self.add(1, format!("{who} from {}{origin}, on node {}", one.address, one.node));
        let channel =
            one.channel.as_deref().map_or("no channel".into(), |it| format!("channel {it}"));
        let upstream =
            one.upstream.as_deref().map_or("no upstream".into(), |it| format!("upstream {it}"));
        self.add(1, format!("route {}, {channel}, {upstream}", one.route));
        self.add(1, credentials(one, now));
        self.add(1, send_queue(one, now));
        if let Some(compression) = &one.compression {
            self.add(1, format!("compression: {compression}"));
        }
        self.add(1, inbox(one));
        if let Some(position) = position(one, answer) {
            self.add(1, position);
        }
        if one.present {
            self.add(1, "present in the channel's presence".to_owned());
        }
        if one.memory_bytes > 0 {
            self.add(1, format!("holds {} of messages and queues", bytes(one.memory_bytes)));
        }
        for LocalLimit { limit, numbers } in &one.limits {
            self.add(1, standing(limit, limit.starts_with("connections"), numbers));
        }
    }

    fn user_limits(&mut self, answer: &Answer) {
        let Some(limits) = &answer.limits else {
            return self.add(0, "the limits are not known: the engine did not answer".to_owned());
        };
        for one in limits {
            let params: Vec<_> =
                one.params.iter().map(|(name, value)| format!("{name} {value}")).collect();
            let with = if params.is_empty() { "" } else { " with " };
            let params = params.join(", ");
            self.add(
                0,
                format!("limits of user {} on route {}{with}{params}", one.user_id, one.route),
            );
            for UserLimit { limit, kind, standing } in &one.limits {
                self.add(
                    1,
                    match standing {
                        Some(numbers) => self::standing(limit, kind == "leases", numbers),
                        None => format!(
                            "{limit}: not known, it is counted by a part of the path of a connection"
                        ),
                    },
                );
            }
        }
    }
}

fn user(id: &Value, name: Option<&str>) -> String {
    match (id, name) {
        (Value::Null, _) => "anonymous".to_owned(),
        (id, None) => format!("user {}", plain(id)),
        (id, Some(name)) => format!("user {} ({name})", plain(id)),
    }
}

fn plain(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

fn credentials(one: &Connection, now: u64) -> String {
    let kind = one.credentials.replace('_', " ");
    let in_seconds = |at: u64| span(at.saturating_sub(now));
    match (one.expires_at, one.closes_at) {
        (Some(expires), Some(closes)) if closes < expires => format!(
            "credentials: {kind}, which expires in {}; max_session closes the connection in {}",
            in_seconds(expires),
            in_seconds(closes)
        ),
        (Some(expires), _) => {
            format!("credentials: {kind}, which expires in {}", in_seconds(expires))
        }
        (None, Some(closes)) => format!(
            "credentials: {kind}; max_session closes the connection in {}",
            in_seconds(closes)
        ),
        (None, None) => format!("credentials: {kind}, without an expiry"),
    }
}

fn send_queue(one: &Connection, now: u64) -> String {
    let queue = &one.send_queue;
    if queue.messages == 0 {
        return "send queue: empty".to_owned();
    }
    let since = match queue.since {
        Some(since) => {
            let age = span(now.saturating_sub(since));
            format!("; the client has not taken all of it for {age}")
        }
        None => String::new(),
    };
    let held = if queue.held { "; publications wait for an answer or a history" } else { "" };
    format!(
        "send queue: {} of {} frames, {} of {}{since}{held}",
        queue.messages,
        queue.max_messages,
        bytes(queue.bytes),
        bytes(queue.max_bytes)
    )
}

fn inbox(one: &Connection) -> String {
    let inbox = &one.inbox;
    match (inbox.relaying, inbox.waiting) {
        (false, 0) if inbox.bytes == 0 => "messages: none waiting".to_owned(),
        (false, _) => format!("messages: {} wait for the upstream", bytes(inbox.bytes)),
        (true, waiting) => format!(
            "messages: one is being relayed, or waits for its turn; {waiting} wait behind it, {}",
            bytes(inbox.bytes)
        ),
    }
}

fn position(one: &Connection, answer: &Answer) -> Option<String> {
    let mut channels = answer.channels.iter().flatten();
    let now = channels.find(|channel| Some(&channel.channel) == one.channel.as_ref())?;
    let offset = now.offset?;
    if one.replaying {
        return Some(format!("history: is being sent, up to offset {offset}"));
    }
    let began = one.began_after.as_ref()?;
    if now.epoch.as_ref() != Some(&began.epoch) {
        return Some(format!("history: the channel has begun a new epoch and is at {offset}"));
    }
    let began = format!("history: receives what came after offset {}", began.offset);
    Some(match one.written_up_to.as_ref().map(|written| written.offset) {
        Some(written) if written < offset => {
            format!("{began}; written up to {written}, {} behind the channel", offset - written)
        }
        Some(_) => format!("{began}; everything up to {offset} is written"),
        None => format!("{began}; the channel is at {offset}"),
    })
}

fn channel(one: &Channel) -> String {
    let Channel { channel, history, epoch, offset } = one;
    match (history, offset, epoch) {
        (true, Some(offset), Some(epoch)) => {
            format!(
                "channel {channel} keeps a history, which is at offset {offset} of epoch {epoch}"
            )
        }
        (true, ..) => format!("channel {channel} keeps a history, which is empty"),
        (false, ..) => format!("channel {channel} keeps no history"),
    }
}

/// The status of a limit; a sentence that says more if nothing is left. `is_count`: what counts is still open.
fn standing(limit: &str, is_count: bool, numbers: &Numbers) -> String {
    let Numbers { max, remaining, retry_after } = numbers;
    if *remaining > 0 {
        return format!("{limit}: {remaining} of {max} left");
    }
    match is_count {
        true => format!("over {limit}: 0 of {max} left, the next when one of them ends"),
        false => format!("over {limit}: 0 of {max} left, the next in {}", span(*retry_after)),
    }
}

fn generation(one: &Generation, now: u64) -> String {
    let by = match (one.streams, one.upstream.as_str()) {
        (true, upstream) => format!("streamed by {upstream}"),
        (false, upstream) => format!("published by a worker of {upstream}"),
    };
    let asked = one.connection_id.as_deref().map_or(String::new(), |id| {
        format!(", for connection {id} of {}", user(&one.user_id, None))
    });
    let began = span(now.saturating_sub(one.began_at));
    let last = match one.last_event_at {
        Some(at) => format!("the last event {} ago", span(now.saturating_sub(at))),
        None => "no event yet".to_owned(),
    };
    format!(
        "task {} on {}: {by}{asked}, on node {}, for {began}; {last}",
        one.task_id, one.channel, one.node
    )
}

fn error(one: &Error) -> String {
    let what = match one.about.as_str() {
        "handshake" => "handshake refused",
        "answer" => "answered with an error",
        "reply" => "a reply failed",
        "close" => "closed",
        other => other,
    };
    let mut line =
        format!("{} {what}: {}", clock::to_rfc3339(Duration::from_millis(one.at_ms)), one.code);
    let named = [
        ("task", one.task_id.clone()),
        ("connection", one.connection_id.clone()),
        ("user", (!one.user_id.is_null()).then(|| plain(&one.user_id))),
        ("channel", one.channel.clone()),
    ];
    let named: Vec<String> =
        named.into_iter().filter_map(|(kind, name)| Some(format!("{kind} {}", name?))).collect();
    if !named.is_empty() {
        let _ = write!(line, " ({})", named.join(", "));
    }
    line
}

fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        // The first word is the one that counts.
        _ => match what.split_once(' ') {
            Some(("reply", rest)) => format!("{number} replies {rest}"),
            _ => format!("{number} {what}s"),
        },
    }
}

/// A time in seconds.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} KB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}
