use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls::{self, Certificate, MinVersion, ServerCertificates};

type Near = ClientTls<DuplexStream>;

/// Both ends of a connection through a pipe of `capacity` bytes. The client writes `first` at once.
async fn connected(capacity: usize, first: &[u8]) -> (Near, TlsStream<DuplexStream>) {
    let file = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/server_tls");
        std::fs::read(format!("{folder}/{name}")).expect("a file")
    };
    let text = |name: &str| String::from_utf8(file(name)).expect("PEM");
    let certificate =
        Certificate::load(&text("localhost.pem"), &text("localhost.key"), 1_800_000_000).unwrap();
    let certificates = ServerCertificates::new(vec![certificate]);
    let server = certificates.server_config(MinVersion::Tls12, &[], None, None, None).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&file("ca.pem")).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (mut near, far) = tokio::io::duplex(capacity);
    let connecting = async {
        let connector = TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from("localhost").unwrap();
        let mut far = connector.connect(name, far).await.unwrap();
        far.write_all(first).await.unwrap();
        far.flush().await.unwrap();
        far
    };
    let accepting = async { tls::accept(&mut near, server).await.unwrap() };
    let (far, accepted) = tokio::join!(connecting, accepting);
    (ClientTls::new(near, accepted.records, accepted.early), far)
}

#[tokio::test]
async fn an_idle_connection_holds_nothing() {
    let (mut near, mut far) = connected(1 << 20, b"first").await;
    let mut read = [0; 5];
    near.read_exact(&mut read).await.unwrap();
    near.write_all(b"second").await.unwrap();
    far.read_exact(&mut [0; 6]).await.unwrap();
    assert_eq!((near.held_bytes(), near.unsent_bytes()), (0, 0));
    let capacities = [near.partial.capacity(), near.opened.capacity(), near.unsent.capacity()];
    assert_eq!(capacities, [0; 3]);
    let size = size_of::<ClientTls>();
    assert!(size <= 264, "{size}");
}

#[tokio::test]
async fn what_a_reader_has_no_room_for_is_kept() {
    let message: Vec<u8> = (0..40_000).map(|number| number as u8).collect();
    let (mut near, far) = connected(1 << 20, &message).await;
    let mut read = Vec::new();
    let mut buffer = [0; 7];
    while read.len() < message.len() {
        let length = near.read(&mut buffer).await.unwrap();
        read.extend_from_slice(&buffer[..length]);
        assert!(near.held_bytes() <= 3 * MAX_RECORD, "{}", near.held_bytes());
    }
    assert!(read == message);
    assert_eq!(near.held_bytes(), 0);
    drop(far);
}

#[tokio::test]
async fn a_byte_is_seen_without_being_taken() {
    let (mut near, mut far) = connected(1 << 20, b"").await;
    let peeked = std::future::poll_fn(|cx| Poll::Ready(near.poll_peek(cx).is_pending())).await;
    assert!(peeked);
    far.write_all(b"xy").await.unwrap();
    far.flush().await.unwrap();
    for _ in 0..2 {
        let peeked = std::future::poll_fn(|cx| near.poll_peek(cx)).await;
        assert_eq!(peeked.unwrap(), 1);
    }
    let mut read = [0; 8];
    assert_eq!(near.read(&mut read).await.unwrap(), 2);
    far.shutdown().await.unwrap();
    assert_eq!(std::future::poll_fn(|cx| near.poll_peek(cx)).await.unwrap(), 0);
}

#[tokio::test]
async fn what_the_kernel_does_not_take_is_bounded_and_goes_first() {
    let (mut near, mut far) = connected(1000, b"").await;
    let message = vec![7; 100_000];
    let mut taken = 0;
    std::future::poll_fn(|cx| {
        while taken < message.len() {
            match Pin::new(&mut near).poll_write(cx, &message[taken..]) {
                Poll::Ready(written) => taken += written.unwrap(),
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    })
    .await;
    // One record, of which the pipe has a part.
    assert_eq!(taken, MAX_PLAINTEXT);
    assert!((1..=MAX_RECORD).contains(&near.unsent_bytes()), "{}", near.unsent_bytes());
    let mut read = Vec::new();
    let reading = async {
        far.read_to_end(&mut read).await.unwrap();
    };
    let writing = async {
        near.write_all(&message[taken..]).await.unwrap();
        near.shutdown().await.unwrap();
        near
    };
    let ((), near) = tokio::join!(reading, writing);
    assert!(read == message, "{} bytes", read.len());
    assert_eq!(near.unsent_bytes(), 0);
}

#[tokio::test]
async fn slices_leave_in_one_record() {
    let (mut near, mut far) = connected(1 << 20, b"").await;
    let slices = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
    let before = near.records_sealed();
    let written =
        std::future::poll_fn(|cx| Pin::new(&mut near).poll_write_vectored(cx, &slices)).await;
    assert_eq!((written.unwrap(), near.records_sealed() - before), (7, 1));
    let mut read = [0; 7];
    far.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"one two");
}

#[tokio::test]
async fn an_end_is_orderly_or_an_error() {
    let (mut near, mut far) = connected(1 << 20, b"last").await;
    far.shutdown().await.unwrap();
    let mut read = Vec::new();
    near.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"last");
    // This side's half is open.
    near.write_all(b"answer").await.unwrap();
    far.read_exact(&mut [0; 6]).await.unwrap();

    let (mut near, far) = connected(1 << 20, b"cut").await;
    drop(far.into_inner());
    let mut read = Vec::new();
    let error = near.read_to_end(&mut read).await.unwrap_err();
    assert_eq!((read.as_slice(), error.kind()), (&b"cut"[..], io::ErrorKind::UnexpectedEof));
}

#[tokio::test]
async fn a_broken_record_ends_it_with_an_alert() {
    let (mut near, far) = connected(1 << 20, b"good").await;
    let (mut pipe, mut client) = far.into_inner();
    pipe.write_all(&[&[23, 3, 3, 0, 40][..], &[9; 40]].concat()).await.unwrap();
    let mut read = Vec::new();
    near.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(read, b"good");
    near.write_all(b"more").await.unwrap_err();
    near.shutdown().await.unwrap();
    drop(near);
    let mut sealed = Vec::new();
    pipe.read_to_end(&mut sealed).await.unwrap();
    client.read_tls(&mut &sealed[..]).unwrap();
    let error = client.process_new_packets().unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
}
