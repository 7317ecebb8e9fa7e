use std::net::{Ipv4Addr, Ipv6Addr};

use ppp::v2::{Addresses, Builder, Command, Version};
use proptest::prelude::*;

use super::*;

const V4: [&str; 2] = ["203.0.113.7:51000", "192.0.2.1:443"];

fn local() -> Result<HeaderProgress, HeaderMistake> {
    Ok(HeaderProgress::Complete(ProxyHeader::Local))
}

fn named(address: &str, over_tls: bool) -> Result<HeaderProgress, HeaderMistake> {
    let address = address.parse().unwrap();
    Ok(HeaderProgress::Complete(ProxyHeader::Client { address, over_tls }))
}

/// A header of version 2 with the bytes of the version and command, and of the family and protocol.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [v2::PROTOCOL_PREFIX, &[command, family], &length, rest].concat()
}

/// The addresses of a client and a server over IPv4.
fn v4() -> Vec<u8> {
    let [client, server] = [Ipv4Addr::new(203, 0, 113, 7), Ipv4Addr::new(192, 0, 2, 1)];
    [&client.octets()[..], &server.octets(), &51000_u16.to_be_bytes(), &443_u16.to_be_bytes()]
        .concat()
}

fn v6(client: &str) -> Vec<u8> {
    let client: Ipv6Addr = client.parse().unwrap();
    let ports = [51000_u16.to_be_bytes(), 443_u16.to_be_bytes()].concat();
    [&client.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &ports].concat()
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

fn with_fields(fields: &[u8]) -> Vec<u8> {
    binary(0x21, 0x11, &[v4(), fields.to_vec()].concat())
}

#[test]
fn lines_name_the_client() {
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    assert_eq!(longest.len(), MAX_LINE_BYTES);
    for (line, expected) in [
        ("PROXY TCP4 203.0.113.7 192.0.2.1 51000 443\r\n", named("203.0.113.7:51000", false)),
        ("PROXY TCP6 2001:db8::7 ::1 51000 443\r\n", named("[2001:db8::7]:51000", false)),
        ("PROXY TCP6 ::ffff:203.0.113.7 ::1 0 65535\r\n", named("203.0.113.7:0", false)),
        ("PROXY UNKNOWN\r\n", local()),
        ("PROXY UNKNOWN 203.0.113.7 192.0.2.1 51000 443\r\n", local()),
        (&longest, local()),
    ] {
        assert_eq!(read_proxy_header(line.as_bytes()), expected, "{line}");
    }
}

#[test]
fn other_lines_are_malformed() {
    for line in [
        "GET / HTTP/1.1\r\n",
        "PROXY\r\n",
        "PROXY \r\n",
        "proxy TCP4 203.0.113.7 192.0.2.1 51000 443\r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000 443\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000 443 \r\n",
        "PROXY TCP4  203.0.113.7 192.0.2.1 51000 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 +51000 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 051000 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 -1 443\r\n",
        "PROXY TCP4 203.0.113.256 192.0.2.1 51000 443\r\n",
        "PROXY TCP4 2001:db8::7 ::1 51000 443\r\n",
        "PROXY TCP6 203.0.113.7 192.0.2.1 51000 443\r\n",
        "PROXY TCP6 2001:db8::7%eth0 ::1 51000 443\r\n",
        "PROXY UDP4 203.0.113.7 192.0.2.1 51000 443\r\n",
        "PROXY TCP4 203.0.113.7\r192.0.2.1 51000 443\r\n",
        "PROXY UNKNOWN \u{e4}\r \r\n",
    ] {
        assert_eq!(read_proxy_header(line.as_bytes()), Err(HeaderMistake::Malformed), "{line:?}");
    }
    assert_eq!(read_proxy_header(b"PROXY UNKNOWN \xff\r\n"), Err(HeaderMistake::Malformed));
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(93));
    assert_eq!(read_proxy_header(endless.as_bytes()), Err(HeaderMistake::TooLong));
    assert_eq!(read_proxy_header(format!("{endless}\r\n").as_bytes()), Err(HeaderMistake::TooLong));
}

#[test]
fn binary_headers_name_the_client() {
    let unix = [[b'a'; 108], [b'b'; 108]].concat();
    for (header, expected) in [
        (binary(0x21, 0x11, &v4()), named(V4[0], false)),
        (binary(0x21, 0x21, &v6("2001:db8::7")), named("[2001:db8::7]:51000", false)),
        (binary(0x21, 0x21, &v6("::ffff:203.0.113.7")), named(V4[0], false)),
        (binary(0x21, 0x31, &unix), local()),
        (binary(0x21, 0x00, b""), local()),
        (binary(0x21, 0x00, b"anything"), local()),
        // A load balancer's own connection, whatever the rest says.
        (binary(0x20, 0x00, b""), local()),
        (binary(0x20, 0x11, b""), local()),
        (binary(0x20, 0x11, &v4()), local()),
        (binary(0x20, 0xff, b"?"), local()),
        (with_fields(&field(0x04, b"")), named(V4[0], false)),
        (with_fields(&field(0xea, b"vpce-1")), named(V4[0], false)),
        (with_fields(&field(0x20, &[1, 0, 0, 0, 0])), named(V4[0], true)),
        (with_fields(&field(0x20, &[6, 0, 0, 0, 0])), named(V4[0], false)),
    ] {
        assert_eq!(read_proxy_header(&header), expected, "{header:x?}");
    }
}

#[test]
fn other_binary_headers_are_malformed() {
    for header in [
        b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
        b"\0".to_vec(),
        binary(0x11, 0x11, &v4()),
        binary(0x22, 0x11, &v4()),
        binary(0x21, 0x12, &v4()),
        binary(0x21, 0x10, &v4()),
        binary(0x21, 0x41, &v4()),
        binary(0x21, 0x13, &v4()),
        binary(0x21, 0x11, &v4()[..11]),
        binary(0x21, 0x21, &v4()),
        binary(0x21, 0x31, &v6("::1")),
        with_fields(&[0x04]),
        with_fields(&[0x04, 0, 9, 1]),
        with_fields(&field(0x20, b"")),
        with_fields(&field(CRC32C, &[0; 4])),
        with_fields(&field(CRC32C, &[0; 3])),
        [binary(0x21, 0x11, &v4()), vec![0]].concat(),
    ] {
        assert_eq!(read_proxy_header(&header), Err(HeaderMistake::Malformed), "{header:x?}");
    }
    let too_long = binary(0x21, 0x11, &[0; MAX_REST_BYTES + 1]);
    assert_eq!(read_proxy_header(&too_long[..FIXED_BYTES]), Err(HeaderMistake::TooLong));
    let largest = binary(0x21, 0x11, &[v4(), field(0x04, &[0; MAX_REST_BYTES - 15])].concat());
    assert_eq!(read_proxy_header(&largest), named(V4[0], false));
}

#[test]
fn a_checksum_must_be_right() {
    // RFC 3720 appendix B.4.
    assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
    let zeros = with_fields(&[field(CRC32C, &[0; 4]), field(0x04, b"xyz")].concat());
    let sum = crc32c(zeros.iter().copied()).to_be_bytes();
    let right = with_fields(&[field(CRC32C, &sum), field(0x04, b"xyz")].concat());
    assert_eq!(read_proxy_header(&right), named(V4[0], false));
    let other = with_fields(&[field(CRC32C, &sum), field(0x04, b"xyZ")].concat());
    assert_eq!(read_proxy_header(&other), Err(HeaderMistake::Malformed));
}

/// Reads `bytes` in pieces of at most `size`, as a connection does: nothing behind a line's end.
fn read_in_pieces(bytes: &[u8], size: usize) -> (Result<ProxyHeader, HeaderMistake>, usize) {
    let mut taken = 0;
    loop {
        let most = match read_proxy_header(&bytes[..taken]) {
            Ok(HeaderProgress::Complete(header)) => return (Ok(header), taken),
            Ok(HeaderProgress::Needs(most)) => most.min(size),
            Err(mistake) => return (Err(mistake), taken),
        };
        assert!(most > 0);
        let next = &bytes[taken..bytes.len().min(taken + most)];
        assert!(!next.is_empty(), "a complete header is not enough");
        let end = next.iter().position(|byte| bytes[0] == b'P' && *byte == b'\n');
        taken += end.map_or(next.len(), |end| end + 1);
    }
}

proptest! {
    #[test]
    fn pieces_are_read_like_the_whole_and_nothing_behind_them(
        client in any::<([u8; 16], u16)>(), behind in "(PROXY |\r\n|[a-z]){0,9}", size in 1_usize..99,
        form in 0_usize..3,
    ) {
        let client = SocketAddr::from((Ipv6Addr::from(client.0), client.1));
        let server = SocketAddr::from((Ipv6Addr::LOCALHOST, 443));
        let header = match form {
            0 => format!("PROXY TCP6 {} ::1 {} 443\r\n", client.ip(), client.port()).into_bytes(),
            1 => b"PROXY UNKNOWN\r\n".to_vec(),
            _ => {
                let addresses = Addresses::from((client, server));
                let command = Version::Two | Command::Proxy;
                Builder::with_addresses(command, Protocol::Stream, addresses).build().unwrap()
            }
        };
        let (read, taken) = read_in_pieces(&[&header, behind.as_bytes()].concat(), size);
        prop_assert_eq!(taken, header.len());
        let address = SocketAddr::new(client.ip().to_canonical(), client.port());
        let expected = match form {
            1 => ProxyHeader::Local,
            _ => ProxyHeader::Client { address, over_tls: false },
        };
        prop_assert_eq!(read, Ok(expected));
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), start in 0_usize..3,
    ) {
        let start = [&b""[..], b"PROXY ", v2::PROTOCOL_PREFIX][start];
        let _ = read_proxy_header(&[start, &bytes[..]].concat());
    }
}
