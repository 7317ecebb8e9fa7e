//! Answers of a loopback server, encoded by the libraries' own encoders and by Node.js.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http_body_util::Full;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::http_client::{self, HttpClient};

const TEXT: &str = "data: one\n\ndata: two\n\n";

/// Requests a body that the server sends in these pieces, each as one chunk.
async fn answer(encoding: &str, pieces: Vec<Vec<u8>>) -> DecodedBody {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let head = format!(
        "HTTP/1.1 200 OK\r\n{encoding}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(head.as_bytes()).await.unwrap();
        for piece in pieces {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
            stream.write_all(&chunk).await?;
        }
        stream.write_all(b"0\r\n\r\n").await
    });
    let tls = http_client::tls_config(false).unwrap();
    let client: HttpClient = http_client::new(&tls, Duration::from_secs(5), 0);
    let request = Request::get(url).body(Full::default()).unwrap();
    DecodedBody::new(client.request(request).await.unwrap())
}

fn header(encoding: &str) -> String {
    format!("Content-Encoding: {encoding}\r\n")
}

async fn decoded(encoding: &str, body: &[u8], piece: usize) -> Result<String, BodyError> {
    let pieces = body.chunks(piece).map(<[u8]>::to_vec).collect();
    let body = answer(&header(encoding), pieces).await.collect(1 << 20).await;
    body.map(|body| String::from_utf8(body.to_vec()).unwrap())
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
    digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 3).unwrap()
}

/// The beginning of a body in each encoding, flushed after its first event.
fn flushed() -> [(&'static str, Vec<u8>); 5] {
    let event = b"data: one\n\n";
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(event).unwrap();
    gzip.flush().unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(event).unwrap();
    zlib.flush().unwrap();
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
    raw.write_all(event).unwrap();
    raw.flush().unwrap();
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    zstd.write_all(event).unwrap();
    zstd.flush().unwrap();
    [
        ("gzip", std::mem::take(gzip.get_mut())),
        ("deflate", std::mem::take(zlib.get_mut())),
        ("deflate", std::mem::take(raw.get_mut())),
        ("zstd", std::mem::take(zstd.get_mut())),
        ("br", brotli()[0].clone()),
    ]
}

/// [`TEXT`], flushed after the first event.
fn brotli() -> [Vec<u8>; 2] {
    [hex("0b0580646174613a206f6e650a0a"), hex("a100805f5ae18dee4e11a24a04600b")]
}

#[tokio::test]
async fn each_encoding_is_decoded_in_pieces_of_any_size() {
    for (encoding, body) in [
        ("identity", TEXT.as_bytes().to_vec()),
        ("gzip", gzip(TEXT.as_bytes())),
        ("X-GZip", gzip(TEXT.as_bytes())),
        ("identity, gzip", gzip(TEXT.as_bytes())),
        ("gzip", [gzip(b"data: one\n\n"), gzip(b"data: two\n\n")].concat()),
        ("deflate", zlib(TEXT.as_bytes())),
        ("deflate", raw_deflate(TEXT.as_bytes())),
        ("br", brotli().concat()),
        ("zstd", zstd(TEXT.as_bytes())),
        ("zstd", [zstd(b"data: one\n\n"), zstd(b"data: two\n\n")].concat()),
    ] {
        for piece in [1, 7, body.len()] {
            assert_eq!(decoded(encoding, &body, piece).await.as_deref(), Ok(TEXT), "{encoding}");
        }
    }
}

#[tokio::test]
async fn what_is_flushed_arrives_before_the_end() {
    for (encoding, first) in flushed() {
        let mut body = answer(&header(encoding), vec![first]).await;
        let mut text = Vec::new();
        while text.len() < 11 {
            text.extend_from_slice(&body.next().await.expect(encoding).expect(encoding));
        }
        assert_eq!(text, b"data: one\n\n", "{encoding}");
    }
}

#[tokio::test]
async fn what_came_before_a_fault_is_not_lost() {
    for (encoding, first) in flushed() {
        for pieces in
            [vec![[&first[..], &[0xff; 40]].concat()], vec![first.clone(), vec![0xff; 40]]]
        {
            let mut body = answer(&header(encoding), pieces).await;
            let mut text = Vec::new();
            let fault = loop {
                match body.next().await.expect(encoding) {
                    Ok(part) => text.extend_from_slice(&part),
                    Err(fault) => break fault,
                }
            };
            assert_eq!(text, b"data: one\n\n", "{encoding}");
            assert!(matches!(fault, BodyError::Corrupt(_)), "{encoding}: {fault:?}");
            assert_eq!(body.next().await, None, "{encoding}");
        }
    }
}

#[tokio::test]
async fn a_transfer_coding_is_taken_off() {
    let body = answer("Transfer-Encoding: gzip\r\n", vec![gzip(TEXT.as_bytes())]).await;
    assert_eq!(body.collect(1 << 20).await.unwrap(), TEXT);
    let body = answer("Content-Encoding: gz\u{e4}p\r\n", vec![gzip(TEXT.as_bytes())]).await;
    assert!(matches!(body.collect(1 << 20).await, Err(BodyError::Encoding(_))));
}

#[tokio::test]
async fn an_empty_body_has_no_encoding() {
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        assert_eq!(decoded(encoding, b"", 1).await.as_deref(), Ok(""), "{encoding}");
    }
}

#[tokio::test]
async fn a_long_body_is_decoded_to_its_end() {
    // Longer than any buffer between here and there, and hard to compress.
    let text: String =
        (0..50_000_u64).map(|n| format!("{:x} ", n.wrapping_mul(0x9e37_79b9))).collect();
    for (encoding, body) in [("gzip", gzip(text.as_bytes())), ("zstd", zstd(text.as_bytes()))] {
        let body = answer(&header(encoding), vec![body]).await.collect(8 << 20).await;
        assert!(body.unwrap() == text.as_bytes(), "{encoding}");
    }
}

#[tokio::test]
async fn a_bomb_is_not_inflated() {
    let zeros = vec![b'a'; 64 << 20];
    // Node's brotli of 64 MiB of the same letter, which takes 103 bytes.
    let brotli = hex(
        "cbffff3ff825c2e2b14020f7fe8fffff7ff04b00c4611180eefd1fffffffe0970088c30200ddfb3ffeffffc12f0110870500baf77ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffcbffff3ffc1200715800a07bff07",
    );
    for (encoding, body) in
        [("gzip", gzip(&zeros)), ("deflate", zlib(&zeros)), ("zstd", zstd(&zeros)), ("br", brotli)]
    {
        let error = decoded(encoding, &body, body.len()).await;
        assert_eq!(error, Err(BodyError::TooLarge), "{encoding}");
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_an_error() {
    for encoding in ["compress", "exi", "gzip, gzip", "gzip, br", "aes128gcm"] {
        let error = decoded(encoding, TEXT.as_bytes(), 7).await;
        assert_eq!(error, Err(BodyError::Encoding(encoding.to_owned())));
    }
    let cut = |body: Vec<u8>| body[..body.len() - 5].to_vec();
    for (encoding, body) in [
        ("gzip", TEXT.as_bytes().to_vec()),
        ("br", b"\xff\xff\xff\xff\xff".to_vec()),
        ("zstd", TEXT.as_bytes().to_vec()),
        ("gzip", cut(gzip(TEXT.as_bytes()))),
        ("deflate", cut(zlib(TEXT.as_bytes()))),
        ("br", cut(brotli().concat())),
        ("zstd", cut(zstd(TEXT.as_bytes()))),
    ] {
        let error = decoded(encoding, &body, body.len()).await;
        assert!(matches!(error, Err(BodyError::Corrupt(_))), "{encoding}: {error:?}");
    }
}
