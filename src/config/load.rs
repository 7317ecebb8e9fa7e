//! Loads a configuration: parses the TOML file, reads its keys, then checks rules across keys.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use toml::Table;

use super::context::{Context, Outcome};
use super::effective::Setting;
use super::environment::{Environment, override_path, override_variable};
use super::mistakes::{Mistake, Mistakes};
use super::route::Entry;
use super::section::{Section, read_document};
use super::{
    AdminAccess, Config, FixedReply, Route, Upstream, checks, engine, identity, limits, proxy,
    reserved, route, server, tls, unused, upstream,
};
use crate::protocol::ReservedChannels;

impl Config {
    /// Reads the file at `path`. Relative paths in it start from its folder.
    ///
    /// # Errors
    /// All mistakes of the file and of the overrides in `environment`.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, Mistakes> {
        Self::parse(&read_text(path)?, environment, folder(path))
    }

    /// The effective value of every setting of the file at `path` and `environment`, in the order of
    /// reading, with its source and without secrets.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn effective_settings(
        path: &Path,
        environment: &Environment,
    ) -> Result<Vec<Setting>, Mistakes> {
        let (_, outcome) = read(&read_text(path)?, environment, folder(path))?;
        Mistakes::into_result(outcome.mistakes)?;
        Ok(outcome.settings)
    }

    /// Reads `admin.listen` only, and whether the port has TLS, whatever mistakes other keys have: a health probe must not
    /// fail because of a file that the gateway has not loaded yet.
    ///
    /// # Errors
    /// The file cannot be read, is not valid TOML, or has a mistake in this key.
    pub fn admin_listen(
        path: &Path,
        environment: &Environment,
    ) -> Result<(SocketAddr, bool), Mistakes> {
        let (listen, mistakes) = read_admin(path, environment, |s| {
            Some((server::admin_listen(s)?, tls::has_certificate(s)))
        })?;
        // A mistake of this key has to be reported, because its default has taken its place.
        let mistakes = mistakes.into_iter().filter(|m| m.key == "admin.listen" || m.key == "admin");
        Mistakes::into_result(mistakes.collect())?;
        listen.ok_or_else(|| {
            Mistakes::single("admin.listen", "no value was read and no mistake was reported")
        })
    }

    /// Reads of `[admin]` only what commands need to reach a running gateway. They may not be allowed to read its key.
    ///
    /// # Errors
    /// The file cannot be read, is not valid TOML, or has mistakes in this section.
    pub fn admin_access(path: &Path, environment: &Environment) -> Result<AdminAccess, Mistakes> {
        let (admin, mistakes) = read_admin(path, environment, server::admin_access)?;
        let of_admin = |key: &str| key == "admin" || key.starts_with("admin.");
        Mistakes::into_result(mistakes.into_iter().filter(|m| of_admin(&m.key)).collect())?;
        admin.ok_or_else(|| {
            Mistakes::single("admin", "no value was read and no mistake was reported")
        })
    }

    /// Reads `text` as a file in the folder `base`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, environment: &Environment, base: &Path) -> Result<Self, Mistakes> {
        let (config, outcome) = read(text, environment, base)?;
        Mistakes::into_result(outcome.mistakes)?;
        config.ok_or_else(|| {
            Mistakes::single("config", "a value is missing and no mistake was reported")
        })
    }

    /// Reads `text` with an empty environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(text: &str) -> Result<Self, Mistakes> {
        Self::parse(text, &Environment::empty(), Path::new(""))
    }
}

/// Reads `[admin]` with `read`. The mistakes include every other table, as an unknown key.
fn read_admin<T>(
    path: &Path,
    environment: &Environment,
    read: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Result<(Option<T>, Vec<Mistake>), Mistakes> {
    let document = table(&read_text(path)?)?;
    let context = Context::new(environment, folder(path));
    let (value, outcome) = read_document(context, document, |root| {
        root.section("admin", "[admin]", "The private port.", read)
    });
    Ok((value, outcome.mistakes))
}

fn read_text(path: &Path) -> Result<String, Mistakes> {
    std::fs::read_to_string(path).map_err(|error| {
        Mistakes::single(path.display().to_string(), format!("cannot be read: {error}"))
    })
}

/// The folder that relative paths in the file at `path` start from.
fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn table(text: &str) -> Result<Table, Mistakes> {
    text.parse::<Table>().map_err(|error| syntax_mistake(text, &error))
}

/// Reads `text`. It is an `Err` if it is not valid TOML; all other mistakes are in the outcome.
pub(super) fn read(
    text: &str,
    environment: &Environment,
    base: &Path,
) -> Result<(Option<Config>, Outcome), Mistakes> {
    let (mut config, outcome) =
        read_document(Context::new(environment, base), table(text)?, config);
    if let Some(config) = &mut config {
        config.load_notices.extend(lookalikes(text, environment, &outcome));
    }
    Ok((config, outcome))
}

/// One notice for each variable that looks as if it set a key, and is not read.
fn lookalikes(text: &str, environment: &Environment, outcome: &Outcome) -> Vec<String> {
    let keys = outcome.definitions.iter().filter(|key| key.overridable);
    let keys: Vec<String> = keys.map(|key| override_path(&key.path)).collect();
    let notice = |(name, rest): (&str, String)| {
        let meant = keys.iter().find(|key| key.replace('.', "_") == rest);
        let fix = meant.map_or_else(
            || "variables that set keys begin with TIDEGATE__".to_owned(),
            |key| format!("did you mean {}?", override_variable(key)),
        );
        format!("{name}: this environment variable is not read; {fix}")
    };
    let is_used = |name: &str| text.contains(&format!("${{{name}}}"));
    environment.lookalikes().filter(|(name, _)| !is_used(name)).map(notice).collect()
}

/// Reports the position and the reason only: the error's own text would quote the line, which may hold a
/// secret.
fn syntax_mistake(text: &str, error: &toml::de::Error) -> Mistakes {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    Mistakes::single(
        format!("line {line}, column {column}"),
        format!("not valid TOML: {}", error.message()),
    )
}

fn config(root: &mut Section<'_>) -> Option<Config> {
    let server = root.section("server", "[server]", "The public port.", server::server);
    let limits = root.section(
        "limits",
        "[limits]",
        "Rates of each client address on the public port.",
        |s| limits::client_limits(s, server.as_ref()),
    );
    let admin = root.section("admin", "[admin]", "The private port.", server::admin);
    let shutdown =
        root.section("shutdown", "[shutdown]", "How the gateway stops.", server::shutdown);
    let reload = root.section("reload", "[reload]", "When this file is reloaded.", server::reload);
    let engine = root.section(
        "engine",
        "[engine]",
        "Where tokens, limits, publications and histories are kept.",
        engine::engine,
    );
    let tokens =
        root.section("tokens", "[tokens]", "Single-use connection tokens.", identity::tokens);
    let jwt = root.section(
        "jwt",
        "[jwt]",
        "Who a client is, when it requests a connection token or connects without one.",
        |s| identity::jwt(s, engine.as_ref()),
    );
    let origins =
        root.section("origins", "[origins]", "Web pages that may connect.", server::origins);
    let proxy = root.section(
        "proxy",
        "[proxy]",
        "Requests that are no WebSocket handshakes, unless their route says otherwise.",
        proxy::proxy,
    );
    // A proxy with a mistake of its own is one that is meant.
    let has_proxy = proxy.as_ref().is_none_or(|proxy| !proxy.urls.is_empty());
    let routes =
        root.tables("route", "[[route]]", "WebSocket paths. At least one is required.", |s| {
            let prefix = engine.as_ref().map_or("", |engine| &engine.channel_prefix);
            route::entry(s, prefix, has_proxy)
        });
    let (routes, replies) = split_entries(routes);
    let upstreams = root.named(
        "upstream",
        "[upstream.NAME]",
        "Where clients' messages go. These keys are common to all kinds.",
        |s, name| upstream::upstream(s, name, engine.as_ref()).map(Arc::new),
    );
    let tracing = root.section(
        "tracing",
        "[tracing]",
        "Spans for an OpenTelemetry collector.",
        server::tracing,
    );
    let log = root.section("log", "[log]", "Logs on standard error.", server::log);

    checks::ports(root, server.as_ref(), admin.as_ref());
    checks::proxy_protocol(root, server.as_ref());
    checks::routes(root, &routes, &upstreams);
    if let (Some(engine), Some(tokens)) = (&engine, &tokens) {
        let upstreams = upstreams.values().flatten();
        let reserved = reserved::channels(engine, tokens, upstreams.map(|upstream| &**upstream));
        checks::reserved_channels(root, &routes, &reserved);
    }
    checks::groups(root, engine.as_ref(), &routes);
    checks::replies(root, &routes, &replies);
    checks::cluster(root, engine.as_ref(), tokens.as_ref(), &upstreams);
    checks::placeholders(root, tokens.as_ref(), &routes, &upstreams);
    unused::keys(root, &routes, &upstreams, proxy.as_ref());

    let upstreams: Option<BTreeMap<String, Arc<Upstream>>> =
        upstreams.into_iter().map(|(name, upstream)| Some((name, upstream?))).collect();
    let mut config = Config {
        server: server?,
        limits: limits?,
        admin: admin?,
        shutdown: shutdown?,
        reload: reload?,
        engine: engine?,
        tokens: tokens?,
        jwt: jwt?,
        origins: origins?,
        proxy: proxy?,
        routes: routes.into_iter().flatten().collect(),
        replies: replies.into_iter().map(|(_, reply)| reply).collect(),
        upstreams: upstreams?,
        tracing: tracing?,
        log: log?,
        unchecked_redis: root.unchecked_redis(),
        reserved: ReservedChannels::default(),
        load_notices: root.warnings(),
    };
    config.update_reserved();
    Some(config)
}

/// Splits the entries into routes and fixed replies. Both keep the indexes that they have in the file.
fn split_entries(entries: Vec<Option<Entry>>) -> (Vec<Option<Arc<Route>>>, Vec<checks::Numbered>) {
    let (mut routes, mut replies, mut after) = (Vec::new(), Vec::new(), 0);
    for (index, entry) in entries.into_iter().enumerate() {
        routes.push(match entry {
            Some(Entry::Route(route)) => {
                after += 1;
                Some(Arc::new(*route))
            }
            Some(Entry::Reply(path, reply)) => {
                replies.push((index, Arc::new(FixedReply { path, reply, after })));
                None
            }
            None => None,
        });
    }
    (routes, replies)
}
