//! Messages in the form of permessage-deflate (RFC 7692), each by itself.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Compresses a message.
pub fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(payload.len() * 2 + 64);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(payload, &mut output, FlushCompress::Sync).expect("room");
    assert_eq!(compress.total_in(), payload.len() as u64);
    output.strip_suffix(&TAIL).expect("a flush").to_vec()
}

/// Inflates a message.
pub fn inflate(compressed: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(1 << 20);
    let input = [compressed, &TAIL].concat();
    let mut decompress = Decompress::new(false);
    let inflated = decompress.decompress_vec(&input, &mut output, FlushDecompress::Sync);
    inflated.expect("valid DEFLATE data");
    assert_eq!(decompress.total_in(), input.len() as u64, "all of it");
    assert!(output.len() < output.capacity(), "less than a test needs");
    output
}
