use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedCipherSuite, version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Accepted, HandshakeFailure, accept};
use crate::tls::{Certificate, MinVersion, Opened, ServerCertificates, Tickets, record_length};

fn server(name: &str, min_version: MinVersion) -> Arc<rustls::ServerConfig> {
    let file = |extension: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/server_tls");
        std::fs::read_to_string(format!("{folder}/{name}.{extension}")).expect("a file")
    };
    let certificate = Certificate::load(&file("pem"), &file("key"), 1_800_000_000).unwrap();
    let certificates = ServerCertificates::new(vec![certificate]);
    let tickets = Tickets::new().unwrap();
    certificates.server_config(min_version, &[b"http/1.1"], Some(&tickets), None, None).unwrap()
}

/// A client that knows only these cipher suites.
fn client(suites: &[SupportedCipherSuite], protocols: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/server_tls/ca.pem");
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider =
        CryptoProvider { cipher_suites: suites.to_vec(), ..aws_lc_rs::default_provider() };
    let version = match suites[0] {
        SupportedCipherSuite::Tls12(_) => &version::TLS12,
        SupportedCipherSuite::Tls13(_) => &version::TLS13,
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

type Connected =
    (Result<Accepted, HandshakeFailure>, DuplexStream, std::io::Result<TlsStream<DuplexStream>>);

/// A pipe of which at most `most` bytes are read at once.
struct Trickle<'a> {
    pipe: &'a mut DuplexStream,
    most: usize,
}

impl AsyncRead for Trickle<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = vec![0; buffer.remaining().min(self.most)];
        let mut part = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut *self.pipe).poll_read(cx, &mut part))?;
        buffer.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Trickle<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.pipe).poll_shutdown(cx)
    }
}

/// Connects. The server reads at most `most` bytes at once. The pipe has room for the tickets that a client of TLS 1.3
/// reads after its handshake.
async fn connect_by(
    server: &Arc<rustls::ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &'static str,
    most: usize,
) -> Connected {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let connector = TlsConnector::from(Arc::clone(client));
    let connecting = connector.connect(ServerName::try_from(name).unwrap(), far);
    let accepting = async {
        let mut trickle = Trickle { pipe: &mut near, most };
        let accepted = accept(&mut trickle, Arc::clone(server)).await;
        if accepted.is_err() {
            // The client reads the alert, and then the end.
            near.shutdown().await.unwrap();
        }
        accepted
    };
    let (accepted, connected) = tokio::join!(accepting, connecting);
    (accepted, near, connected)
}

async fn connect(
    server: &Arc<rustls::ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &'static str,
) -> Connected {
    connect_by(server, client, name, usize::MAX).await
}

/// All suites of both versions.
fn suites() -> Vec<(&'static str, SupportedCipherSuite)> {
    vec![
        ("1.3", cipher_suite::TLS13_AES_128_GCM_SHA256),
        ("1.3", cipher_suite::TLS13_AES_256_GCM_SHA384),
        ("1.3", cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
        ("1.2", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ("1.2", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        ("1.2", cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ]
}

/// Reads whole records and opens them until `done`.
async fn read_until(
    accepted: &mut Accepted,
    near: &mut DuplexStream,
    done: impl Fn(&[u8], bool) -> bool,
) -> (Vec<u8>, Vec<u8>) {
    let (mut opened, mut answers, mut closed) = (Vec::new(), Vec::new(), false);
    let mut sealed = std::mem::take(&mut accepted.early);
    while !done(&opened, closed) {
        match record_length(&sealed).unwrap() {
            Some(length) if length <= sealed.len() => {
                let mut record: Vec<u8> = sealed.drain(..length).collect();
                match accepted.records.open(&mut record, &mut answers).unwrap() {
                    Opened::Data(data) => opened.extend_from_slice(data),
                    Opened::Nothing => {}
                    Opened::Closed => closed = true,
                }
            }
            _ => assert_ne!(near.read_buf(&mut sealed).await.unwrap(), 0, "an end"),
        }
    }
    accepted.early = sealed;
    (opened, answers)
}

#[tokio::test]
async fn both_sides_read_what_the_other_writes() {
    let server = server("localhost", MinVersion::Tls12);
    for (version, suite) in suites() {
        for most in [1, 7, usize::MAX] {
            let client = client(&[suite], &["http/1.1"]);
            let (accepted, mut near, connected) =
                connect_by(&server, &client, "localhost", most).await;
            let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
            assert_eq!(accepted.version, version);
            assert_eq!(accepted.protocol.as_deref(), Some(&b"http/1.1"[..]));
            let large = vec![7; 40_000];
            let (to_server, to_client) = (
                async {
                    connected.write_all(b"first").await.unwrap();
                    connected.write_all(&large).await.unwrap();
                    connected.flush().await.unwrap();
                    let mut read = vec![0; 20_000];
                    connected.read_exact(&mut read).await.unwrap();
                    connected.shutdown().await.unwrap();
                    // The server's `close_notify` is an orderly end.
                    assert_eq!(connected.read(&mut [0]).await.unwrap(), 0);
                    read
                },
                async {
                    let (opened, _) =
                        read_until(&mut accepted, &mut near, |opened, _| opened.len() == 40_005)
                            .await;
                    assert_eq!((&opened[..5], &opened[5..]), (&b"first"[..], &large[..]));
                    let mut sealed = Vec::new();
                    let parts: [&[u8]; 3] = [&[1; 4000], &[], &[2; 6000]];
                    accepted.records.seal(parts, &mut sealed).unwrap();
                    accepted.records.seal([&[3; 10_000][..]], &mut sealed).unwrap();
                    near.write_all(&sealed).await.unwrap();
                    read_until(&mut accepted, &mut near, |_, closed| closed).await;
                    let mut sealed = Vec::new();
                    accepted.records.seal_close(&mut sealed);
                    accepted.records.seal_close(&mut sealed);
                    assert!(accepted.records.seal([&b"x"[..]], &mut sealed).is_err());
                    near.write_all(&sealed).await.unwrap();
                },
            );
            let (read, ()) = tokio::join!(to_server, to_client);
            assert_eq!(read, [vec![1; 4000], vec![2; 6000], vec![3; 10_000]].concat(), "{suite:?}");
        }
    }
}

#[tokio::test]
async fn sessions_are_resumed_in_both_versions() {
    let server = server("localhost", MinVersion::Tls12);
    for suite in [suites()[0].1, suites()[3].1] {
        let client = client(&[suite], &[]);
        let mut resumed = Vec::new();
        for _ in 0..2 {
            let (accepted, mut near, connected) = connect(&server, &client, "localhost").await;
            let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
            resumed.push(accepted.is_resumed);
            assert_eq!(accepted.protocol, None);
            let mut sealed = Vec::new();
            accepted.records.seal([&b"x"[..]], &mut sealed).unwrap();
            near.write_all(&sealed).await.unwrap();
            // The client takes the tickets when it reads.
            connected.read_exact(&mut [0]).await.unwrap();
        }
        assert_eq!(resumed, [false, true], "{suite:?}");
    }
}

#[tokio::test]
async fn clients_that_share_nothing_are_refused() {
    let (any, only_13) =
        (server("localhost", MinVersion::Tls12), server("localhost", MinVersion::Tls13));
    let tls12 = client(&[suites()[3].1], &[]);
    let (accepted, _, connected) = connect(&only_13, &tls12, "localhost").await;
    assert!(matches!(accepted, Err(HandshakeFailure::NothingShared(_))), "{accepted:?}");
    assert!(connected.unwrap_err().to_string().contains("ProtocolVersion"));
    let other_protocol = client(&[suites()[0].1], &["acme-tls/1"]);
    let (accepted, _, connected) = connect(&any, &other_protocol, "localhost").await;
    assert!(matches!(accepted, Err(HandshakeFailure::NothingShared(_))), "{accepted:?}");
    assert!(connected.unwrap_err().to_string().contains("NoApplicationProtocol"));
    let rsa_only = client(&[cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256], &[]);
    let (accepted, _, _) = connect(&any, &rsa_only, "localhost").await;
    assert!(matches!(accepted, Err(HandshakeFailure::NothingShared(_))), "{accepted:?}");
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_says_so() {
    let server = server("localhost", MinVersion::Tls12);
    for suite in [suites()[0].1, suites()[3].1] {
        let (accepted, _, connected) = connect(&server, &client(&[suite], &[]), "other.test").await;
        assert!(matches!(accepted, Err(HandshakeFailure::Alert(_))), "{accepted:?}");
        assert!(connected.is_err());
    }
}

/// What becomes of a client that sends these bytes and then ends its half.
async fn sent(bytes: &[u8]) -> (Result<Accepted, HandshakeFailure>, Vec<u8>) {
    sent_to(&server("localhost", MinVersion::Tls12), bytes).await
}

async fn sent_to(
    server: &Arc<rustls::ServerConfig>,
    bytes: &[u8],
) -> (Result<Accepted, HandshakeFailure>, Vec<u8>) {
    let (mut near, mut far) = tokio::io::duplex(1 << 20);
    far.write_all(bytes).await.unwrap();
    far.shutdown().await.unwrap();
    let accepted = accept(&mut near, Arc::clone(server)).await;
    drop(near);
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await.unwrap();
    (accepted, answer)
}

#[tokio::test]
async fn strangers_are_told_apart() {
    let (accepted, answer) = sent(b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(matches!(accepted, Err(HandshakeFailure::PlainHttp)), "{accepted:?}");
    assert!(answer.is_empty());
    let (accepted, _) = sent(b"\0\x01\x02").await;
    assert!(matches!(accepted, Err(HandshakeFailure::NotTls)), "{accepted:?}");
    let (accepted, _) = sent(b"").await;
    assert!(matches!(accepted, Err(HandshakeFailure::Closed)), "{accepted:?}");
    // The beginning of a record.
    let (accepted, _) = sent(b"\x16\x03\x01\x00\xff\x01").await;
    assert!(matches!(accepted, Err(HandshakeFailure::Closed)), "{accepted:?}");
    // A record that is not a message.
    let (accepted, answer) = sent(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00").await;
    assert!(matches!(accepted, Err(HandshakeFailure::Protocol(_))), "{accepted:?}");
    assert_eq!(answer[0], 21, "an alert");
    // Application data, before there is a key.
    let (accepted, _) = sent(b"\x17\x03\x03\x00\x01\x00").await;
    assert!(matches!(accepted, Err(HandshakeFailure::NotTls)), "{accepted:?}");
    // A record longer than any.
    let (accepted, _) = sent(b"\x16\x03\x01\xff\xff\x01").await;
    assert!(matches!(accepted, Err(HandshakeFailure::Protocol(_))), "{accepted:?}");
}

#[tokio::test]
async fn a_message_that_never_ends_is_refused() {
    // A ClientHello of 16 MB, in records of 16 KiB.
    let mut bytes = Vec::new();
    for number in 0..64 {
        let mut payload = vec![0; 1 << 14];
        if number == 0 {
            payload[..4].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
        }
        bytes.extend([22, 3, 1, 0x40, 0]);
        bytes.extend(payload);
    }
    let (accepted, _) = sent(&bytes[..1 << 20]).await;
    assert!(matches!(accepted, Err(HandshakeFailure::Protocol(_))), "{accepted:?}");
}

#[tokio::test]
async fn keys_are_updated_in_both_directions() {
    let server = server("localhost", MinVersion::Tls13);
    for (_, suite) in &suites()[..3] {
        let client = client(&[*suite], &[]);
        let (accepted, mut near, connected) = connect(&server, &client, "localhost").await;
        let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
        for round in 0..3 {
            connected.get_mut().1.refresh_traffic_keys().unwrap();
            connected.write_all(b"after the update").await.unwrap();
            connected.flush().await.unwrap();
            let (opened, answers) =
                read_until(&mut accepted, &mut near, |opened, _| opened.len() == 16).await;
            assert_eq!(opened, b"after the update", "round {round}");
            // rustls asks for the keys of the other direction as well.
            assert!(!answers.is_empty());
            let mut sealed = answers;
            accepted.records.seal([&b"under a new key"[..]], &mut sealed).unwrap();
            near.write_all(&sealed).await.unwrap();
            let mut read = [0; 15];
            connected.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"under a new key");
        }
    }
}

#[tokio::test]
async fn a_changed_record_of_tls_13_is_not_opened() {
    let server = server("localhost", MinVersion::Tls13);
    let client = client(&[suites()[0].1], &[]);
    let (accepted, mut near, connected) = connect(&server, &client, "localhost").await;
    let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
    connected.write_all(b"data").await.unwrap();
    connected.flush().await.unwrap();
    let mut sealed = std::mem::take(&mut accepted.early);
    while record_length(&sealed).unwrap().is_none_or(|length| length > sealed.len()) {
        near.read_buf(&mut sealed).await.unwrap();
    }
    let mut answers = Vec::new();
    for index in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[index] ^= 1;
        let opened = accepted.records.open(&mut changed, &mut answers);
        assert!(opened.is_err(), "byte {index}: {opened:?}");
    }
    assert_eq!(accepted.records.open(&mut sealed, &mut answers), Ok(Opened::Data(b"data")));
}

/// Prefixes of a handshake, and handshakes of which a byte is changed, end in a failure and never in a panic.
#[tokio::test]
async fn broken_handshakes_fail() {
    let server = server("localhost", MinVersion::Tls12);
    for suite in [suites()[0].1, suites()[3].1] {
        let config = client(&[suite], &["http/1.1"]);
        let name = ServerName::try_from("localhost").unwrap();
        let mut hello = Vec::new();
        let mut connection = rustls::ClientConnection::new(config, name).unwrap();
        connection.write_tls(&mut hello).unwrap();
        for index in (0..64).chain((64..hello.len()).step_by(13)) {
            let (accepted, _) = sent_to(&server, &hello[..index]).await;
            assert!(accepted.is_err());
            let mut changed = hello.clone();
            changed[index] ^= 0xff;
            // The handshake goes on behind most changes, and then the client is gone.
            let (accepted, _) = sent_to(&server, &changed).await;
            assert!(accepted.is_err());
        }
        // Behind its hello, the client sends what is no message of a handshake.
        for rest in [
            &b"\x14\x03\x03\0\x01\x01"[..],
            b"\x15\x03\x03\0\x02\x02\x28",
            b"\x16\x03\x03\0\x04\x0e\0\0\0",
            b"\x17\x03\x03\0\x20",
            &[0x17; 64],
        ] {
            let (accepted, _) = sent_to(&server, &[&hello[..], rest, &[7; 40]].concat()).await;
            assert!(accepted.is_err());
        }
    }
}

#[tokio::test]
async fn a_client_without_a_trusted_certificate_is_told_so() {
    let file = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys");
        std::fs::read_to_string(format!("{folder}/{name}")).expect("a file")
    };
    let (chain, key) = (file("server_tls/localhost.pem"), file("server_tls/localhost.key"));
    let certificate = Certificate::load(&chain, &key, 1_800_000_000).unwrap();
    let certificates = ServerCertificates::new(vec![certificate]);
    let ca = file("server_tls/ca.pem");
    let server = certificates.server_config(MinVersion::Tls12, &[], None, Some(&ca), None).unwrap();
    for suite in [suites()[0].1, suites()[3].1] {
        let (accepted, _, _) = connect(&server, &client(&[suite], &[]), "localhost").await;
        assert!(matches!(accepted, Err(HandshakeFailure::ClientCertificate(_))), "{accepted:?}");
    }
}
