//! From a file to checked settings: syntax, keys, then what keys must be to each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use toml::Table;

use super::effective::Setting;
use super::environment::Environment;
use super::mistakes::{Mistake, Mistakes};
use super::reader::{Context, Outcome};
use super::route::Entry;
use super::section::Section;
use super::{
    Admin, Config, FixedReply, Route, Upstream, checks, engine, identity, route, server, upstream,
};

impl Config {
    /// Reads the file at `path`; relative paths in it begin at its folder.
    ///
    /// # Errors
    /// Every mistake of the file and of the overrides in `environment`.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, Mistakes> {
        Self::parse(&text_of(path)?, environment, folder(path))
    }

    /// Every setting that the file at `path` and `environment` come to, in the order of reading, with
    /// where it was said; without secrets.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn explain(path: &Path, environment: &Environment) -> Result<Vec<Setting>, Mistakes> {
        let (_, outcome) = read(&text_of(path)?, environment, folder(path))?;
        Mistakes::check(outcome.mistakes)?;
        Ok(outcome.settings)
    }

    /// `admin.listen` alone, whatever else is wrong: a probe must not fail because a file that the
    /// gateway has not taken yet has mistakes.
    ///
    /// # Errors
    /// The file cannot be read or is no TOML, or this key has a mistake.
    pub fn admin_listen(path: &Path, environment: &Environment) -> Result<SocketAddr, Mistakes> {
        let (listen, mistakes) = read_admin(path, environment, server::admin_listen)?;
        // With a mistake of its own the key has its default.
        let mistakes = mistakes.into_iter().filter(|m| m.key == "admin.listen" || m.key == "admin");
        Mistakes::check(mistakes.collect())?;
        listen.ok_or_else(|| Mistakes::one("admin.listen", "no value and no mistake was told"))
    }

    /// `[admin]` alone: what a command needs to reach a gateway that runs.
    ///
    /// # Errors
    /// The file cannot be read or is no TOML, or this section has mistakes.
    pub fn admin_port(path: &Path, environment: &Environment) -> Result<Admin, Mistakes> {
        let (admin, mistakes) = read_admin(path, environment, server::admin)?;
        let of_admin = |key: &str| key == "admin" || key.starts_with("admin.");
        Mistakes::check(mistakes.into_iter().filter(|m| of_admin(&m.key)).collect())?;
        admin.ok_or_else(|| Mistakes::one("admin", "no value and no mistake was told"))
    }

    /// Reads `text` as a file of the folder `base`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, environment: &Environment, base: &Path) -> Result<Self, Mistakes> {
        let (config, outcome) = read(text, environment, base)?;
        Mistakes::check(outcome.mistakes)?;
        config.ok_or_else(|| Mistakes::one("config", "a value is missing and no mistake was told"))
    }

    /// Reads `text` without any environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(text: &str) -> Result<Self, Mistakes> {
        Self::parse(text, &Environment::empty(), Path::new(""))
    }
}

/// What `read` makes of `[admin]`, and the mistakes of the whole file as if nothing else had keys.
fn read_admin<T>(
    path: &Path,
    environment: &Environment,
    read: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Result<(Option<T>, Vec<Mistake>), Mistakes> {
    let document = table(&text_of(path)?)?;
    let context = Context::new(environment, folder(path));
    let (value, outcome) =
        context.read(document, |root| root.section("admin", "[admin]", "The private port.", read));
    Ok((value, outcome.mistakes))
}

fn text_of(path: &Path) -> Result<String, Mistakes> {
    std::fs::read_to_string(path).map_err(|error| {
        Mistakes::one(path.display().to_string(), format!("cannot be read: {error}"))
    })
}

/// Where relative paths of the file at `path` begin.
fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn table(text: &str) -> Result<Table, Mistakes> {
    text.parse::<Table>().map_err(|error| syntax_mistake(text, &error))
}

/// `Err` where it is no TOML at all; other mistakes are in the outcome.
pub(super) fn read(
    text: &str,
    environment: &Environment,
    base: &Path,
) -> Result<(Option<Config>, Outcome), Mistakes> {
    Ok(Context::new(environment, base).read(table(text)?, config))
}

/// The error's own text would quote the line, which may hold a secret.
fn syntax_mistake(text: &str, error: &toml::de::Error) -> Mistakes {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    Mistakes::one(format!("line {line}, column {column}"), format!("not TOML: {}", error.message()))
}

fn config(root: &mut Section<'_>) -> Option<Config> {
    let server = root.section("server", "[server]", "The public port.", server::server);
    let admin = root.section("admin", "[admin]", "The private port.", server::admin);
    let shutdown =
        root.section("shutdown", "[shutdown]", "How the gateway stops.", server::shutdown);
    let reload =
        root.section("reload", "[reload]", "When this file is read again.", server::reload);
    let engine = root.section(
        "engine",
        "[engine]",
        "Where tokens, limits and publications live.",
        engine::engine,
    );
    let tokens =
        root.section("tokens", "[tokens]", "Single-use connection tokens.", identity::tokens);
    let jwt = root.section(
        "jwt",
        "[jwt]",
        "Who the caller is: to issue connection tokens, and on a socket without one.",
        |s| identity::jwt(s, engine.as_ref()),
    );
    let origins =
        root.section("origins", "[origins]", "Which web pages may connect.", server::origins);
    let proxy = root.section("proxy", "[proxy]", "Requests that are no route.", server::proxy);
    let routes = root.tables(
        "route",
        "[[route]]",
        "Paths that take WebSockets. There must be at least one.",
        route::entry,
    );
    let (routes, replies) = apart(routes);
    let upstreams =
        root.named("upstream", "[upstream.NAME]", "Where clients' messages go.", |s, name| {
            upstream::upstream(s, name, engine.as_ref()).map(Arc::new)
        });
    let tracing = root.section(
        "tracing",
        "[tracing]",
        "Spans, for an OpenTelemetry collector.",
        server::tracing,
    );
    let log = root.section("log", "[log]", "Logs, on standard error.", server::log);

    checks::ports(root, server.as_ref(), admin.as_ref());
    checks::routes(root, &routes, &upstreams);
    checks::groups(root, engine.as_ref(), &routes);
    checks::replies(root, &routes, &replies);
    checks::placeholders(root, tokens.as_ref(), &routes, &upstreams);

    let upstreams: Option<BTreeMap<String, Arc<Upstream>>> =
        upstreams.into_iter().map(|(name, upstream)| Some((name, upstream?))).collect();
    Some(Config {
        server: server?,
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
    })
}

/// Routes and fixed replies; in both, each has the index that it has in the file.
fn apart(entries: Vec<Option<Entry>>) -> (Vec<Option<Arc<Route>>>, Vec<checks::Numbered>) {
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
