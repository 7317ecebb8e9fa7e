use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::super::{ClientListener, ClientTcp};
use super::*;

/// More than one turn reports.
const CLIENTS: usize = 3 * EVENTS + 1;

/// More than the kernel takes at once.
const BYTES: usize = 8 << 20;

fn on_a_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let in_time = async {
        tokio::task::spawn_local(watch_connections().unwrap());
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("in time");
    };
    LocalSet::new().block_on(&runtime, in_time);
}

fn listen() -> (ClientListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (ClientListener::new(listener).unwrap(), address)
}

async fn pair(listener: &ClientListener, address: SocketAddr) -> (ClientTcp, TcpStream) {
    let (accepted, peer) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (accepted.unwrap().0, peer.unwrap())
}

fn places() -> (usize, usize) {
    let poller = poller().unwrap();
    let (chunks, free) = (poller.chunks.borrow().len(), poller.free.borrow().len());
    (chunks * CHUNK, free)
}

#[test]
fn each_of_many_connections_is_woken_for_what_arrives() {
    on_a_thread(async {
        let (listener, address) = listen();
        let mut peers = Vec::new();
        for _ in 0..CLIENTS {
            let (mut ours, theirs) = pair(&listener, address).await;
            peers.push(theirs);
            tokio::task::spawn_local(async move {
                let mut byte = [0];
                while ours.read(&mut byte).await.unwrap() > 0 {
                    ours.write_all(&byte).await.unwrap();
                }
            });
        }
        for round in 0..3 {
            // All at once, so that they are reported together.
            for peer in &mut peers {
                peer.write_all(&[round]).await.unwrap();
            }
            for peer in &mut peers {
                assert_eq!(peer.read_u8().await.unwrap(), round);
            }
        }
        drop(peers);
        // The listener keeps its place.
        while places().1 + 1 < places().0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn what_the_kernel_does_not_take_at_once_is_written_later() {
    on_a_thread(async {
        let (listener, address) = listen();
        let (mut ours, theirs) = pair(&listener, address).await;
        let (mut reader, mut writer) = theirs.into_split();
        let sent: Vec<u8> = (0..BYTES).map(|at| (at / 1000) as u8).collect();
        let echo = async {
            let mut received = vec![0; BYTES];
            ours.read_exact(&mut received).await.unwrap();
            ours.write_all(&received).await.unwrap();
            ours
        };
        let peer = async {
            writer.write_all(&sent).await.unwrap();
            // Nothing is read before the kernel is full.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut received = vec![0; BYTES];
            reader.read_exact(&mut received).await.unwrap();
            received
        };
        let (mut ours, received) = tokio::join!(echo, peer);
        assert!(received == sent);
        // The end is seen, and seen again.
        drop((reader, writer));
        for _ in 0..2 {
            assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
        }
    });
}

#[test]
fn the_end_is_seen_behind_bytes_that_came_with_it() {
    on_a_thread(async {
        let (listener, address) = listen();
        let (mut ours, mut theirs) = pair(&listener, address).await;
        theirs.write_all(b"last words").await.unwrap();
        drop(theirs);
        let mut byte = [0];
        assert_eq!(std::future::poll_fn(|cx| ours.poll_peek(cx, &mut byte)).await.unwrap(), 1);
        let mut received = Vec::new();
        ours.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"last words");
        // A place is given to the next one, which has nothing of the former.
        let place = ours.as_place();
        drop(ours);
        let (mut next, mut peer) = pair(&listener, address).await;
        assert_eq!(next.as_place(), place);
        let (read, ()) = tokio::join!(next.read(&mut byte), async {
            tokio::task::yield_now().await;
            peer.write_all(b"!").await.unwrap();
        });
        assert_eq!((read.unwrap(), byte), (1, *b"!"));
    });
}
