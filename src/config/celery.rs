//! Keys of `[upstream.NAME] kind = "celery"`.

use std::time::Duration;

use super::engine::engine_url;
use super::kinds::{self, Kind, choice, words};
use super::kwargs::kwargs;
use super::section::Section;
use super::{CeleryTask, CeleryTrack, CeleryUpstream, Engine, RedisUrl, Results, TrackFormat};
use crate::protocol::{ChannelPattern, EventName, Template};

/// The placeholders of arguments, besides the names of the route's path.
pub(super) const PLACEHOLDERS: [&str; 7] =
    ["message", "channel", "user_id", "username", "connection_id", "message_id", "task_id"];

const SIGNAL: Kind<Option<&'static str>> =
    words(r#""SIGTERM", "SIGKILL", "SIGINT", "SIGQUIT", "SIGUSR1" or """#, |value| {
        let name = |name: &'static str| (name, Some(name));
        let signals = ["SIGTERM", "SIGKILL", "SIGINT", "SIGQUIT", "SIGUSR1"].map(name);
        choice(value, &signals).or_else(|_| choice(value, &[("", None)]))
    });

const TRACK_FORMAT: Kind<TrackFormat> = words(r#""pickle" or "json""#, |value| {
    choice(value, &[("pickle", TrackFormat::Pickle), ("json", TrackFormat::Json)])
});

pub(super) fn celery(s: &mut Section<'_>, engine: Option<&Engine>) -> Option<CeleryUpstream> {
    s.set_heading(
        r#"[upstream.NAME] kind = "celery""#.to_owned(),
        "A Celery task per message, on a Redis broker; an unchanged `celery worker` runs it. See [celery.md](celery.md).",
    );
    let broker_url = s.redis_url(
        "broker_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "The broker; \"\" = url of [engine.redis].",
    );
    let global_keyprefix = s.key(
        "global_keyprefix",
        kinds::TEXT,
        "",
        "global_keyprefix of Celery's broker_transport_options.",
    );
    let default_task = task(s, None);
    let tasks = s.tables(
        "tasks",
        "[upstream.NAME] tasks = [{ … }]",
        "Other tasks for channels that match a pattern; the first match is used. Keys that are left out have the upstream's values.",
        |s| channel_task(s, default_task.as_ref()),
    );
    let max_len = s.key(
        "max_len",
        kinds::LENGTH,
        100_000,
        "Tasks that may wait in the queue; beyond it messages are refused. 0 = no limit.",
    );
    let max_len_per_user =
        s.key("max_len_per_user", kinds::LENGTH, 0, super::upstream::MAX_LEN_PER_USER);
    let revoke_signal = s.key(
        "revoke_signal",
        SIGNAL,
        "SIGTERM",
        "Signal for the process of a cancelled task; \"\" = only tasks that have not started are cancelled.",
    );
    let results = results(s);
    let track = s.inline("track", track);
    let broker_url = match broker_url? {
        Some(url) => Some(url),
        None => engine_url(s, "broker_url", engine, |redis| &redis.url),
    };
    Some(CeleryUpstream {
        broker_url: broker_url?,
        global_keyprefix: global_keyprefix?,
        default_task: default_task?,
        tasks: tasks.into_iter().collect::<Option<_>>()?,
        max_len: max_len?,
        max_len_per_user: max_len_per_user?,
        revoke_signal: revoke_signal?,
        results: results?,
        track: track?,
    })
}

/// Reads the keys that the upstream and each of its `tasks` have. `default` is the upstream's own task.
fn task(s: &mut Section<'_>, default: Option<&CeleryTask>) -> Option<CeleryTask> {
    let name = s.required(
        "task",
        kinds::NAME,
        "The registered name of the task, such as \"core.tasks.process_message\".",
    );
    let kwargs = kwargs(s);
    let queue = s.key(
        "queue",
        kinds::NAME,
        default.map_or("celery", |default| &default.queue),
        "Its queue.",
    );
    let priority = s.key(
        "priority",
        kinds::PRIORITY,
        default.map_or(0, |default| i64::from(default.priority)),
        "Its priority; 0 is the highest.",
    );
    let expires = s.key(
        "expires",
        kinds::OPTIONAL_DURATION,
        default.map_or_else(|| "10m".to_owned(), |default| format_duration(default.expires)),
        "A task that has waited this long is not run; 0s = no limit.",
    );
    let queued_event = s.key(
        "queued_event",
        kinds::NAME,
        default.map_or(EventName::TaskQueued.label(), |default| &default.queued_event),
        "Name of the event that tells the client about the task.",
    );
    Some(CeleryTask {
        name: name?,
        queue: queue?,
        priority: priority?,
        kwargs: kwargs?,
        expires: expires?,
        queued_event: queued_event?,
    })
}

/// Formats a duration as a config file has it.
fn format_duration(duration: Option<Duration>) -> String {
    match duration.unwrap_or_default().as_millis() {
        millis if millis % 60_000 == 0 && millis > 0 => format!("{}m", millis / 60_000),
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}

fn channel_task(
    s: &mut Section<'_>,
    default: Option<&CeleryTask>,
) -> Option<(ChannelPattern, CeleryTask)> {
    let channel = s.required(
        "channel",
        kinds::NAME,
        "Pattern of its channels, such as \"chat_avatar-*\": * matches any characters.",
    );
    let task = task(s, default);
    Some((ChannelPattern::new(channel?), task?))
}

fn results(s: &mut Section<'_>) -> Option<Option<Results>> {
    let url = s.redis_url("result_backend_url", kinds::OPTIONAL_REDIS_URL, "",
        "Celery's result backend, if it is Redis, where failed, revoked and expired tasks are noticed. \"\" = they are not noticed.",
    );
    let keyprefix = s.key(
        "result_keyprefix",
        kinds::TEXT,
        "",
        "global_keyprefix of Celery's result_backend_transport_options.",
    );
    let (url, keyprefix) = (url?, keyprefix?);
    Some(url.map(|url| Results { url, keyprefix }))
}

fn track(s: &mut Section<'_>) -> Option<Option<CeleryTrack>> {
    let key = s.key(
        "key",
        kinds::OPTIONAL_TEMPLATE,
        "",
        "Key in Django's cache, with its prefix, for a set of task ids, such as \"app:1:tasks:{conversation_id}\". \"\" = none.",
    );
    let ttl = s.key(
        "ttl",
        kinds::POSITIVE_DURATION,
        "10m",
        "How long the key is kept after the last task.",
    );
    let redis_url = s.redis_url(
        "redis_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "Redis of Django's cache; \"\" = broker_url.",
    );
    let format = s.key(
        "format",
        TRACK_FORMAT,
        "pickle",
        "\"pickle\": a set, for caches that store pickles. \"json\": a list, for django-redis' JSONSerializer. A key that \
         exists keeps its format.",
    );
    let (key, ttl, redis_url): (Option<Template>, Duration, Option<RedisUrl>) =
        (key?, ttl?, redis_url?);
    let format = format?;
    Some(key.map(|key| CeleryTrack { key, ttl, redis_url, format }))
}
