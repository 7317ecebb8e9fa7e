//! The end of an upstream's socket whose client has ended, or is ending without it.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;

use super::upstream_side::UpstreamSide;
use crate::shutdown::Shutdown;

/// How long the upstream may take for what is left, and to end the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a stopping process waits for what is left to be sent.
const SEND_TIMEOUT: Duration = Duration::from_millis(250);

/// What is read at once and discarded.
const DISCARD_BYTES: usize = 4096;

/// Lets the upstream's socket end on a task of its own: sends what waits, then `frame` if there is one, and waits until the
/// upstream ends the connection. Without any close frame the upstream sees that its peer is gone.
pub(super) fn let_end(mut upstream: UpstreamSide, frame: Option<Bytes>, shutdown: &Shutdown) {
    let tracked = shutdown.track();
    tokio::task::spawn_local(async move {
        if let Some(frame) = frame {
            upstream.stream.push(&frame);
            upstream.is_told_to_close = true;
        }
        let sending = poll_fn(|cx| upstream.stream.poll_flush(cx));
        // A stopping process waits for this, but for no upstream that takes its time.
        let is_sent = tokio::time::timeout(SEND_TIMEOUT, sending).await.is_ok();
        drop(tracked);
        let ending = async {
            if !is_sent {
                poll_fn(|cx| upstream.stream.poll_flush(cx)).await;
            }
            if !upstream.is_told_to_close {
                poll_fn(|cx| upstream.stream.poll_shutdown(cx)).await;
            }
            // What is not read would make the kernel reset the connection, and the upstream lose what was sent last.
            let mut discarded = [0; DISCARD_BYTES];
            while poll_fn(|cx| upstream.stream.poll_read(cx, &mut discarded)).await > 0 {}
        };
        // An upstream that takes longer is left.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, ending).await;
    });
}
