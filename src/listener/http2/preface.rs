//! How a connection without TLS begins: with the preface of HTTP/2 (prior knowledge, RFC 9113 section 3.3), or otherwise.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::socket::ClientTcp;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection begins with, and the bytes that were read to find out.
#[derive(Debug)]
pub enum Beginning {
    Http2(Vec<u8>),
    /// HTTP/1.1, nothing, or something else.
    Other(Vec<u8>),
}

impl Beginning {
    /// Reads no further than to the first byte that is not of the preface, which is nothing with most connections.
    pub async fn read(tcp: &mut ClientTcp) -> io::Result<Self> {
        let mut bytes = Vec::new();
        while bytes.len() < PREFACE.len() {
            match std::future::poll_fn(|cx| poll_more(tcp, cx, &mut bytes)).await? {
                true => {}
                false => return Ok(Self::Other(bytes)),
            }
        }
        Ok(Self::Http2(bytes))
    }
}

/// Takes what has come of the preface. `false` = something else has come.
fn poll_more(
    tcp: &mut ClientTcp,
    cx: &mut Context<'_>,
    bytes: &mut Vec<u8>,
) -> Poll<io::Result<bool>> {
    let (mut buffer, expected) = ([0; PREFACE.len()], &PREFACE[bytes.len()..]);
    let seen = ready!(tcp.poll_peek(cx, &mut buffer[..expected.len()]))?;
    if seen == 0 || buffer[..seen] != expected[..seen] {
        return Poll::Ready(Ok(false));
    }
    let mut read = ReadBuf::new(&mut buffer[..seen]);
    ready!(Pin::new(tcp).poll_read(cx, &mut read))?;
    bytes.extend_from_slice(read.filled());
    Poll::Ready(Ok(true))
}
