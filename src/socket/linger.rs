//! How a connection is closed whose client may still be sending an HTTP request.
//!
//! A socket that is closed with unread bytes, or that receives some afterwards, resets the connection, and the client may
//! lose the answer that it has not read yet: typically the refusal of a large upload.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Ends this side of the connection, and discards what the client sends until it closes its own, for at most `timeout`
/// and `max_bytes`.
pub async fn linger_and_close(
    mut tcp: impl AsyncRead + AsyncWrite + Unpin,
    timeout: Duration,
    max_bytes: usize,
) {
    let closing = async {
        tcp.shutdown().await?;
        let (mut discarded, mut bytes) = (0, [0; 4096]);
        while discarded < max_bytes {
            match tcp.read(&mut bytes).await? {
                0 => break,
                length => discarded += length,
            }
        }
        std::io::Result::Ok(())
    };
    // A connection that fails meanwhile is closed as well.
    let _ = tokio::time::timeout(timeout, closing).await;
}
