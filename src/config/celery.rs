//! Keys of `[upstream.NAME] kind = "celery"`, and how the arguments of its tasks are written.

use std::time::Duration;

use serde_json::Value as Json;
use toml::{Table, Value};

use super::kinds::{self, Kind, Wrong, choice, words};
use super::mistakes::nearest;
use super::section::Section;
use super::upstream::engine_url;
use super::{
    CeleryTask, CeleryTrack, CeleryUpstream, ClientField, Engine, FieldType, Kwarg, Kwargs,
    Missing, RedisUrl, Results,
};
use crate::protocol::{ChannelPattern, Template};

/// Placeholders that are filled in arguments, besides the names of the route's path.
pub(super) const PLACEHOLDERS: [&str; 7] =
    ["message", "channel", "user_id", "username", "connection_id", "message_id", "task_id"];

const SIGNAL: Kind<Option<&'static str>> =
    words(r#""SIGTERM", "SIGKILL", "SIGINT", "SIGQUIT", "SIGUSR1" or """#, |value| {
        let name = |name: &'static str| (name, Some(name));
        let signals = ["SIGTERM", "SIGKILL", "SIGINT", "SIGQUIT", "SIGUSR1"].map(name);
        choice(value, &signals).or_else(|_| choice(value, &[("", None)]))
    });

const KWARG: Kind<Kwarg> = Kind {
    name: "argument",
    right: r#"a text such as "{message}", a number, a boolean, { int = "{user_id}" }, { field = "image_url" }, { value = … } or { null = true }"#,
    read: kwarg,
};

pub(super) fn celery(s: &mut Section<'_>, engine: Option<&Engine>) -> Option<CeleryUpstream> {
    s.continue_under(
        r#"[upstream.NAME] kind = "celery""#.to_owned(),
        "A Celery task for each message, on a Redis broker; an unchanged `celery worker` runs it. See [celery.md](celery.md).",
    );
    let broker_url = s.redis_url(
        "broker_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "Celery's broker; \"\" = url of [engine.redis].",
    );
    let global_keyprefix = s.key(
        "global_keyprefix",
        kinds::TEXT,
        "",
        "Begins every key of the broker: what Celery's broker_transport_options say.",
    );
    let own = task(s, None);
    let tasks = s.tables(
        "tasks",
        "[upstream.NAME] tasks = [{ … }]",
        "Other tasks for the channels of a pattern; the first that fits the message's channel is taken. What one does not say is the upstream's own.",
        |s| task_of_channels(s, own.as_ref()),
    );
    let max_len = s.key(
        "max_len",
        kinds::LENGTH,
        100_000,
        "Tasks that may wait in the list; beyond it messages are refused. 0 = no bound.",
    );
    let revoke_signal = s.key(
        "revoke_signal",
        SIGNAL,
        "SIGTERM",
        "What a cancelled task's process gets; \"\" = tasks that run go on, and only those that have not begun are dropped.",
    );
    let results = results(s);
    let track = s.inline("track", track);
    let broker_url = match broker_url? {
        Some(url) => Some(url),
        None => engine_url(s, "broker_url", engine),
    };
    Some(CeleryUpstream {
        broker_url: broker_url?,
        global_keyprefix: global_keyprefix?,
        own: own?,
        tasks: tasks.into_iter().collect::<Option<_>>()?,
        max_len: max_len?,
        revoke_signal: revoke_signal?,
        results: results?,
        track: track?,
    })
}

/// The keys that an upstream and each of its `tasks` have. `own` are the upstream's.
fn task(s: &mut Section<'_>, own: Option<&CeleryTask>) -> Option<CeleryTask> {
    let name = s.required(
        "task",
        kinds::NAME,
        "The name it is registered by, such as \"core.agents.tasks.process_chat_message_task\".",
    );
    let kwargs = s.map("kwargs", KWARG, "Its keyword arguments, by their names.");
    let queue = s.key(
        "queue",
        kinds::NAME,
        own.map_or("celery", |own| &own.queue),
        "The queue that its workers take it from.",
    );
    let priority = s.key(
        "priority",
        kinds::PRIORITY,
        own.map_or(0, |own| i64::from(own.priority)),
        "Celery's; 0 is taken first.",
    );
    let expires = s.key(
        "expires",
        kinds::OPTIONAL_DURATION,
        own.map_or_else(|| "10m".to_owned(), |own| written(own.expires)),
        "A task that has waited this long is not run; 0s = it waits for ever.",
    );
    let queued_event = s.key(
        "queued_event",
        kinds::NAME,
        own.map_or("task_queued", |own| &own.queued_event),
        "The name of the event that tells the client of the task.",
    );
    let kwargs = kwargs.and_then(|kwargs| named(s, kwargs));
    Some(CeleryTask {
        name: name?,
        queue: queue?,
        priority: priority?,
        kwargs: kwargs?,
        expires: expires?,
        queued_event: queued_event?,
    })
}

/// As it could have been written.
fn written(duration: Option<Duration>) -> String {
    match duration.unwrap_or_default().as_millis() {
        millis if millis % 60_000 == 0 && millis > 0 => format!("{}m", millis / 60_000),
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}

fn task_of_channels(
    s: &mut Section<'_>,
    own: Option<&CeleryTask>,
) -> Option<(ChannelPattern, CeleryTask)> {
    let channel = s.required(
        "channel",
        kinds::NAME,
        "The channels it is for: * stands for any run of characters, such as \"chat_avatar-*\".",
    );
    let task = task(s, own);
    Some((ChannelPattern::new(channel?), task?))
}

/// Names of arguments that a Python function can have.
fn named(s: &mut Section<'_>, kwargs: Kwargs) -> Option<Kwargs> {
    let mut right = true;
    for (name, _) in &kwargs {
        let mut bytes = name.bytes();
        let fits = !name.starts_with("__")
            && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !fits {
            let text = "name arguments by letters, digits and _, not beginning with a digit or __";
            s.mistake(&format!("kwargs.{name}"), None, text);
            right = false;
        }
    }
    right.then_some(kwargs)
}

fn results(s: &mut Section<'_>) -> Option<Option<Results>> {
    let url = s.redis_url("result_backend_url", kinds::OPTIONAL_REDIS_URL, "",
        "Celery's result backend, where it is a Redis: tasks that fail, are revoked or expire are noticed there. \"\" = they are not.",
    );
    let keyprefix = s.key(
        "result_keyprefix",
        kinds::TEXT,
        "",
        "The global_keyprefix of Celery's result_backend_transport_options.",
    );
    let (url, keyprefix) = (url?, keyprefix?);
    Some(url.map(|url| Results { url, keyprefix }))
}

fn track(s: &mut Section<'_>) -> Option<Option<CeleryTrack>> {
    let key = s.key(
        "key",
        kinds::OPTIONAL_TEMPLATE,
        "",
        "A key of Django's cache, with its prefix, such as \"app:1:conversation_tasks:{conversation_id}\": a set of the ids of its tasks. \"\" = none is kept.",
    );
    let ttl = s.key("ttl", kinds::POSITIVE_DURATION, "10m", "From the last task on.");
    let redis_url = s.redis_url(
        "redis_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "The Redis of Django's cache; \"\" = broker_url.",
    );
    let (key, ttl, redis_url): (Option<Template>, Duration, Option<RedisUrl>) =
        (key?, ttl?, redis_url?);
    Some(key.map(|key| CeleryTrack { key, ttl, redis_url }))
}

fn rule<T>(right: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Rule(right.into()))
}

fn kwarg(value: &Value) -> Result<Kwarg, Wrong> {
    match value {
        Value::String(text) => Template::parse(text).map(Kwarg::Text).map_err(Wrong::Quoting),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
            constant(value).map(Kwarg::Constant)
        }
        Value::Table(table) => kwarg_table(table),
        Value::Array(_) | Value::Datetime(_) => Err(Wrong::Kind),
    }
}

fn kwarg_table(table: &Table) -> Result<Kwarg, Wrong> {
    if table.contains_key("field") {
        return field(table).map(Kwarg::Field);
    }
    let mut entries = table.iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else {
        return Err(Wrong::Kind);
    };
    match (key.as_str(), value) {
        ("int", Value::String(text)) => {
            let right = || Wrong::Rule(r#"write int as a text such as "{user_id}""#.to_owned());
            Template::parse(text).map(Kwarg::Integer).map_err(|_| right())
        }
        ("null", Value::Boolean(true)) => Ok(Kwarg::Constant(Json::Null)),
        ("value", value) => constant(value).map(Kwarg::Constant),
        _ => Err(Wrong::Kind),
    }
}

/// `{ field = "image_url", type = "text", default = "null" }`.
fn field(table: &Table) -> Result<ClientField, Wrong> {
    const KEYS: [&str; 4] = ["field", "type", "default", "required"];
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return rule(match nearest(key, KEYS) {
            Some(nearest) => format!("it has the unknown key {key:?}; did you mean {nearest:?}?"),
            None => format!("it has the unknown key {key:?}; its keys are {}", KEYS.join(", ")),
        });
    }
    let Some(name) = table.get("field").and_then(Value::as_str).filter(|name| !name.is_empty())
    else {
        return rule("write the name of a field of the client's object: { field = \"image_url\" }");
    };
    let types = [
        ("any", FieldType::Any),
        ("text", FieldType::Text),
        ("int", FieldType::Int),
        ("number", FieldType::Number),
        ("bool", FieldType::Bool),
        ("object", FieldType::Object),
        ("list", FieldType::List),
    ];
    let Ok(kind) = table.get("type").map_or(Ok(FieldType::Any), |kind| choice(kind, &types)) else {
        return rule(
            "write its type as \"any\", \"text\", \"int\", \"number\", \"bool\", \"object\" or \"list\"",
        );
    };
    let missing = match (table.get("required"), table.get("default")) {
        (Some(Value::Boolean(true)), None) => Missing::Refuse,
        (Some(Value::Boolean(true)), Some(_)) => {
            return rule("write either required = true or a default, not both");
        }
        (None | Some(Value::Boolean(false)), default) => {
            default.map_or(Ok(Missing::Default(Json::Null)), default_of_field)?
        }
        (Some(_), _) => return rule("write required as true or false"),
    };
    Ok(ClientField { name: name.into(), kind, missing })
}

fn default_of_field(value: &Value) -> Result<Missing, Wrong> {
    match value {
        Value::String(word) if word == "null" => Ok(Missing::Default(Json::Null)),
        Value::String(word) if word == "omit" => Ok(Missing::Omit),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
            constant(value).map(Missing::Default)
        }
        Value::Table(table) if table.len() == 1 && table.contains_key("value") => {
            constant(&table["value"]).map(Missing::Default)
        }
        _ => rule("write its default as \"null\", \"omit\", a number, a boolean or { value = … }"),
    }
}

/// JSON that a worker can read: Celery's reader takes a pair of `__type__` and `__value__` for
/// something else.
fn constant(value: &Value) -> Result<Json, Wrong> {
    Ok(match value {
        Value::String(text) => Json::from(text.as_str()),
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) if number.is_finite() => Json::from(*number),
        Value::Float(_) => return rule("write a number that is finite"),
        Value::Boolean(truth) => Json::from(*truth),
        Value::Array(elements) => elements.iter().map(constant).collect::<Result<_, _>>()?,
        Value::Table(table) if table.contains_key("__type__") => {
            return rule(
                "write a table without \"__type__\", which Celery reads as something else",
            );
        }
        Value::Table(table) => {
            let entry = |(name, value): (&String, &Value)| Ok((name.clone(), constant(value)?));
            Json::Object(table.iter().map(entry).collect::<Result<_, _>>()?)
        }
        Value::Datetime(_) => return rule("write a date as a text"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Kwarg, String> {
        let table: Table = format!("x = {text}").parse().expect("it is TOML");
        kwarg(&table["x"]).map_err(|wrong| match wrong {
            Wrong::Kind => "kind".to_owned(),
            Wrong::Rule(right) | Wrong::Quoting(right) => right,
        })
    }

    fn constant_of(text: &str) -> Json {
        match read(text) {
            Ok(Kwarg::Constant(value)) => value,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn arguments_are_typed() {
        assert!(matches!(read(r#""{message}""#), Ok(Kwarg::Text(_))));
        assert!(matches!(read(r#"{ int = "{user_id}" }"#), Ok(Kwarg::Integer(_))));
        for (text, json) in [
            ("7", "7"),
            ("1.5", "1.5"),
            ("true", "true"),
            ("{ null = true }", "null"),
            (r#"{ value = "{as it is}" }"#, r#""{as it is}""#),
            (r#"{ value = [1, "a", { b = false }] }"#, r#"[1,"a",{"b":false}]"#),
        ] {
            assert_eq!(constant_of(text).to_string(), json, "{text}");
        }
        let field = |text: &str| match read(text) {
            Ok(Kwarg::Field(field)) => (field.kind, field.missing),
            other => panic!("{text}: {other:?}"),
        };
        let null = || Missing::Default(Json::Null);
        assert_eq!(field(r#"{ field = "a" }"#), (FieldType::Any, null()));
        assert_eq!(field(r#"{ field = "a", default = "null" }"#), (FieldType::Any, null()));
        assert_eq!(
            field(r#"{ field = "a", type = "int", required = true }"#),
            (FieldType::Int, Missing::Refuse)
        );
        assert_eq!(
            field(r#"{ field = "a", type = "list", default = "omit", required = false }"#),
            (FieldType::List, Missing::Omit)
        );
        assert_eq!(
            field(r#"{ field = "a", default = { value = "null" } }"#),
            (FieldType::Any, Missing::Default("null".into()))
        );
        assert_eq!(
            field(r#"{ field = "a", default = 3 }"#),
            (FieldType::Any, Missing::Default(3.into()))
        );
    }

    #[test]
    fn what_is_no_argument_is_told() {
        for (text, part) in [
            (r#""{message""#, "brace"),
            ("[1]", "kind"),
            ("2026-01-01", "kind"),
            ("{ null = false }", "kind"),
            ("{ null = true, value = 1 }", "kind"),
            ("{}", "kind"),
            ("{ int = 7 }", "kind"),
            (r#"{ int = "{" }"#, "int as"),
            ("{ value = nan }", "finite"),
            ("{ value = [2026-01-01] }", "date"),
            (r#"{ value = { __type__ = "datetime", __value__ = "x" } }"#, "__type__"),
            (r#"{ field = "" }"#, "name of a field"),
            (r#"{ field = "a", defualt = "null" }"#, r#"did you mean "default""#),
            (r#"{ field = "a", type = "string" }"#, "type as"),
            (r#"{ field = "a", default = "none" }"#, "default as"),
            (r#"{ field = "a", default = "null", required = true }"#, "not both"),
            (r#"{ field = "a", required = 1 }"#, "true or false"),
        ] {
            let told = read(text).expect_err(text);
            assert!(told.contains(part), "{text}: {told}");
        }
    }
}
