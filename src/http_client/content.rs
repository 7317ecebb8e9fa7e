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
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use zstd::stream::raw::{self as zstd_raw, DParameter, InBuffer, Operation, OutBuffer};

use super::{ResponseBody, error_chain};
use crate::protocol::header_list;

/// How much of a body is inflated at once.
const STEP_BYTES: usize = 4 * 1024;
/// What a step may inflate to. It is a little more than deflate can reach.
const MAX_STEP_BYTES: usize = 8 * 1024 * 1024;
/// The largest window of zstd, as the power of two that RFC 9659 sets for HTTP.
const ZSTD_WINDOW_LOG: u32 = 23;
const ZSTD_BLOCK_HEADER_BYTES: usize = 3;
/// The size of the output buffers of brotli and zstd.
const BUFFER_BYTES: usize = 16 * 1024;

/// The body of an answer, decoded.
pub struct DecodedBody {
    body: ResponseBody,
    encoding: Encoding,
    /// What has been received and not decoded yet.
    input: Bytes,
    /// Whether the message says where the body ends, and not just the end of its connection.
    is_delimited: bool,
    /// Some of the body was received.
    has_begun: bool,
    is_ended: bool,
    /// Why nothing more can be decoded, once what came before has been returned.
    fault: Option<BodyError>,
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
    Zstd(Zstd),
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
    pub fn new(response: Response<impl Into<ResponseBody>>) -> Self {
        let encoding = Encoding::of(response.headers());
        let headers = response.headers();
        let is_delimited =
            headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
        Self {
            is_delimited,
            body: response.into_body().into(),
            encoding,
            input: Bytes::new(),
            has_begun: false,
            is_ended: false,
            fault: None,
        }
    }

    /// Whether the end of this body proves that all of it has come. Without it, a connection that was closed early looks
    /// the same.
    pub fn is_delimited(&self) -> bool {
        self.is_delimited
    }

    /// Returns the next part; `None` at the end. It is cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if let Encoding::Unsupported(name) = &self.encoding {
            return Some(Err(BodyError::Encoding(name.clone())));
        }
        if let Some(fault) = self.fault.take() {
            return Some(Err(fault));
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
                self.has_begun = true;
                let step = self.input.split_to(self.input.len().min(STEP_BYTES));
                let Err(error) = decoder.decode(&step) else { return Ok(decoder.take_output()) };
                let fault = body_error(error);
                let before = decoder.take_output();
                self.input.clear();
                self.is_ended = true;
                if fault == BodyError::TooLarge || before.is_empty() {
                    return Err(fault);
                }
                // What came before the fault may be whole events.
                self.fault = Some(fault);
                Ok(before)
            }
            Encoding::Identity | Encoding::Deflate | Encoding::Unsupported(_) => {
                Ok(std::mem::take(&mut self.input))
            }
        }
    }

    /// The body has ended. `Err` = its encoding had not. An empty body has no encoding, whatever its head says.
    fn finish(&mut self) -> Result<(), BodyError> {
        match &mut self.encoding {
            Encoding::Known(decoder) if self.has_begun => decoder.finish().map_err(body_error),
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
        let mut given = headers.get_all(CONTENT_ENCODING).iter();
        if let Some(unreadable) = given.find(|value| value.to_str().is_err()) {
            return Self::Unsupported(String::from_utf8_lossy(unreadable.as_bytes()).into_owned());
        }
        // A transfer coding other than `chunked`, which the HTTP library leaves in place, comes on top.
        let mut names = header_list(headers, &CONTENT_ENCODING)
            .chain(header_list(headers, &TRANSFER_ENCODING))
            .map(str::to_ascii_lowercase)
            .filter(|name| !matches!(name.as_str(), "" | "identity" | "chunked"));
        let Some(name) = names.next() else { return Self::Identity };
        if let Some(second) = names.next() {
            return Self::Unsupported(format!("{name}, {second}"));
        }
        Self::Known(Box::new(match name.as_str() {
            "gzip" | "x-gzip" => Decoder::Gzip(MultiGzDecoder::new(Output::default())),
            "br" => Decoder::Brotli(Brotli::new()),
            "zstd" => match Zstd::new() {
                Ok(zstd) => Decoder::Zstd(zstd),
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

    /// Decodes `input` into the output, as much of it as there is before a fault.
    fn decode(&mut self, input: &[u8]) -> io::Result<()> {
        let holds_back = !matches!(self, Self::Brotli(_) | Self::Zstd(_));
        let writer: &mut dyn Write = match self {
            Self::Gzip(decoder) => decoder,
            Self::Zlib(decoder) => decoder,
            Self::RawDeflate(decoder) => decoder,
            Self::Brotli(decoder) => decoder,
            Self::Zstd(decoder) => decoder,
        };
        let decoded = writer.write_all(input).and_then(|()| writer.flush());
        if decoded.is_err() && holds_back {
            // These write what they hold before they look at more input, and then fail again.
            let _ = writer.write(&[0]);
        }
        decoded
    }

    fn take_output(&mut self) -> Bytes {
        std::mem::take(&mut self.output().0).into()
    }

    fn output(&mut self) -> &mut Output {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::RawDeflate(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => &mut decoder.output,
            Self::Zstd(decoder) => &mut decoder.output,
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Zlib(decoder) => decoder.try_finish(),
            Self::RawDeflate(decoder) => decoder.try_finish(),
            Self::Brotli(decoder) => decoder.finish(),
            Self::Zstd(decoder) => decoder.finish(),
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
            buffer: vec![0; BUFFER_BYTES],
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
        // The library returns what it has decoded when it needs input, but not at a fault.
        let input = &input[..input.len().min(1)];
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

/// A decoder of zstd, of any number of frames.
struct Zstd {
    decoder: zstd_raw::Decoder<'static>,
    buffer: Vec<u8>,
    output: Output,
    /// How much input the library wants next: the rest of a block and the header of the next one. 0 = a frame is complete.
    wanted: usize,
}

impl Zstd {
    fn new() -> io::Result<Self> {
        let mut decoder = zstd_raw::Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
        Ok(Self { decoder, buffer: vec![0; BUFFER_BYTES], output: Output::default(), wanted: 1 })
    }

    fn finish(&self) -> io::Result<()> {
        if self.wanted == 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Write for Zstd {
    fn write(&mut self, input: &[u8]) -> io::Result<usize> {
        // The library does not say what it has decoded before a fault, so that each call ends with a block.
        let block = self.wanted.saturating_sub(ZSTD_BLOCK_HEADER_BYTES).max(1);
        let length = input.len().min(block);
        let mut input = InBuffer::around(&input[..length]);
        loop {
            let mut decoded = OutBuffer::around(&mut self.buffer[..]);
            self.wanted = self.decoder.run(&mut input, &mut decoded)?;
            let written = decoded.pos();
            self.output.write_all(&self.buffer[..written])?;
            let is_flushed = written < self.buffer.len();
            if self.wanted == 0 || (is_flushed && (input.pos == length || written == 0)) {
                return Ok(input.pos);
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
