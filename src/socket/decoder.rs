//! Frames that clients send, parsed strictly and as they arrive (RFC 6455 sections 5 and 7.4).
//!
//! Checks come before buffering: a head is refused for its bits, its length encoding, its order or the
//! size of its whole message before a byte of its payload is kept. Text is checked byte by byte. A
//! message that lies whole in the read buffer is handed on from there; only the bytes of an
//! unfinished message are kept, and never more than were received.

use fastwebsockets::unmask;

use super::frame::Opcode;
use super::utf8::{InvalidUtf8, Utf8};
use crate::protocol::CloseReason;

/// What a peer said.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    /// The code and reason of its close frame; `None` = a close frame without them.
    Close(Option<(u16, &'a str)>),
}

/// A head and its mask: 2 + 8 + 4 bytes.
const MAX_HEAD: usize = 14;

#[derive(Debug)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    remaining: usize,
    /// Rotated as payload is consumed, so that its first byte belongs to the next payload byte.
    mask: [u8; 4],
}

/// A data message of which something is still missing.
#[derive(Debug)]
struct Partial {
    text: bool,
    utf8: Utf8,
    bytes: Vec<u8>,
}

/// The parser of one connection. Between messages it holds no heap memory.
#[derive(Debug)]
pub struct Decoder {
    max_message: usize,
    head: [u8; MAX_HEAD],
    head_len: u8,
    frame: Option<Frame>,
    message: Option<Box<Partial>>,
    /// The payload so far of a control frame that came in pieces.
    control: Vec<u8>,
}

impl Decoder {
    /// `max_message` bounds a whole message, all fragments together, in bytes.
    pub fn new(max_message: usize) -> Self {
        Self {
            max_message,
            head: [0; MAX_HEAD],
            head_len: 0,
            frame: None,
            message: None,
            control: Vec::new(),
        }
    }

    /// Consumes `input` (unmasking it in place) and hands on what is complete. After an error, or after
    /// `on_event` was handed a close, nothing more may be fed.
    pub fn feed(
        &mut self,
        mut input: &mut [u8],
        on_event: &mut dyn FnMut(Incoming<'_>),
    ) -> Result<(), CloseReason> {
        loop {
            if self.frame.is_none() {
                let taken = self.read_head(input)?;
                input = &mut input[taken..];
            }
            let Some(frame) = &mut self.frame else { return Ok(()) };
            let available = frame.remaining.min(input.len());
            if available == 0 && frame.remaining > 0 {
                return Ok(());
            }
            let (payload, rest) = input.split_at_mut(available);
            input = rest;
            unmask(payload, frame.mask);
            frame.mask.rotate_left(available % 4);
            frame.remaining -= available;
            let finished = frame.remaining == 0;
            let (opcode, fin) = (frame.opcode, frame.fin);
            if finished {
                self.frame = None;
            }
            if opcode.is_control() {
                let closed = opcode == Opcode::Close && finished;
                self.control_payload(opcode, payload, finished, on_event)?;
                if closed {
                    return Ok(());
                }
            } else {
                self.data_payload(opcode, payload, finished && fin, on_event)?;
            }
        }
    }

    /// Takes bytes until a head is whole, then checks it. Returns how many bytes were taken.
    fn read_head(&mut self, input: &[u8]) -> Result<usize, CloseReason> {
        let mut taken = 0;
        loop {
            let have = usize::from(self.head_len);
            let need = head_size(&self.head[..have])?;
            if have >= need {
                let frame = self.check_head(need)?;
                self.frame = Some(frame);
                self.head_len = 0;
                return Ok(taken);
            }
            let more = (need - have).min(input.len() - taken);
            if more == 0 {
                return Ok(taken);
            }
            self.head[have..have + more].copy_from_slice(&input[taken..taken + more]);
            self.head_len += more as u8;
            taken += more;
        }
    }

    /// Opcode order and size; the bits are checked by [`head_size`] already.
    fn check_head(&mut self, size: usize) -> Result<Frame, CloseReason> {
        let head = &self.head[..size];
        let fin = head[0] & 0x80 != 0;
        let opcode = Opcode::from_bits(head[0] & 0x0f).ok_or(CloseReason::ProtocolError)?;
        let length = payload_length(head)?;
        let mut mask = [0; 4];
        mask.copy_from_slice(&head[size - 4..]);
        if !opcode.is_control() {
            if (opcode == Opcode::Continuation) != self.message.is_some() {
                return Err(CloseReason::ProtocolError);
            }
            let before = self.message.as_ref().map_or(0, |message| message.bytes.len());
            if length > (self.max_message - before) as u64 {
                return Err(CloseReason::MessageTooBig);
            }
        }
        Ok(Frame { opcode, fin, remaining: length as usize, mask })
    }

    fn control_payload(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        finished: bool,
        on_event: &mut dyn FnMut(Incoming<'_>),
    ) -> Result<(), CloseReason> {
        if !finished {
            self.control.extend_from_slice(payload);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.control);
        let payload = if joined.is_empty() {
            payload
        } else {
            joined.extend_from_slice(payload);
            &joined
        };
        on_event(match opcode {
            Opcode::Ping => Incoming::Ping(payload),
            Opcode::Pong => Incoming::Pong,
            _ => Incoming::Close(close_payload(payload)?),
        });
        Ok(())
    }

    fn data_payload(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        finished: bool,
        on_event: &mut dyn FnMut(Incoming<'_>),
    ) -> Result<(), CloseReason> {
        if self.message.is_none() {
            let text = opcode == Opcode::Text;
            if finished {
                return whole_message(text, payload, on_event);
            }
            self.message =
                Some(Box::new(Partial { text, utf8: Utf8::default(), bytes: Vec::new() }));
        }
        let Some(message) = &mut self.message else { return Ok(()) };
        if message.text {
            message.utf8.feed(payload).map_err(|InvalidUtf8| CloseReason::InvalidUtf8)?;
        }
        message.bytes.extend_from_slice(payload);
        if finished && let Some(message) = self.message.take() {
            if !message.utf8.is_complete() {
                return Err(CloseReason::InvalidUtf8);
            }
            return whole_message(message.text, &message.bytes, on_event);
        }
        Ok(())
    }
}

fn whole_message(
    text: bool,
    payload: &[u8],
    on_event: &mut dyn FnMut(Incoming<'_>),
) -> Result<(), CloseReason> {
    if text {
        let text = simdutf8::basic::from_utf8(payload).map_err(|_| CloseReason::InvalidUtf8)?;
        on_event(Incoming::Text(text));
    } else {
        on_event(Incoming::Binary(payload));
    }
    Ok(())
}

/// The size of the head that begins with `head`, as far as it can be told, its bits checked as soon as
/// they are there.
fn head_size(head: &[u8]) -> Result<usize, CloseReason> {
    let Some(&first) = head.first() else { return Ok(2) };
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(CloseReason::ProtocolError)?;
    let fin = first & 0x80 != 0;
    if first & 0x70 != 0 || (opcode.is_control() && !fin) {
        return Err(CloseReason::ProtocolError);
    }
    let Some(&second) = head.get(1) else { return Ok(2) };
    if second & 0x80 == 0 || (opcode.is_control() && second & 0x7f > 125) {
        return Err(CloseReason::ProtocolError);
    }
    Ok(match second & 0x7f {
        126 => 2 + 2 + 4,
        127 => 2 + 8 + 4,
        _ => 2 + 4,
    })
}

/// The payload length of a whole head; an encoding that is not minimal is an error.
fn payload_length(head: &[u8]) -> Result<u64, CloseReason> {
    let (length, minimum) = match head[1] & 0x7f {
        126 => (u64::from(u16::from_be_bytes([head[2], head[3]])), 126),
        127 => {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[2..10]);
            (u64::from_be_bytes(bytes), 1 << 16)
        }
        length => (u64::from(length), 0),
    };
    if length < minimum || length > i64::MAX as u64 {
        return Err(CloseReason::ProtocolError);
    }
    Ok(length)
}

/// RFC 6455 section 7.4, with the codes registered with IANA since.
fn close_payload(payload: &[u8]) -> Result<Option<(u16, &str)>, CloseReason> {
    match payload {
        [] => Ok(None),
        [_] => Err(CloseReason::ProtocolError),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(CloseReason::ProtocolError);
            }
            let reason = std::str::from_utf8(reason).map_err(|_| CloseReason::InvalidUtf8)?;
            Ok(Some((code, reason)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | len as u8),
            len @ 126..65536 => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
        frame
    }

    fn run(bytes: &[u8], size: usize, max: usize) -> (Vec<String>, Option<CloseReason>) {
        let mut decoder = Decoder::new(max);
        let mut events = Vec::new();
        for piece in bytes.chunks(size) {
            let mut piece = piece.to_vec();
            let fed = decoder.feed(&mut piece, &mut |event| {
                events.push(match event {
                    Incoming::Text(text) => format!("text {text}"),
                    Incoming::Binary(bytes) => format!("binary {}", bytes.len()),
                    Incoming::Ping(bytes) => format!("ping {}", bytes.len()),
                    Incoming::Pong => "pong".into(),
                    Incoming::Close(close) => format!("close {close:?}"),
                });
            });
            if let Err(reason) = fed {
                return (events, Some(reason));
            }
        }
        (events, None)
    }

    #[test]
    fn the_same_events_however_the_bytes_are_cut() {
        let stream = [
            masked(0x81, "grüße".as_bytes()),
            masked(0x01, "🚀 wi".as_bytes()),
            masked(0x89, b"now"),
            masked(0x00, b""),
            masked(0x80, "th 🚀".as_bytes()),
            masked(0x82, &[1; 300]),
            masked(0x8a, b""),
            masked(0x82, &vec![2; 70_000]),
            masked(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let whole = run(&stream, stream.len(), 100_000);
        assert_eq!(whole.1, None);
        assert_eq!(
            whole.0,
            [
                "text grüße",
                "ping 3",
                "text 🚀 with 🚀",
                "binary 300",
                "pong",
                "binary 70000",
                "close Some((1000, \"bye\"))"
            ]
        );
        for size in [1, 2, 3, 5, 7, 64, 1000] {
            assert_eq!(run(&stream, size, 100_000), whole, "by {size}");
        }
    }

    #[test]
    fn what_the_rfc_forbids_is_refused() {
        use CloseReason::{InvalidUtf8, MessageTooBig, ProtocolError};
        let cases: Vec<(&str, Vec<u8>, CloseReason)> = vec![
            ("unmasked", vec![0x81, 1, b'a'], ProtocolError),
            ("rsv1", masked(0xc1, b"a"), ProtocolError),
            ("reserved opcode", masked(0x83, b"a"), ProtocolError),
            ("reserved control opcode", masked(0x8b, b"a"), ProtocolError),
            ("fragmented ping", masked(0x09, b"a"), ProtocolError),
            ("long ping", masked(0x89, &[0; 126]), ProtocolError),
            ("16-bit length of 125", vec![0x82, 0xfe, 0, 125, 0, 0, 0, 0], ProtocolError),
            (
                "64-bit length of 65535",
                [&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff][..], &[0; 4]].concat(),
                ProtocolError,
            ),
            (
                "64-bit length with its top bit",
                [&[0x82, 0xff][..], &[0xff; 8], &[0; 4]].concat(),
                ProtocolError,
            ),
            ("continuation of nothing", masked(0x80, b"a"), ProtocolError),
            (
                "message inside a message",
                [masked(0x01, b"a"), masked(0x81, b"b")].concat(),
                ProtocolError,
            ),
            (
                "head of a message too big",
                [&[0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0][..], &[0; 4]].concat(),
                MessageTooBig,
            ),
            (
                "fragments too big",
                [masked(0x02, &[0; 60_000]), masked(0x00, &[0; 60_000])].concat(),
                MessageTooBig,
            ),
            ("bad text", masked(0x81, b"a\xff"), InvalidUtf8),
            ("text that ends inside a character", masked(0x81, b"\xe2\x82"), InvalidUtf8),
            (
                "bad text before its frame ends",
                masked(0x81, b"\xf4\x90\x80\x80aaaa")[..9].to_vec(),
                InvalidUtf8,
            ),
            ("close of one byte", masked(0x88, b"\x03"), ProtocolError),
            ("close code 999", masked(0x88, &999u16.to_be_bytes()), ProtocolError),
            ("close code 1005", masked(0x88, &1005u16.to_be_bytes()), ProtocolError),
            ("close code 1015", masked(0x88, &1015u16.to_be_bytes()), ProtocolError),
            ("close code 5000", masked(0x88, &5000u16.to_be_bytes()), ProtocolError),
            ("close reason not UTF-8", masked(0x88, b"\x03\xe8\xff"), InvalidUtf8),
        ];
        for (name, bytes, reason) in cases {
            for size in [bytes.len(), 1] {
                assert_eq!(run(&bytes, size, 100_000).1, Some(reason), "{name} by {size}");
            }
        }
    }

    #[test]
    fn nothing_is_kept_for_what_has_not_come() {
        let mut decoder = Decoder::new(1 << 30);
        let mut head = [&[0x82, 0xff, 0, 0, 0, 0, 0x20, 0, 0, 0][..], &[0; 4], &[0; 10]].concat();
        decoder.feed(&mut head, &mut |_| ()).unwrap();
        assert!(decoder.message.unwrap().bytes.capacity() < 1024);
    }
}
