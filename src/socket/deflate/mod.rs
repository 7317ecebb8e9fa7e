//! permessage-deflate (RFC 7692) without context takeover: each message is compressed by itself, so that a connection
//! keeps nothing for it, and what is compressed for one client is there for all that have agreed on the same window.
//!
//! Compressors and the inflater belong to the thread. A publication is compressed when the first socket is visited that
//! wants it, and by no more than one thread. Invariant: a frame that is handed to a socket without compression is never
//! a compressed one; the hub chooses the form.

mod compressor;
mod inflater;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

pub(super) use compressor::compress_payload;
pub(super) use inflater::{MAX_OVERHEAD_SHIFT, inflate};

use super::frame;
use crate::protocol::DeflateTerms;
use crate::telemetry;

/// Smaller payloads are sent as they are. A few hundred bytes of JSON become little smaller by themselves, and fit into
/// the same packet.
const MIN_BYTES: usize = 256;

/// Larger payloads are sent as they are, so that no thread is held for longer than about a millisecond, or three with the
/// smallest window. It is the largest write of joined frames to one socket, too.
const MAX_BYTES: usize = 256 * 1024;

/// How many sockets of the process have compression.
static SOCKETS: AtomicUsize = AtomicUsize::new(0);

/// The size of the window that a frame is compressed for. A client that asks for another size gets the next smaller one,
/// so that what is compressed can be shared by many clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// 256 bytes: for clients that ask for 8 to 11 bits. The window of the compressor has 512, of which it uses 250.
    Small,
    /// 4 KiB: for 12 to 14 bits.
    Medium,
    /// 32 KiB.
    Large,
}

impl Window {
    /// The largest window within this many bits.
    fn within(bits: u8) -> Self {
        match bits {
            15.. => Self::Large,
            12..=14 => Self::Medium,
            _ => Self::Small,
        }
    }

    /// The setting of the compressor.
    fn bits(self) -> u8 {
        match self {
            Self::Small => 9,
            Self::Medium => 12,
            Self::Large => 15,
        }
    }
}

/// Compression that a socket has negotiated. It is counted until it is dropped.
#[derive(Debug)]
pub(super) struct Negotiated(Window);

impl Negotiated {
    pub fn new(terms: DeflateTerms) -> Self {
        SOCKETS.fetch_add(1, Ordering::Relaxed);
        telemetry::compression::negotiated();
        Self(Window::within(terms.server_window_bits()))
    }

    pub fn window(&self) -> Window {
        self.0
    }
}

impl Drop for Negotiated {
    fn drop(&mut self) {
        SOCKETS.fetch_sub(1, Ordering::Relaxed);
        telemetry::compression::ended();
    }
}

/// Whether any socket of the process has compression.
pub fn is_in_use() -> bool {
    SOCKETS.load(Ordering::Relaxed) > 0
}

/// Whether a payload is of a size that is compressed.
fn is_worth(payload: usize) -> bool {
    (MIN_BYTES..=MAX_BYTES).contains(&payload)
}

/// The compressed forms of one frame, each made at most once. A thread that needs one that another thread is making
/// waits for it, which is shorter than to make it.
#[derive(Debug, Default)]
pub struct CompressedForms([OnceLock<Option<Bytes>>; 3]);

impl CompressedForms {
    /// The form of `frame` for this window: `frame` itself if it would not be smaller.
    fn of(&self, frame: &Bytes, window: Window) -> Bytes {
        let form = &self.0[window as usize];
        form.get_or_init(|| compress(frame, window)).as_ref().unwrap_or(frame).clone()
    }
}

/// Compresses a whole frame that [`frame::encode`] returned. `None` if it is to be sent as it is.
fn compress(plain: &[u8], window: Window) -> Option<Bytes> {
    let payload = frame::payload(plain);
    let first = *plain.first()?;
    if !is_worth(payload.len()) {
        return None;
    }
    compress_payload(payload, window, |compressed| frame::with_rsv1(first, compressed))
}

/// Appends a message to `frames`, compressed where that is worth it.
pub(super) fn append(
    frames: &mut Vec<u8>,
    opcode: frame::Opcode,
    payload: &[u8],
    window: Option<Window>,
) {
    let is_appended = match window {
        Some(window) if is_worth(payload.len()) => {
            let appended = compress_payload(payload, window, |compressed| {
                frame::append_with_rsv1(frames, opcode, compressed);
            });
            appended.is_some()
        }
        _ => false,
    };
    if !is_appended {
        frame::append(frames, opcode, payload);
    }
}

/// The form of a frame for this window; it is made for this receiver alone.
pub(super) fn form_of(frame: &Bytes, window: Window) -> Bytes {
    compress(frame, window).unwrap_or_else(|| frame.clone())
}

/// Inflates a frame that was compressed here, and reads it. `None` if it is not a single one.
pub(super) fn inflate_own<T>(frame: &[u8], read: impl FnOnce(&[u8]) -> T) -> Option<T> {
    inflate(frame::payload(frame), false, MAX_BYTES, read).ok()
}

/// Whether a frame, of which the beginning is there, is a compressed one.
pub(super) fn is_compressed(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| first & frame::RSV1 != 0)
}

impl super::Delivery {
    /// Prepares the publication to be compressed by one of the threads for all of them.
    pub fn share_compressed(&mut self) {
        if is_in_use() && is_worth(frame::payload(&self.frame).len()) {
            self.forms.get_or_insert_default();
        }
    }

    /// The same publication in the form for this window.
    pub fn for_window(&mut self, window: Window) -> Self {
        let frame = match is_worth(frame::payload(&self.frame).len()) {
            true => self.forms.get_or_insert_default().of(&self.frame, window),
            false => self.frame.clone(),
        };
        Self { frame, position: self.position, forms: None }
    }
}
