//! The compressors of a thread: one for each size of the window, made when it is first needed.

use std::cell::RefCell;

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
    /// By [`Window`]. Each takes up to 270 KB.
    by_window: [Option<Box<Compress>>; 3],
    /// What has been compressed; a little more than [`MAX_BYTES`] at most.
    output: Vec<u8>,
}

/// Compresses a payload, and passes it on if it has become smaller.
pub fn compress_payload<T>(
    payload: &[u8],
    window: Window,
    pass_on: impl FnOnce(&[u8]) -> T,
) -> Option<T> {
    debug_assert!(payload.len() <= MAX_BYTES);
    COMPRESSORS.with_borrow_mut(|Compressors { by_window, output }| {
        let compressor = by_window[window as usize].get_or_insert_with(|| {
            let level = Compression::new(LEVEL);
            Box::new(Compress::new_with_window_bits(level, false, window.bits()))
        });
        compressor.reset();
        // What does not fit is not smaller. A flush is only complete if there was room left.
        let room = payload.len() + TAIL.len();
        if output.len() < room {
            output.resize(room, 0);
        }
        let output = &mut output[..room];
        let flushed = compressor.compress(payload, output, FlushCompress::Sync);
        let (read, written) = (compressor.total_in() as usize, compressor.total_out() as usize);
        let is_whole = flushed.is_ok() && read == payload.len() && written < room;
        let compressed = match is_whole {
            true => output[..written].strip_suffix(&TAIL),
            false => None,
        };
        telemetry::compression::compressed(payload.len(), compressed.map(<[u8]>::len));
        compressed.map(pass_on)
    })
}
