//! The id of the request that opens a connection, which logs, traces and upstreams share.

use std::fmt;
use std::sync::Arc;

use super::{Bits128, TraceContext};

/// The longest id that is accepted from a proxy.
const MAX_BYTES: usize = 128;

/// The id of the request that opened a connection: the one that the proxy in front assigned, or else the id of its
/// trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Name);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Given(Arc<str>),
    Trace(Bits128),
}

impl RequestId {
    /// `given` is the `X-Request-Id` of a trusted proxy. It is ignored unless it has 1 to 128 printable ASCII
    /// characters.
    pub fn new(given: Option<&str>, trace: &TraceContext) -> Self {
        let is_id = |id: &&str| {
            (1..=MAX_BYTES).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
        };
        Self(match given.filter(is_id) {
            Some(id) => Name::Given(id.into()),
            None => Name::Trace(trace.trace_id().into()),
        })
    }
}

impl RequestId {
    /// The id of the trace that stands for this request; `None` if a proxy has named it.
    pub fn as_trace(&self) -> Option<Bits128> {
        match self.0 {
            Name::Given(_) => None,
            Name::Trace(id) => Some(id),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Name::Given(id) => f.write_str(id),
            Name::Trace(id) => id.fmt(f),
        }
    }
}

impl serde::Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests;
