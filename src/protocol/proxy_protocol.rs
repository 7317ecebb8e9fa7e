//! The header of the PROXY protocol, versions 1 and 2: a load balancer that passes on TCP connections writes it before
//! everything else, to say whose connection it is.
//!
//! Invariant: however its bytes arrive, no byte behind the header is asked for, and a header is bounded before it is kept.

use std::net::SocketAddr;

use ppp::v2::Protocol;
use ppp::{v1, v2};

/// The longest line of version 1.
const MAX_LINE_BYTES: usize = 107;

/// What every header of version 2 begins with: the signature, the version and command, the family, the length.
const FIXED_BYTES: usize = 16;
const VERSION_AND_COMMAND: usize = 12;

/// The most bytes behind these. The longest addresses are 216 bytes, and senders are asked to keep the whole header
/// within one segment of 536 bytes; what is left is for the fields of a client's certificate.
const MAX_REST_BYTES: usize = 4096;

/// `LOCAL`: the connection is the load balancer's own, and the rest of the header says nothing.
const LOCAL: u8 = 0x20;

/// The type and the length of a field.
const FIELD_HEAD_BYTES: usize = 3;

/// The types of the fields that are read.
const CRC32C: u8 = 0x03;
const SSL: u8 = 0x20;
/// In the first byte of [`SSL`]: the client uses TLS.
const CLIENT_SSL: u8 = 0x01;

/// What is known after some bytes of a header.
#[derive(Debug, PartialEq, Eq)]
pub enum HeaderProgress {
    /// The header may have as many bytes more, and no byte behind it is among them: of version 1 up to the first line
    /// feed, of version 2 all of them.
    Needs(usize),
    Complete(ProxyHeader),
}

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Nothing: the connection is the load balancer's own, such as a health check, or of a kind without IP addresses.
    Local,
    Client {
        /// An IPv4 address in its IPv6 form is the IPv4 address.
        address: SocketAddr,
        /// Whether the client's own connection is known to use TLS.
        over_tls: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderMistake {
    /// No header of the protocol begins like this, or it contradicts itself.
    Malformed,
    /// Longer than the protocol allows, or than the gateway takes.
    TooLong,
}

/// Looks at the bytes of a header that have arrived.
pub fn read_proxy_header(bytes: &[u8]) -> Result<HeaderProgress, HeaderMistake> {
    match bytes.first() {
        None => Ok(HeaderProgress::Needs(VERSION_AND_COMMAND)),
        Some(b'P') => read_line(bytes),
        Some(_) => read_binary(bytes),
    }
}

/// Version 1, a line of text.
fn read_line(bytes: &[u8]) -> Result<HeaderProgress, HeaderMistake> {
    let begins = b"PROXY ".iter().zip(bytes).all(|(expected, byte)| expected == byte);
    if !begins {
        return Err(HeaderMistake::Malformed);
    }
    let has_end = bytes.ends_with(b"\n");
    match MAX_LINE_BYTES.checked_sub(bytes.len()) {
        None => return Err(HeaderMistake::TooLong),
        Some(0) if !has_end => return Err(HeaderMistake::TooLong),
        Some(more) if !has_end => return Ok(HeaderProgress::Needs(more)),
        Some(_) => {}
    }
    // Rust's numbers may have a sign.
    if bytes.contains(&b'+') {
        return Err(HeaderMistake::Malformed);
    }
    let header = v1::Header::try_from(bytes).map_err(|_| HeaderMistake::Malformed)?;
    if header.header.len() != bytes.len() {
        return Err(HeaderMistake::Malformed);
    }
    let source = match header.addresses {
        v1::Addresses::Unknown => return Ok(HeaderProgress::Complete(ProxyHeader::Local)),
        v1::Addresses::Tcp4(addresses) => {
            SocketAddr::from((addresses.source_address, addresses.source_port))
        }
        v1::Addresses::Tcp6(addresses) => {
            SocketAddr::from((addresses.source_address, addresses.source_port))
        }
    };
    Ok(HeaderProgress::Complete(client(source, false)))
}

/// Version 2.
fn read_binary(bytes: &[u8]) -> Result<HeaderProgress, HeaderMistake> {
    let prefix = v2::PROTOCOL_PREFIX;
    let known = bytes.len().min(prefix.len());
    if bytes[..known] != prefix[..known] {
        return Err(HeaderMistake::Malformed);
    }
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else {
        return Ok(HeaderProgress::Needs(FIXED_BYTES - bytes.len()));
    };
    let rest = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if rest > MAX_REST_BYTES {
        return Err(HeaderMistake::TooLong);
    }
    match (FIXED_BYTES + rest).checked_sub(bytes.len()) {
        None => return Err(HeaderMistake::Malformed),
        Some(0) => {}
        Some(more) => return Ok(HeaderProgress::Needs(more)),
    }
    // Its family and its addresses need not even be valid.
    if fixed[VERSION_AND_COMMAND] == LOCAL {
        return Ok(HeaderProgress::Complete(ProxyHeader::Local));
    }
    let header = v2::Header::try_from(bytes).map_err(|_| HeaderMistake::Malformed)?;
    Ok(HeaderProgress::Complete(read_addresses(&header, bytes)?))
}

fn read_addresses(header: &v2::Header<'_>, bytes: &[u8]) -> Result<ProxyHeader, HeaderMistake> {
    let source = match header.addresses {
        // What follows has no form that is known.
        v2::Addresses::Unspecified => return Ok(ProxyHeader::Local),
        _ if header.protocol != Protocol::Stream => return Err(HeaderMistake::Malformed),
        v2::Addresses::IPv4(addresses) => {
            Some(SocketAddr::from((addresses.source_address, addresses.source_port)))
        }
        v2::Addresses::IPv6(addresses) => {
            Some(SocketAddr::from((addresses.source_address, addresses.source_port)))
        }
        // A client on the load balancer's own machine.
        v2::Addresses::Unix(_) => None,
    };
    let mut over_tls = false;
    let mut place = bytes.len() - header.tlv_bytes().len();
    for field in header.tlvs() {
        let field = field.map_err(|_| HeaderMistake::Malformed)?;
        place += FIELD_HEAD_BYTES;
        match field.kind {
            CRC32C => check_sum(bytes, place, &field.value)?,
            SSL => {
                let flags = field.value.first().ok_or(HeaderMistake::Malformed)?;
                over_tls = flags & CLIENT_SSL != 0;
            }
            _ => {}
        }
        place += field.len();
    }
    Ok(source.map_or(ProxyHeader::Local, |source| client(source, over_tls)))
}

fn client(source: SocketAddr, over_tls: bool) -> ProxyHeader {
    let address = SocketAddr::new(source.ip().to_canonical(), source.port());
    ProxyHeader::Client { address, over_tls }
}

/// Compares the checksum of a header, which has it at `place`. It is calculated with zeros there.
fn check_sum(header: &[u8], place: usize, sum: &[u8]) -> Result<(), HeaderMistake> {
    let sum: [u8; 4] = sum.try_into().map_err(|_| HeaderMistake::Malformed)?;
    let is_of_sum = |index: usize| (place..place + sum.len()).contains(&index);
    let bytes = header.iter().enumerate();
    let calculated = crc32c(bytes.map(|(index, byte)| if is_of_sum(index) { 0 } else { *byte }));
    match calculated == u32::from_be_bytes(sum) {
        true => Ok(()),
        false => Err(HeaderMistake::Malformed),
    }
}

/// The checksum with Castagnoli's polynomial (RFC 3720 appendix B.4), bit by bit: it is for one header of a connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| match sum & 1 {
            0 => sum >> 1,
            _ => (sum >> 1) ^ POLYNOMIAL,
        })
    })
}

#[cfg(test)]
mod tests;
