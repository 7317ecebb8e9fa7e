//! The bodies of answers, decoded (`Content-Encoding`, RFC 9110 section 8.4).
//!
//! The gateway asks for `identity`, but some servers and proxies compress whatever is asked for. Invariant: what one
//! read inflates to is bounded, so that a small answer cannot take much memory.

use std::io::{self, Write};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::Bytes;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use zstd::stream::write::Decoder as ZstdDecoder;

use super::error_chain;
use crate::protocol::header_list;

/// How much of a body is inflated at once.
const STEP_BYTES: usize = 4 * 1024;
/// What a step may inflate to. It is a little more than deflate can reach.
const MAX_STEP_BYTES: usize = 8 * 1024 * 1024;
/// The largest window of zstd, as the power of two that RFC 9659 sets for HTTP.
const ZSTD_WINDOW_LOG: u32 = 23;
/// The size of brotli's output buffer.
const BROTLI_BUFFER: usize = 16 * 1024;

/// The body of an answer, decoded.
pub struct DecodedBody {
    body: Incoming,
    encoding: Encoding,
    /// What has been received and not decoded yet.
    input: Bytes,
    is_ended: bool,
}

enum Encoding {
    Identity,
    /// `deflate`, until the first byte shows whether it is zlib or, against the RFC, raw.
    Deflate,
    Known(Box<Decoder>),
    /// The name of an encoding that cannot be decoded.
    Unsupported(String),
}

enum Decoder {
    Gzip(MultiGzDecoder<Output>),
    Zlib(ZlibDecoder<Output>),
    RawDeflate(DeflateDecoder<Output>),
    Brotli(Brotli),
    Zstd(ZstdDecoder<'static, Output>),
}

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyError {
    /// The connection was lost; the text says how.
    Lost(String),
    /// The body has this encoding, which is not supported.
    Encoding(String),
    /// The body is not what its encoding says.
    Corrupt(String),
    TooLarge,
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(reason) => f.write_str(reason),
            Self::Encoding(name) => write!(f, "its content encoding {name:?} is not supported"),
            Self::Corrupt(reason) => {
                write!(f, "its body does not match its content encoding: {reason}")
            }
            Self::TooLarge => f.write_str("its body is too large"),
        }
    }
}

impl DecodedBody {
    pub fn new(response: Response<Incoming>) -> Self {
        let encoding = Encoding::of(response.headers());
        Self { body: response.into_body(), encoding, input: Bytes::new(), is_ended: false }
    }

    /// Returns the next part; `None` at the end. It is cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if let Encoding::Unsupported(name) = &self.encoding {
            return Some(Err(BodyError::Encoding(name.clone())));
        }
        loop {
            if !self.input.is_empty() {
                match self.decode() {
                    Ok(part) if part.is_empty() => continue,
                    decoded => return Some(decoded),
                }
            }
            if self.is_ended {
                return None;
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.input = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Some(Err(BodyError::Lost(error_chain(&error)))),
                None => {
                    self.is_ended = true;
                    return self.finish().err().map(Err);
                }
            }
        }
    }

    /// Reads the whole body, at most `max_bytes` of it; a longer one is an error.
    pub async fn collect(mut self, max_bytes: usize) -> Result<Bytes, BodyError> {
        let mut all = Vec::new();
        while let Some(part) = self.next().await {
            let part = part?;
            if all.len() + part.len() > max_bytes {
                return Err(BodyError::TooLarge);
            }
            all.extend_from_slice(&part);
        }
        Ok(all.into())
    }

    /// Decodes a step of the input. An empty result is no end.
    fn decode(&mut self) -> Result<Bytes, BodyError> {
        if let (Encoding::Deflate, Some(first)) = (&self.encoding, self.input.first()) {
            self.encoding = Encoding::Known(Box::new(Decoder::deflate(*first)));
        }
        match &mut self.encoding {
            Encoding::Known(decoder) => {
                let step = self.input.split_to(self.input.len().min(STEP_BYTES));
                decoder.decode(&step).map_err(body_error)
            }
            Encoding::Identity | Encoding::Deflate | Encoding::Unsupported(_) => {
                Ok(std::mem::take(&mut self.input))
            }
        }
    }

    /// The body has ended. `Err` = its encoding had not.
    fn finish(&mut self) -> Result<(), BodyError> {
        match &mut self.encoding {
            Encoding::Known(decoder) => decoder.finish().map_err(body_error),
            _ => Ok(()),
        }
    }
}

fn body_error(error: io::Error) -> BodyError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => BodyError::TooLarge,
        _ => BodyError::Corrupt(error.to_string()),
    }
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Self {
        let mut names = header_list(headers, &CONTENT_ENCODING)
            .map(str::to_ascii_lowercase)
            .filter(|name| !matches!(name.as_str(), "" | "identity"));
        let Some(name) = names.next() else { return Self::Identity };
        if let Some(second) = names.next() {
            return Self::Unsupported(format!("{name}, {second}"));
        }
        Self::Known(Box::new(match name.as_str() {
            "gzip" | "x-gzip" => Decoder::Gzip(MultiGzDecoder::new(Output::default())),
            "br" => Decoder::Brotli(Brotli::new()),
            "zstd" => match ZstdDecoder::new(Output::default()) {
                Ok(mut zstd) => match zstd.window_log_max(ZSTD_WINDOW_LOG) {
                    Ok(()) => Decoder::Zstd(zstd),
                    Err(_) => return Self::Unsupported(name),
                },
                Err(_) => return Self::Unsupported(name),
            },
            "deflate" => return Self::Deflate,
            _ => return Self::Unsupported(name),
        }))
    }
}

impl Decoder {
    /// A zlib stream begins with the method 8; a raw one does not begin with that of any encoder in use.
    fn deflate(first: u8) -> Self {
        match first & 0x0f {
            8 => Self::Zlib(ZlibDecoder::new(Output::default())),
            _ => Self::RawDeflate(DeflateDecoder::new(Output::default())),
        }
    }

    fn decode(&mut self, input: &[u8]) -> io::Result<Bytes> {
        let writer: &mut dyn Write = match self {
            Self::Gzip(decoder) => decoder,
            Self::Zlib(decoder) => decoder,
            Self::RawDeflate(decoder) => decoder,
            Self::Brotli(decoder) => decoder,
            Self::Zstd(decoder) => decoder,
        };
        writer.write_all(input)?;
        writer.flush()?;
        Ok(std::mem::take(&mut self.output().0).into())
    }

    fn output(&mut self) -> &mut Output {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::RawDeflate(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => &mut decoder.output,
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Zlib(decoder) => decoder.try_finish(),
            Self::RawDeflate(decoder) => decoder.try_finish(),
            Self::Brotli(decoder) => decoder.finish(),
            // It does not report where a frame ends; what is missing is seen in what it carried.
            Self::Zstd(_) => Ok(()),
        }
    }
}

/// A decoder of brotli. Large windows are refused: they are not part of the encoding of HTTP (RFC 7932), and would take
/// up to a gigabyte.
struct Brotli {
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    buffer: Vec<u8>,
    output: Output,
    is_complete: bool,
}

impl Brotli {
    fn new() -> Self {
        let alloc = StandardAlloc::default;
        Self {
            state: Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())),
            buffer: vec![0; BROTLI_BUFFER],
            output: Output::default(),
            is_complete: false,
        }
    }

    fn finish(&self) -> io::Result<()> {
        if self.is_complete { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Write for Brotli {
    fn write(&mut self, input: &[u8]) -> io::Result<usize> {
        if self.is_complete {
            return Err(io::Error::other("bytes follow the end of the stream"));
        }
        let (mut left, mut read, mut total) = (input.len(), 0, 0);
        loop {
            let (mut room, mut written) = (self.buffer.len(), 0);
            let result = BrotliDecompressStream(
                &mut left,
                &mut read,
                input,
                &mut room,
                &mut written,
                &mut self.buffer,
                &mut total,
                &mut self.state,
            );
            self.output.write_all(&self.buffer[..written])?;
            match result {
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::NeedsMoreInput => return Ok(input.len()),
                BrotliResult::ResultSuccess => {
                    self.is_complete = true;
                    return Ok(read);
                }
                BrotliResult::ResultFailure => return Err(io::Error::other("not a brotli stream")),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a step inflates to.
#[derive(Default)]
struct Output(Vec<u8>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_STEP_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
