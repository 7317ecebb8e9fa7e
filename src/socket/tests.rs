//! A socket on an in-memory stream of a few bytes, so that every write is a partial one.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::LocalSet;

use super::*;
use crate::protocol::CloseReason;
use crate::protocol::Epoch;

const QUEUE: SendQueue = SendQueue { messages: 4, bytes: 1000 };

fn pair(buffer: usize) -> (Rc<Socket>, DuplexStream) {
    let (ours, theirs) = duplex(buffer);
    (Rc::new(Socket::new(ByteStream::Memory(ours), 1000, QUEUE)), theirs)
}

fn drive(socket: &Rc<Socket>) -> tokio::task::JoinHandle<()> {
    let socket = Rc::clone(socket);
    tokio::task::spawn_local(async move {
        std::future::poll_fn(|cx| socket.poll_drive(cx, &mut |_| ())).await;
    })
}

fn frames(texts: &[&str]) -> (Vec<Delivery>, Bytes) {
    let frames: Vec<Bytes> = texts.iter().map(|text| frame::text(text)).collect();
    let joined = frames.concat().into();
    (frames.into_iter().map(|frame| Delivery::new(frame, None)).collect(), joined)
}

/// Reads server frames of up to 125 bytes until the stream ends.
async fn read_all(stream: &mut DuplexStream) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while let [first, len, tail @ ..] = rest {
        let (payload, tail) = tail.split_at(usize::from(*len));
        frames.push((*first, payload.to_vec()));
        rest = tail;
    }
    frames
}

fn texts(frames: &[(u8, Vec<u8>)]) -> Vec<String> {
    frames
        .iter()
        .filter(|(first, _)| *first == 0x81)
        .map(|(_, payload)| String::from_utf8_lossy(payload).into_owned())
        .collect()
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    let deadline = Duration::from_secs(20);
    tokio::time::timeout(deadline, LocalSet::new().run_until(test)).await.expect("no deadlock")
}

#[tokio::test(flavor = "current_thread")]
async fn publications_already_in_the_history_are_dropped_and_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let place = |offset| Position { epoch: Epoch::new(1).unwrap(), offset };
    local(async {
        let (socket, mut peer) = pair(1000);
        let driving = drive(&socket);
        socket.start_after(place(2));
        let (mut live, _) = frames(&["one", "two", "three"]);
        for (offset, publication) in (1..).zip(&mut live) {
            publication.position = Some(place(offset));
        }
        let joined = live.iter().map(|live| &live.frame[..]).collect::<Vec<_>>().concat();
        metrics::with_local_recorder(&recorder, || socket.deliver(&live, &joined));
        socket.close(CloseReason::Restarting);
        peer.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        assert_eq!(texts(&read_all(&mut peer).await), ["three"]);
        drop(peer);
        driving.await.unwrap();
    })
    .await;
    let page = recorder.handle().render();
    assert!(page.contains("tidegate_duplicates_total{kind=\"replayed\"} 2\n"), "{page}");
}

#[tokio::test(flavor = "current_thread")]
async fn the_driving_task_writes_the_rest_of_a_partial_write() {
    local(async {
        let (socket, mut peer) = pair(5);
        let driving = drive(&socket);
        tokio::task::yield_now().await;
        let (several, joined) = frames(&["one", "two", "three"]);
        assert!(socket.deliver(&several, &joined));
        socket.close(CloseReason::Restarting);
        // The peer answers the close frame, so that the socket ends.
        let (mut reading, mut writing) = tokio::io::split(peer);
        writing.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        let mut all = Vec::new();
        reading.read_to_end(&mut all).await.unwrap();
        peer = reading.unsplit(writing);
        drop(peer);
        driving.await.unwrap();
        let wire = [&joined[..], &Bytes::from(CloseReason::Restarting)[..]].concat();
        assert_eq!(all, wire);
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_client_that_does_not_read_is_closed_and_delays_no_writer() {
    local(async {
        let (socket, mut peer) = pair(3);
        let driving = drive(&socket);
        tokio::task::yield_now().await;
        let (one, joined) = frames(&["0123456789"]);
        let taken = (0..100).take_while(|_| socket.deliver(&one, &joined)).count();
        assert_eq!(taken, QUEUE.messages, "as many as the queue holds");
        assert_eq!(socket.end(), Some(ConnectionEnd::ByGateway(CloseReason::TooSlow)));
        peer.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        let frames = read_all(&mut peer).await;
        drop(peer);
        driving.await.unwrap();
        // The frame that had begun is whole; what had not begun is dropped.
        assert_eq!(texts(&frames), ["0123456789"]);
        assert_eq!(frames.last().unwrap().1[..2], 4008u16.to_be_bytes());
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn held_publications_follow_the_gateways_own_frames() {
    local(async {
        let (socket, mut peer) = pair(1000);
        let driving = drive(&socket);
        let hold = socket.hold();
        let (two, joined) = frames(&["chunk 1", "chunk 2"]);
        assert!(socket.deliver(&two, &joined));
        socket.send_text("task_queued");
        drop(hold);
        let (three, joined) = frames(&["chunk 3"]);
        assert!(socket.deliver(&three, &joined));
        socket.close(CloseReason::Normal);
        peer.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        let frames = read_all(&mut peer).await;
        drop(peer);
        driving.await.unwrap();
        assert_eq!(texts(&frames), ["task_queued", "chunk 1", "chunk 2", "chunk 3"]);
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn positioned_publications_are_left_to_the_history_at_the_end() {
    local(async {
        let (socket, mut peer) = pair(1000);
        let driving = drive(&socket);
        let _hold = socket.hold();
        let (mut two, joined) = frames(&["kept", "live only"]);
        let epoch = crate::protocol::Epoch::new(1).unwrap();
        two[0].position = Some(Position { epoch, offset: 7 });
        assert!(socket.deliver(&two, &joined));
        // More of the history was still to come before the first.
        socket.close(CloseReason::Restarting);
        peer.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        let frames = read_all(&mut peer).await;
        drop(peer);
        driving.await.unwrap();
        assert_eq!(texts(&frames), ["live only"]);
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn one_frame_larger_than_an_empty_queue_is_accepted() {
    local(async {
        let (socket, mut peer) = pair(64);
        let _driving = drive(&socket);
        tokio::task::yield_now().await;
        let big = frame::encode(Opcode::Binary, &[7; 5000]);
        assert!(socket.deliver(&[Delivery::new(big.clone(), None)], &big));
        let mut read = vec![0; big.len()];
        peer.read_exact(&mut read).await.unwrap();
        assert_eq!(read, big);
        socket.drained().await;
        assert!(socket.is_open());
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_paused_socket_is_not_read() {
    local(async {
        let (socket, mut peer) = pair(64);
        let pause = socket.pause_reading();
        let got = Rc::new(Cell::new(0));
        let (driven, counted) = (Rc::clone(&socket), Rc::clone(&got));
        let _driving = tokio::task::spawn_local(async move {
            std::future::poll_fn(|cx| {
                driven.poll_drive(cx, &mut |_| counted.set(counted.get() + 1))
            })
            .await;
        });
        peer.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'a']).await.unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(got.get(), 0);
        drop(pause);
        while got.get() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn frames_that_are_not_taken_at_once_stay_whole_and_all_who_wait_for_them_go_on() {
    local(async {
        let (socket, mut peer) = pair(8);
        let sent: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        let mut bytes = Vec::new();
        for text in &sent {
            frame::append(&mut bytes, Opcode::Text, text.as_bytes());
        }
        let driving = drive(&socket);
        socket.send_frames(&bytes);
        assert!(socket.queued_bytes() > 0);
        let waiting = [Rc::clone(&socket), Rc::clone(&socket)]
            .map(|socket| tokio::task::spawn_local(async move { socket.drained().await }));
        let mut received = vec![0; bytes.len()];
        peer.read_exact(&mut received).await.unwrap();
        assert_eq!(received, bytes);
        for waiting in waiting {
            waiting.await.unwrap();
        }
        // What is written in part is not dropped for a close frame.
        socket.send_frames(&bytes);
        socket.close(CloseReason::TooSlow);
        peer.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        let received = read_all(&mut peer).await;
        assert_eq!(texts(&received), sent);
        assert_eq!(received.last().map(|(first, _)| *first), Some(0x88));
        drop(peer);
        driving.await.unwrap();
    })
    .await;
}

/// In one write if the stream takes it, and in order if it takes less.
#[tokio::test(flavor = "current_thread")]
async fn a_frame_leaves_with_the_publications_that_follow_it() {
    for room in 1..60 {
        local(async {
            let (ours, mut peer) = duplex(room);
            let queue = SendQueue { messages: 10, bytes: 1000 };
            let socket = Rc::new(Socket::new(ByteStream::Memory(ours), 1000, queue));
            let driving = drive(&socket);
            tokio::task::yield_now().await;
            assert!(socket.send_text_with_next("queued"));
            assert_eq!(socket.queued_bytes(), 8, "nothing is written yet");
            let (events, joined) = frames(&["begun", "chunk", "complete"]);
            assert!(socket.deliver(&events, &joined));
            let all = 8 + joined.len();
            assert_eq!(socket.queued_bytes(), all.saturating_sub(room));
            // Behind what the kernel does not take it is queued like any other.
            if room < all {
                assert!(!socket.send_text_with_next("next"));
            }
            socket.close(CloseReason::Restarting);
            peer.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
            let expected: &[_] = match room < all {
                true => &["queued", "begun", "chunk", "complete", "next"],
                false => &["queued", "begun", "chunk", "complete"],
            };
            assert_eq!(texts(&read_all(&mut peer).await), expected);
            drop(peer);
            driving.await.unwrap();
        })
        .await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_frame_that_nothing_follows_is_sent_by_itself() {
    local(async {
        let (socket, mut peer) = pair(100);
        let hold = socket.hold();
        assert!(socket.send_text_with_next("queued"));
        drop(hold);
        assert_eq!(
            socket.queued_bytes(),
            8,
            "the end of a hold without publications writes nothing"
        );
        socket.send_waiting();
        assert_eq!(socket.queued_bytes(), 0);
        let mut frame = [0; 8];
        peer.read_exact(&mut frame).await.unwrap();
        assert_eq!(&frame[2..], b"queued");
    })
    .await;
}
