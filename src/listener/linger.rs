//! How a connection ends whose client may still be sending. If it were just closed, unread bytes would reset it, and the
//! client might not read the last answer.

use std::mem::MaybeUninit;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a client has to stop sending.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// The most bytes of a request's body that are discarded after an answer that did not need them.
const MAX_UNREAD: usize = 4 * 1024 * 1024;

/// Ends the writing half, and discards what the client sends until it has ended its own: for a second, and at most
/// `max_bytes`.
pub(super) async fn linger(stream: &mut TcpStream, max_bytes: usize) {
    // Whether the client reads the answer or not, the connection is closed after this.
    let _ = tokio::time::timeout(LINGER_TIMEOUT, discard(stream, max_bytes)).await;
}

async fn discard(stream: &mut TcpStream, max_bytes: usize) -> std::io::Result<()> {
    stream.shutdown().await?;
    let (mut bytes, mut left) = ([0; 4096], max_bytes);
    while left > 0 {
        match stream.read(&mut bytes).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

/// Ends a connection whose last request was answered. Its body may not have been needed, such as that of a refused upload.
pub(super) async fn end_after_answer(mut stream: TcpStream) {
    let unread = SockRef::from(&stream).peek(&mut [MaybeUninit::uninit()]);
    if unread.is_ok_and(|bytes| bytes > 0) {
        linger(&mut stream, MAX_UNREAD).await;
    }
}
