//! The compressors of a thread: one for each size of the window, made when it is first needed.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use flate2::{Compress, Compression, FlushCompress};

use super::{MAX_BYTES, Window};
use crate::telemetry;

/// How hard the compressor tries. Level 6 takes three to eight times as long for a quarter to a third less, see
/// docs/performance.md.
const LEVEL: u32 = 1;

/// What a flush ends with, and a sender leaves out (RFC 7692 section 7.2.1).
pub(super) const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

thread_local! {
    static COMPRESSORS: RefCell<Compressors> = RefCell::default();
}

#[derive(Default)]
struct Compressors {
    /// One for each [`Window`]. Each takes up to 270 KB.
    by_window: [Option<Box<Compress>>; 3],
    /// What has been compressed; at most [`bound`] of [`MAX_BYTES`].
    output: Vec<u8>,
}

/// Room for whatever becomes of a payload: at level 1 no byte takes more than nine bits, and a block and a flush take a few
/// bytes.
fn bound(payload: usize) -> usize {
    payload + payload / 8 + 64
}

/// Returns how many bytes `payload` takes in `output`; `None` if it cannot be compressed.
fn flush(compressor: &mut Compress, payload: &[u8], output: &mut [u8]) -> Option<usize> {
    compressor.reset();
    compressor.compress(payload, output, FlushCompress::Sync).ok()?;
    let (read, written) = (compressor.total_in() as usize, compressor.total_out() as usize);
    (read == payload.len() && written < output.len()).then_some(written)
}

/// Compresses a payload, and passes it on if it has become smaller.
pub fn compress_payload<T>(
    payload: &[u8],
    window: Window,
    pass_on: impl FnOnce(&[u8]) -> T,
) -> Option<T> {
    debug_assert!(payload.len() <= MAX_BYTES);
    COMPRESSORS.with_borrow_mut(|Compressors { by_window, output }| {
        let slot = &mut by_window[window as usize];
        let compressor = slot.get_or_insert_with(|| {
            let level = Compression::new(LEVEL);
            Box::new(Compress::new_with_window_bits(level, false, window.bits()))
        });
        let room = bound(payload.len());
        if output.len() < room {
            output.resize(room, 0);
        }
        let output = &mut output[..room];
        // A panic of the library must not stop the thread.
        let flushed = catch_unwind(AssertUnwindSafe(|| flush(compressor, payload, output)));
        let written = flushed.ok().flatten();
        if written.is_none() {
            // zlib-rs 0.6.8 must not be used again after output was left behind: its reset forgets where its buffer
            // begins, and it panics when that is at the end.
            *slot = None;
        }
        let compressed = written.and_then(|written| output[..written].strip_suffix(&TAIL));
        let compressed = compressed.filter(|compressed| compressed.len() < payload.len());
        telemetry::compression::compressed(payload.len(), compressed.map(<[u8]>::len));
        compressed.map(pass_on)
    })
}
