//! W3C Trace Context: the trace of a request, and its parent span in that trace.

use super::Bits128;
use super::bits128::hex_of;

/// A trace and a span in it: the client's, from its `traceparent`, or one of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: Bits128,
    /// 0 = the trace starts here and has no span yet.
    span_id: u64,
    /// Whether the span is one of the gateway.
    own: bool,
    sampled: bool,
}

impl TraceContext {
    /// A new trace that is not sampled.
    pub fn new() -> Self {
        Self { trace_id: Bits128::random(), span_id: 0, own: true, sampled: false }
    }

    /// Parses `00-<32 hex>-<16 hex>-<2 hex>` (W3C Trace Context, section 3.2); `None` if it is malformed.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |s: &str, len: usize| {
            s.len() == len && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        if !hex(version, 2)
            || version == "ff"
            || !hex(trace, 32)
            || !hex(span, 16)
            || !hex(flags, 2)
        {
            return None;
        }
        let trace_id = Bits128::from_hex(trace).filter(|id| *id != Bits128::from(0))?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace_id, span_id, own: false, sampled: flags & 1 == 1 })
    }

    /// Puts a context together again from what its accessors returned.
    pub fn from_parts(trace_id: Bits128, span_id: u64, own: bool, sampled: bool) -> Self {
        Self { trace_id, span_id, own, sampled }
    }

    pub fn trace_id(&self) -> u128 {
        self.trace_id.into()
    }

    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// Whether the span, if there is one, is one of the gateway.
    pub fn is_own(&self) -> bool {
        self.own
    }

    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    pub fn with_sampled(self, sampled: bool) -> Self {
        Self { sampled, ..self }
    }

    /// A new span of the gateway in this trace.
    pub fn own_child(&self) -> Self {
        Self { span_id: new_span_id(), own: true, ..*self }
    }

    /// The `traceparent` of a span of the gateway; `None` if there is no such span.
    pub fn of_own_span(&self) -> Option<String> {
        (self.own && self.span_id != 0).then(|| self.child())
    }

    /// The `traceparent` for a request of the gateway: with this span if it is one of the gateway, or else with a new
    /// span.
    pub fn child(&self) -> String {
        let span_id = if self.own && self.span_id != 0 { self.span_id } else { new_span_id() };
        let mut child = String::with_capacity("00-".len() + 32 + "-".len() + 16 + "-00".len());
        child.push_str("00-");
        self.trace_id.with_hex(|digits| child.push_str(digits));
        child.push('-');
        // Hex digits are UTF-8.
        child.push_str(std::str::from_utf8(&hex_of(span_id)).unwrap_or_default());
        child.push_str(if self.sampled { "-01" } else { "-00" });
        child
    }
}

impl Default for TraceContext {
    fn default() -> Self {
        Self::new()
    }
}

fn new_span_id() -> u64 {
    rand::random::<u64>().max(1)
}
