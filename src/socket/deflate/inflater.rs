//! The inflater of a thread: a compressed message is inflated when it is complete, and no further than its limit allows
//! (RFC 7692 section 7.2.2).

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};

use super::compressor::TAIL;
use crate::protocol::CloseReason;
use crate::socket::utf8::{InvalidUtf8, Utf8};

/// A compressed message may be larger than what it inflates to by this part of it (a shift), and by 64 bytes: no
/// compressor makes more of data that cannot be compressed.
pub const MAX_OVERHEAD_SHIFT: u32 = 3;

/// A final, empty block, which the inflater finds if the message has ended at the end of a block.
const END: [u8; 5] = [0x01, 0x00, 0x00, 0xff, 0xff];

/// How many final blocks may be followed by others. An honest message has one or none.
const MAX_FINAL_BLOCKS: usize = 16;

/// How much is inflated in one step, which is the first size of the buffer as well; and what a thread keeps of it.
const STEP_BYTES: usize = 16 * 1024;
pub(super) const KEPT_BYTES: usize = 256 * 1024;

thread_local! {
    static INFLATER: RefCell<Inflater> = RefCell::default();
}

#[derive(Default)]
struct Inflater {
    state: Option<Box<Decompress>>,
    /// Room for what is inflated. Its length stays, so that it is not filled with zeros for each message.
    room: Vec<u8>,
}

/// Inflates a whole message, of at most `max` bytes, and passes it on. Text is checked to be UTF-8 after each step, so that
/// what is not is refused early.
pub fn inflate<T>(
    compressed: &[u8],
    is_text: bool,
    max: usize,
    pass_on: impl FnOnce(&[u8]) -> T,
) -> Result<T, CloseReason> {
    // Taken out, because whoever gets the message may inflate another one.
    let mut inflater = INFLATER.take();
    let inflated = inflater.run(compressed, is_text, max);
    let passed = inflated.map(|length| pass_on(&inflater.room[..length]));
    if inflater.room.len() > KEPT_BYTES {
        inflater.room = Vec::new();
    }
    INFLATER.set(inflater);
    passed
}

impl Inflater {
    /// Returns the length of the inflated message.
    fn run(&mut self, compressed: &[u8], is_text: bool, max: usize) -> Result<usize, CloseReason> {
        let Self { state, room } = self;
        let state = state.get_or_insert_with(|| Box::new(Decompress::new(false)));
        state.reset(false);
        let mut utf8 = Utf8::default();
        let (mut length, mut checked, mut final_blocks) = (0, 0, 0);
        for (part, mut input) in [compressed, &TAIL, &END].into_iter().enumerate() {
            loop {
                if is_text && length - checked >= STEP_BYTES {
                    let fed = utf8.feed(&room[checked..length]);
                    fed.map_err(|InvalidUtf8| CloseReason::InvalidUtf8)?;
                    checked = length;
                }
                if length == room.len() {
                    let most = max.saturating_add(1).max(STEP_BYTES);
                    room.resize((length * 2).clamp(STEP_BYTES, most), 0);
                }
                let (read, written) = (state.total_in(), state.total_out());
                // One byte more than allowed shows that there are too many.
                let end = room.len().min(length + STEP_BYTES).min(max.saturating_add(1));
                let status = state
                    .decompress(input, &mut room[length..end], FlushDecompress::None)
                    .map_err(|_| CloseReason::InvalidCompression)?;
                let (read, written) =
                    ((state.total_in() - read) as usize, (state.total_out() - written) as usize);
                input = &input[read..];
                length += written;
                if length > max {
                    return Err(CloseReason::MessageTooBig);
                }
                // What is not complete would take the end that is added here for its own bytes.
                if part > 0 && written > 0 {
                    return Err(CloseReason::InvalidCompression);
                }
                if status == Status::StreamEnd {
                    match part {
                        // Another stream may follow a final block.
                        0 if !input.is_empty() && final_blocks < MAX_FINAL_BLOCKS => {
                            final_blocks += 1;
                            state.reset(false);
                            continue;
                        }
                        _ if input.is_empty() => return Ok(length),
                        _ => return Err(CloseReason::InvalidCompression),
                    }
                }
                let has_room = length < end;
                if input.is_empty() && has_room {
                    break;
                }
                if has_room && read == 0 && written == 0 {
                    return Err(CloseReason::InvalidCompression);
                }
            }
        }
        Err(CloseReason::InvalidCompression)
    }
}
