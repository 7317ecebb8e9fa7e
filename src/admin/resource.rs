//! What stands at which path.

use hyper::Method;

use crate::telemetry::admin::Call;

/// What a request's path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Metrics,
    Live,
    Ready,
    Api(Endpoint),
}

/// A call of the server API with what its path says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Disconnect,
    Publish,
    Tokens,
    /// Of the channel with this name, percent-encoded.
    Presence(String),
}

impl Resource {
    /// `None` = there is no such path.
    pub fn at(path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        Some(match segments[..] {
            ["metrics"] => Self::Metrics,
            ["livez"] => Self::Live,
            ["readyz"] => Self::Ready,
            ["v1", "disconnect"] => Self::Api(Endpoint::Disconnect),
            ["v1", "publish"] => Self::Api(Endpoint::Publish),
            ["v1", "tokens"] => Self::Api(Endpoint::Tokens),
            ["v1", "channels", channel, "presence"] => {
                Self::Api(Endpoint::Presence(channel.to_owned()))
            }
            _ => return None,
        })
    }

    /// The one method that it takes.
    pub fn method(&self) -> Method {
        match self {
            Self::Metrics | Self::Live | Self::Ready | Self::Api(Endpoint::Presence(_)) => {
                Method::GET
            }
            Self::Api(Endpoint::Disconnect | Endpoint::Publish | Endpoint::Tokens) => Method::POST,
        }
    }
}

impl Endpoint {
    pub fn call(&self) -> Call {
        match self {
            Self::Disconnect => Call::Disconnect,
            Self::Publish => Call::Publish,
            Self::Tokens => Call::Tokens,
            Self::Presence(_) => Call::Presence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_they_say() {
        let presence = |channel: &str| Some(Resource::Api(Endpoint::Presence(channel.to_owned())));
        for (path, resource) in [
            ("/metrics", Some(Resource::Metrics)),
            ("/v1/tokens", Some(Resource::Api(Endpoint::Tokens))),
            ("/v1/channels/chat_42/presence", presence("chat_42")),
            ("/v1/channels/a%2Fb/presence", presence("a%2Fb")),
            ("/v1/channels//presence", presence("")),
            ("/v1/channels/a/b/presence", None),
            ("/v1/channels/a/presence/", None),
            ("/v1/channels/a", None),
            ("/metrics/", None),
            ("/", None),
            ("", None),
            ("*", None),
        ] {
            assert_eq!(Resource::at(path), resource, "{path}");
        }
    }
}
