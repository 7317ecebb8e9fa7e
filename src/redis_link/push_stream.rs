//! Takes the messages of pub/sub out of the bytes that a server sends, and leaves everything else to the library.
//!
//! The library makes a tree of values of each message, with an allocation for each part, which takes longer than all else
//! that is done for a message before it is written to its socket. Here a message is two slices of the read buffer.
//! Invariant: the library gets whole values and pieces of them, in their order, and nothing of a message.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that one read takes, unless a message is larger.
const BUFFER_BYTES: usize = 64 * 1024;

/// The longest line of a string's length, with CR LF.
const MAX_LINE: usize = 16;

/// A string of a message is shorter. The library gets what claims more.
const MAX_STRING: usize = 1 << 31;

/// What begins a message in RESP3, up to the length of the channel's name; and one of sharded pub/sub.
const MESSAGE: &[u8] = b">3\r\n$7\r\nmessage\r\n";
const SHARD_MESSAGE: &[u8] = b">3\r\n$8\r\nsmessage\r\n";

/// What begins the end of a subscription of sharded pub/sub.
const SHARD_END: &[u8] = b">3\r\n$12\r\nsunsubscribe\r\n";

/// Is told about the end of each subscription of sharded pub/sub. A node also ends them by itself, when a slot leaves it:
/// the library, which would take this for the answer to a command, does not get those for which this returns true.
pub(super) type OnShardEnd = Box<dyn Fn(&[u8]) -> bool + Send>;

/// A stream from a server that speaks RESP3. `on_message` gets the channel and the payload of each message; it is called
/// while the stream is read.
pub(super) struct PushStream<S, F> {
    stream: S,
    buffer: Vec<u8>,
    /// The bytes of `buffer` that were read and not handled yet.
    start: usize,
    end: usize,
    passing: Passing,
    on_message: F,
    on_shard_end: Option<OnShardEnd>,
}

/// How much of a value is to come that the library gets.
#[derive(Debug, Default)]
struct Passing {
    /// How many values begin, nested ones included. 0 = the next one is not part of another.
    values: u64,
    /// How many bytes come before the next value begins.
    bytes: u64,
}

/// What is at the front of the bytes.
#[derive(Debug, PartialEq, Eq)]
enum Front<'a> {
    Message {
        channel: &'a [u8],
        payload: &'a [u8],
        length: usize,
    },
    /// The beginning of a message, or of the line of another value, which has at least this many bytes.
    Partial {
        length: usize,
    },
    Other,
}

impl<S, F> PushStream<S, F> {
    /// `on_shard_end` is for a connection of sharded pub/sub.
    pub fn new(stream: S, on_shard_end: Option<OnShardEnd>, on_message: F) -> Self {
        Self {
            on_shard_end,
            stream,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            passing: Passing::default(),
            on_message,
        }
    }

    /// Makes room behind what is not handled yet, for at least `length` bytes together.
    fn make_room(&mut self, length: usize) {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let needed = length.max(self.end + 1).max(BUFFER_BYTES);
        if self.buffer.len() != needed {
            self.buffer.resize(needed, 0);
            self.buffer.shrink_to(needed);
        }
    }
}

impl<S, F: Fn(&[u8], &[u8])> PushStream<S, F> {
    /// Handles what is in the buffer, until `output` is full or more has to be read. Returns how many bytes of what is left
    /// are needed at least.
    fn handle(&mut self, output: &mut ReadBuf<'_>) -> usize {
        while self.start < self.end && output.remaining() > 0 {
            let bytes = &self.buffer[self.start..self.end];
            if self.passing.is_between() {
                match front(bytes) {
                    Front::Message { channel, payload, length } => {
                        (self.on_message)(channel, payload);
                        self.start += length;
                        continue;
                    }
                    Front::Partial { length } => return length,
                    Front::Other => match self.on_shard_end.as_ref().map(|on| shard_end(bytes, on))
                    {
                        Some(ShardEnd::Handled { length }) => {
                            self.start += length;
                            continue;
                        }
                        Some(ShardEnd::Partial { length }) => return length,
                        Some(ShardEnd::Other) | None => {}
                    },
                }
            }
            if self.passing.bytes == 0 && !self.passing.begin_value(bytes) {
                return bytes.len() + 1;
            }
            let length = bytes.len().min(output.remaining());
            let length = usize::try_from(self.passing.bytes).unwrap_or(length).min(length);
            output.put_slice(&bytes[..length]);
            self.passing.bytes -= length as u64;
            self.start += length;
        }
        0
    }
}

impl Passing {
    fn is_between(&self) -> bool {
        self.values == 0 && self.bytes == 0
    }

    /// Reads the line with which a value begins. Returns whether it is complete.
    fn begin_value(&mut self, bytes: &[u8]) -> bool {
        let line = bytes.iter().position(|byte| *byte == b'\n').map(|end| &bytes[..=end]);
        let Some(line) = line else {
            // No server sends such a line. The library finds the fault.
            if bytes.len() >= BUFFER_BYTES {
                self.pass_everything();
            }
            return self.bytes > 0;
        };
        let number = || {
            let digits = line.get(1..)?.strip_suffix(b"\r\n")?;
            std::str::from_utf8(digits).ok()?.parse::<i64>().ok().map(|number| number.max(-1))
        };
        // The values that the line announces, and the bytes of a string with its CR LF.
        let announced = match line[0] {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => Some((0, 0)),
            b'$' | b'!' | b'=' => {
                number().map(|length| (0, if length < 0 { 0 } else { length + 2 }))
            }
            b'*' | b'~' | b'>' => number().map(|length| (length.max(0), 0)),
            b'%' => number().map(|length| (length.max(0).saturating_mul(2), 0)),
            // Attributes come before the value that they belong to.
            b'|' => number().map(|length| (length.max(0).saturating_mul(2).saturating_add(1), 0)),
            _ => None,
        };
        match announced {
            Some((values, bytes)) => {
                self.values = self.values.max(1) - 1;
                self.values = self.values.saturating_add(values.unsigned_abs());
                self.bytes = (line.len() as u64).saturating_add(bytes.unsigned_abs());
            }
            None => self.pass_everything(),
        }
        true
    }

    /// What came is not RESP3.
    fn pass_everything(&mut self) {
        (self.values, self.bytes) = (0, u64::MAX);
    }
}

/// Whether `bytes` begin with `beginning`, or end before it does; then the inner `Err` has the bytes that are needed.
fn begins(bytes: &[u8], beginning: &[u8]) -> Option<Result<(), usize>> {
    let shared = bytes.len().min(beginning.len());
    (bytes[..shared] == beginning[..shared]).then_some(if shared < beginning.len() {
        Err(beginning.len())
    } else {
        Ok(())
    })
}

fn front(bytes: &[u8]) -> Front<'_> {
    let begin = match begins(bytes, MESSAGE) {
        Some(Ok(())) => MESSAGE.len(),
        Some(Err(length)) => return Front::Partial { length },
        None => match begins(bytes, SHARD_MESSAGE) {
            Some(Ok(())) => SHARD_MESSAGE.len(),
            Some(Err(length)) => return Front::Partial { length },
            None => return Front::Other,
        },
    };
    let (channel, at) = match string(bytes, begin) {
        Ok(channel) => channel,
        Err(other) => return other,
    };
    match string(bytes, at) {
        Ok((payload, length)) => Front::Message { channel, payload, length },
        Err(other) => other,
    }
}

/// What is at the front of the bytes of a connection of sharded pub/sub that is no message.
enum ShardEnd {
    Handled { length: usize },
    Partial { length: usize },
    Other,
}

/// Handles the end of a subscription, which has the number of those that are left behind the channel.
fn shard_end(bytes: &[u8], on_shard_end: &OnShardEnd) -> ShardEnd {
    match begins(bytes, SHARD_END) {
        None => return ShardEnd::Other,
        Some(Err(length)) => return ShardEnd::Partial { length },
        Some(Ok(())) => {}
    }
    let (channel, at) = match string(bytes, SHARD_END.len()) {
        Ok(channel) => channel,
        Err(Front::Partial { length }) => return ShardEnd::Partial { length },
        Err(_) => return ShardEnd::Other,
    };
    let rest = &bytes[at..];
    match rest.iter().take(MAX_LINE).position(|byte| *byte == b'\n') {
        Some(end) if rest[0] == b':' && on_shard_end(channel) => {
            ShardEnd::Handled { length: at + end + 1 }
        }
        None if rest.len() < MAX_LINE => ShardEnd::Partial { length: bytes.len() + 1 },
        _ => ShardEnd::Other,
    }
}

/// The string that begins at `at`, and where it ends.
fn string(bytes: &[u8], at: usize) -> Result<(&[u8], usize), Front<'_>> {
    let rest = &bytes[at..];
    let Some(end) = rest.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
        let is_partial = rest.len() < MAX_LINE && rest.first().is_none_or(|byte| *byte == b'$');
        return Err(match is_partial {
            true => Front::Partial { length: bytes.len() + 1 },
            false => Front::Other,
        });
    };
    let digits = rest[..end].strip_prefix(b"$").and_then(|line| line.strip_suffix(b"\r"));
    let length = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    let Some(length) = length.filter(|length: &usize| *length < MAX_STRING) else {
        return Err(Front::Other);
    };
    let start = at + end + 1;
    let end = start + length;
    match bytes.get(start..end + 2) {
        None => Err(Front::Partial { length: end + 2 }),
        Some(string) if string.ends_with(b"\r\n") => Ok((&string[..length], end + 2)),
        Some(_) => Err(Front::Other),
    }
}

impl<S: AsyncRead + Unpin, F: Fn(&[u8], &[u8]) + Unpin> AsyncRead for PushStream<S, F> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        output: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = output.filled().len();
        loop {
            let needed = this.handle(output);
            if output.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            this.make_room(needed);
            let mut free = ReadBuf::new(&mut this.buffer[this.end..]);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut free))?;
            let (length, is_full) = (free.filled().len(), free.remaining() == 0);
            if length == 0 {
                return Poll::Ready(Ok(()));
            }
            this.end += length;
            if is_full {
                // There may be much more. What came is delivered first.
                let _ = this.handle(output);
                if output.filled().len() == before {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin, F: Unpin> AsyncWrite for PushStream<S, F> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
