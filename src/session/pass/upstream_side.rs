//! The upstream's end of a connection: its byte stream, what waits to be written to it, and the frames that it sends.

use crate::http_client::BufferedStream;
use crate::socket::FrameScanner;
use crate::upstream::{InFlightPermit, PassedUpstream};

pub(super) struct UpstreamSide {
    pub stream: BufferedStream,
    pub scanner: FrameScanner,
    /// Whether the upstream has sent a close frame.
    pub has_closed: bool,
    /// Whether it was sent one.
    pub is_told_to_close: bool,
    _in_flight: InFlightPermit,
}

impl UpstreamSide {
    pub fn new(passed: PassedUpstream) -> Self {
        Self {
            stream: passed.stream.into(),
            scanner: FrameScanner::of_server(),
            has_closed: false,
            is_told_to_close: false,
            _in_flight: passed.in_flight,
        }
    }
}
