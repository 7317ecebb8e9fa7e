//! The paths and methods of the admin port.

use crate::telemetry::admin::Call;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Metrics,
    Live,
    Ready,
    OpenApi,
    Api(Endpoint),
}

/// A call of the server API. A channel's name is percent-encoded, as in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Publish,
    Tokens,
    Disconnect,
    Drain,
    Channels,
    Channel(String),
    Presence(String),
    History(String),
    Tail(String),
    Connections,
    Explain,
    Limits,
    ResetLimits,
    Debug,
    Debugged,
}

/// One method of one path. `{channel}` in a path is one segment.
pub struct Entry {
    pub method: &'static str,
    pub path: &'static str,
    resource: fn(&str) -> Resource,
}

/// All paths and methods; a test holds `openapi.json` to them.
pub const TABLE: &[Entry] = &[
    get("/metrics", |_| Resource::Metrics),
    get("/livez", |_| Resource::Live),
    get("/readyz", |_| Resource::Ready),
    get("/v1/openapi.json", |_| Resource::OpenApi),
    post("/v1/publish", |_| Resource::Api(Endpoint::Publish)),
    post("/v1/tokens", |_| Resource::Api(Endpoint::Tokens)),
    post("/v1/disconnect", |_| Resource::Api(Endpoint::Disconnect)),
    post("/v1/drain", |_| Resource::Api(Endpoint::Drain)),
    get("/v1/channels", |_| Resource::Api(Endpoint::Channels)),
    get("/v1/channels/{channel}", |name| Resource::Api(Endpoint::Channel(name.to_owned()))),
    get("/v1/channels/{channel}/presence", |name| {
        Resource::Api(Endpoint::Presence(name.to_owned()))
    }),
    get("/v1/channels/{channel}/history", |name| Resource::Api(Endpoint::History(name.to_owned()))),
    get("/v1/channels/{channel}/tail", |name| Resource::Api(Endpoint::Tail(name.to_owned()))),
    get("/v1/connections", |_| Resource::Api(Endpoint::Connections)),
    get("/v1/explain", |_| Resource::Api(Endpoint::Explain)),
    get("/v1/limits", |_| Resource::Api(Endpoint::Limits)),
    post("/v1/limits/reset", |_| Resource::Api(Endpoint::ResetLimits)),
    post("/v1/debug", |_| Resource::Api(Endpoint::Debug)),
    get("/v1/debug", |_| Resource::Api(Endpoint::Debugged)),
];

const fn get(path: &'static str, resource: fn(&str) -> Resource) -> Entry {
    Entry { method: "GET", path, resource }
}

const fn post(path: &'static str, resource: fn(&str) -> Resource) -> Entry {
    Entry { method: "POST", path, resource }
}

/// The result of a lookup by method and path.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Resource(Resource),
    /// The path exists and accepts only the methods of this `Allow` header.
    Allow(String),
    Nothing,
}

impl Resource {
    /// `HEAD` finds the resource of `GET`.
    pub fn find(method: &str, path: &str) -> Found {
        let wanted = if method == "HEAD" { "GET" } else { method };
        let mut allow: Vec<&str> = Vec::new();
        for entry in TABLE {
            let Some(name) = entry.matches(path) else { continue };
            if entry.method == wanted {
                return Found::Resource((entry.resource)(name));
            }
            allow.push(entry.method);
            if entry.method == "GET" {
                allow.push("HEAD");
            }
        }
        if allow.is_empty() {
            return Found::Nothing;
        }
        allow.push("OPTIONS");
        Found::Allow(allow.join(", "))
    }
}

impl Entry {
    /// Whether `path` fits; the segment at `{channel}`, or an empty text without one.
    fn matches<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (mut own, mut given) = (self.path.split('/'), path.split('/'));
        let mut name = "";
        loop {
            match (own.next(), given.next()) {
                (None, None) => return Some(name),
                (Some("{channel}"), Some(segment)) => name = segment,
                (Some(own), Some(segment)) if own == segment => {}
                _ => return None,
            }
        }
    }
}

impl Endpoint {
    pub fn call(&self) -> Call {
        match self {
            Self::Publish => Call::Publish,
            Self::Tokens => Call::Tokens,
            Self::Disconnect => Call::Disconnect,
            Self::Drain => Call::Drain,
            Self::Channels => Call::Channels,
            Self::Channel(_) => Call::Channel,
            Self::Presence(_) => Call::Presence,
            Self::History(_) => Call::History,
            Self::Tail(_) => Call::Tail,
            Self::Connections => Call::Connections,
            Self::Explain => Call::Explain,
            Self::Limits => Call::Limits,
            Self::ResetLimits => Call::ResetLimits,
            Self::Debug => Call::Debug,
            Self::Debugged => Call::Debugged,
        }
    }
}

#[cfg(test)]
mod tests;
