//! The hub on sockets whose streams are in memory, turn by turn.

use std::cell::Cell;

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};

use super::joined::{MAX_JOINED, MAX_JOINED_BYTES};
use super::pass::SOCKETS_PER_TURN;
use super::*;
use crate::config::SendQueue;
use crate::protocol::{DeflateTerms, Epoch, Position};
use crate::socket::{ByteStream, ClientTcp, Decoder, Incoming, Proceed, frame, watch_connections};

/// A stream takes everything that a test writes.
const STREAM_BYTES: usize = 1 << 20;

struct Member {
    socket: Rc<Socket>,
    peer: DuplexStream,
    /// How many publications had been queued for the channel when it joined.
    joined_at: usize,
}

impl Member {
    fn join(hub: &HubPart, channel: &ChannelName, queue: SendQueue) -> Self {
        Self::join_with(hub, channel, queue, STREAM_BYTES)
    }

    fn join_with(hub: &HubPart, channel: &ChannelName, queue: SendQueue, stream: usize) -> Self {
        let (ours, peer) = duplex(stream);
        let socket = Rc::new(Socket::new(ByteStream::Memory(ours), 1000, queue));
        hub.attach(channel, Rc::clone(&socket));
        Self { socket, peer, joined_at: 0 }
    }

    /// The numbers that were written to it since the last call.
    fn received(&mut self) -> Vec<usize> {
        let mut bytes = Vec::new();
        while let Some(Ok(1..)) = self.peer.read_buf(&mut bytes).now_or_never() {}
        let (mut rest, mut numbers) = (&bytes[..], Vec::new());
        while let [0x81, length, tail @ ..] = rest {
            let (payload, tail) = tail.split_at(usize::from(*length));
            numbers.push(std::str::from_utf8(payload).unwrap().parse().unwrap());
            rest = tail;
        }
        assert!(rest.is_empty(), "whole frames");
        numbers
    }
}

/// What a client offers, and the bits of the window that its inflater has.
fn negotiated(bits: u8) -> DeflateTerms {
    let offer = format!("permessage-deflate; server_max_window_bits={bits}");
    let mut headers = hyper::HeaderMap::new();
    headers.insert("sec-websocket-extensions", offer.parse().unwrap());
    DeflateTerms::accept_first(&headers).unwrap()
}

/// Sockets with and without compression in one channel: each gets every publication, in order, in its form.
#[test]
fn each_socket_gets_its_form() {
    let (hub, name) = (HubPart::default(), channel("mixed"));
    let texts: Vec<String> = (0..40)
        .map(|number| match number % 3 {
            0 => format!("{number}"),
            _ => {
                format!("{number} is a number that is written {number} times ").repeat(20 + number)
            }
        })
        .collect();
    let mut members = Vec::new();
    for number in 0..3 * SOCKETS_PER_TURN {
        let (ours, peer) = duplex(STREAM_BYTES);
        let terms = [None, Some(15), Some(8), Some(12)][number % 4].map(negotiated);
        let socket = Socket::new(ByteStream::Memory(ours), 1000, QUEUE).with_deflate(terms);
        let socket = Rc::new(socket);
        hub.attach(&name, Rc::clone(&socket));
        members.push((socket, peer, Vec::new()));
    }
    for (number, text) in texts.iter().enumerate() {
        hub.queue(name.clone(), Delivery::new(frame::text(text), None), Instant::now());
        // Some are joined, some are visited one by one, and some come within a lap.
        if number % 5 < 2 {
            hub.take_turn();
        }
    }
    finish(&hub);
    for (socket, peer, bytes) in &mut members {
        while let Some(Ok(1..)) = peer.read_buf(bytes).now_or_never() {}
        let mut decoder = Decoder::of_server(1 << 20);
        if socket.window().is_some() {
            decoder.allow_compressed();
        }
        let (plain, length) = (texts.iter().map(|text| text.len() + 2).sum::<usize>(), bytes.len());
        let mut received = Vec::new();
        let fed = decoder.feed(bytes, &mut |incoming| {
            match incoming {
                Incoming::Text(text) => received.push(text.to_owned()),
                other => panic!("{other:?}"),
            }
            Proceed::Parse
        });
        assert_eq!(fed, Ok(()));
        assert!(received == texts);
        assert_eq!(length < plain, socket.window().is_some(), "{length} of {plain}");
    }
}

const QUEUE: SendQueue = SendQueue { messages: 256, bytes: 1 << 20 };

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn queue(hub: &HubPart, channel: &ChannelName, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        let frame = frame::text(&number.to_string());
        hub.queue(channel.clone(), Delivery::new(frame, None), Instant::now());
    }
}

/// Takes turns until nothing is left.
fn finish(hub: &HubPart) -> usize {
    let mut turns = 0;
    while !hub.is_idle() {
        hub.take_turn();
        turns += 1;
    }
    turns
}

#[test]
fn what_waits_for_a_channel_leaves_in_one_visit_in_its_order() {
    let hub = HubPart::default();
    let (a, b) = (channel("a"), channel("b"));
    let (mut in_a, mut in_b) = (Member::join(&hub, &a, QUEUE), Member::join(&hub, &b, QUEUE));
    queue(&hub, &a, [1]);
    queue(&hub, &b, [2]);
    queue(&hub, &a, [3, 4]);
    let turn = hub.take_turn();
    assert_eq!((turn.sockets, turn.deliveries, turn.drops, turn.repeats), (1, 3, 0, false));
    assert!(turn.latency.is_some());
    assert_eq!(in_a.received(), [1, 3, 4]);
    assert!(in_b.received().is_empty(), "its turn is the next one");
    hub.take_turn();
    assert_eq!(in_b.received(), [2]);
    assert!(hub.is_idle());
    assert_eq!(hub.take_turn(), Turn::default());
    queue(&hub, &channel("nobody"), [5]);
    assert!(hub.is_idle(), "without a socket there is nothing to deliver");
}

#[test]
fn later_turns_of_a_large_channel_get_what_has_come_since() {
    let hub = HubPart::default();
    let name = channel("large");
    let count = 3 * SOCKETS_PER_TURN;
    let mut members: Vec<_> = (0..count).map(|_| Member::join(&hub, &name, QUEUE)).collect();
    let mut got = |range: std::ops::Range<usize>| -> Vec<Vec<usize>> {
        let mut all: Vec<_> = members[range].iter_mut().map(Member::received).collect();
        all.dedup();
        all
    };
    let (first, second) = (0..SOCKETS_PER_TURN, SOCKETS_PER_TURN..2 * SOCKETS_PER_TURN);
    let third = 2 * SOCKETS_PER_TURN..count;
    queue(&hub, &name, [1]);
    assert_eq!(hub.take_turn().latency, None, "the others wait for it still");
    assert_eq!(got(0..count), [vec![1], vec![]], "a single publication waits for nothing");
    queue(&hub, &name, [2]);
    hub.take_turn();
    assert_eq!((got(first.clone()), got(second.clone())), (vec![vec![]], vec![vec![1, 2]]));
    queue(&hub, &name, [3]);
    let turn = hub.take_turn();
    assert_eq!(got(third.clone()), [[1, 2, 3]]);
    assert!(turn.repeats && turn.latency.is_some(), "{turn:?}");
    assert!(!hub.take_turn().repeats);
    assert_eq!((got(first), got(second.clone())), (vec![vec![2, 3]], vec![vec![]]));
    let turn = hub.take_turn();
    assert_eq!((turn.sockets, turn.deliveries), (SOCKETS_PER_TURN, SOCKETS_PER_TURN as u64));
    assert_eq!((got(second), got(third)), (vec![vec![3]], vec![vec![]]));
    assert!(hub.is_idle(), "the sockets of the third turn have had everything");
}

#[test]
fn a_socket_gets_what_is_queued_after_it_has_joined() {
    let hub = HubPart::default();
    let name = channel("large");
    let mut early: Vec<_> =
        (0..2 * SOCKETS_PER_TURN).map(|_| Member::join(&hub, &name, QUEUE)).collect();
    queue(&hub, &name, [1]);
    hub.take_turn();
    let mut late = Member::join(&hub, &name, QUEUE);
    finish(&hub);
    assert!(late.received().is_empty());
    queue(&hub, &name, [2]);
    hub.take_turn();
    let mut later = Member::join(&hub, &name, QUEUE);
    queue(&hub, &name, [3]);
    finish(&hub);
    assert_eq!((late.received(), later.received()), (vec![2, 3], vec![3]));
    assert!(early.iter_mut().all(|member| member.received() == [1, 2, 3]));
    // After the pass it is no different from the others.
    queue(&hub, &name, [4]);
    finish(&hub);
    assert_eq!((late.received(), later.received()), (vec![4], vec![4]));
}

#[test]
fn the_last_position_is_that_of_each_socket() {
    let hub = HubPart::default();
    let name = channel("large");
    let members: Vec<_> =
        (0..2 * SOCKETS_PER_TURN).map(|_| Member::join(&hub, &name, QUEUE)).collect();
    let at = |offset| Some(Position { epoch: Epoch::new(1).unwrap(), offset });
    let publish = |position| {
        let frame = frame::text("1");
        hub.queue(name.clone(), Delivery::new(frame, position), Instant::now());
    };
    let last = |member: usize| hub.last_position(&name, &members[member].socket);
    let (first, second) = (0, SOCKETS_PER_TURN);
    publish(None);
    finish(&hub);
    assert_eq!(last(first), None);
    publish(at(1));
    hub.take_turn();
    assert_eq!((last(first), last(second)), (at(1), None));
    publish(at(2));
    publish(None);
    hub.take_turn();
    assert_eq!((last(first), last(second)), (at(1), at(2)));
    finish(&hub);
    assert_eq!((last(first), last(second)), (at(2), at(2)));
    let late = Member::join(&hub, &name, QUEUE);
    assert_eq!(hub.last_position(&name, &late.socket), at(2), "where it begins");
}

#[test]
fn a_large_channel_and_small_ones_take_turns() {
    let hub = HubPart::default();
    let (large, small) = (channel("large"), channel("small"));
    let _members: Vec<_> =
        (0..50 * SOCKETS_PER_TURN).map(|_| Member::join_with(&hub, &large, QUEUE, 64)).collect();
    let mut in_small = Member::join(&hub, &small, QUEUE);
    queue(&hub, &large, [1]);
    hub.take_turn();
    for number in 2..20 {
        queue(&hub, &large, [number]);
        queue(&hub, &small, [number]);
        assert_eq!(hub.take_turn().sockets, 1);
        assert_eq!(in_small.received(), [number], "before the next turn of the large channel");
        assert_eq!(hub.take_turn().sockets, SOCKETS_PER_TURN);
    }
    finish(&hub);
}

#[test]
fn a_visit_is_bounded_by_count_and_bytes() {
    let hub = HubPart::default();
    let name = channel("many");
    let mut member = Member::join(&hub, &name, QUEUE);
    queue(&hub, &name, 0..2 * MAX_JOINED + 1);
    let turns: Vec<_> = (0..3).map(|_| hub.take_turn()).collect();
    let (deliveries, repeats): (Vec<_>, Vec<_>) =
        turns.iter().map(|turn| (turn.deliveries, turn.repeats)).unzip();
    assert_eq!(deliveries, [MAX_JOINED as u64, MAX_JOINED as u64, 1]);
    assert_eq!(repeats, [true, true, false], "other tasks of the thread run before it goes on");
    assert_eq!(member.received(), Vec::from_iter(0..2 * MAX_JOINED + 1));
    let large = frame::text(&"x".repeat(MAX_JOINED_BYTES * 2 / 3));
    let huge = frame::text(&"x".repeat(2 * MAX_JOINED_BYTES));
    for frame in [&large, &large, &huge, &large] {
        let delivery = Delivery::new(frame.clone(), None);
        hub.queue(name.clone(), delivery, Instant::now());
        // The stream has room again.
        while let Some(Ok(1..)) = member.peer.read_buf(&mut Vec::new()).now_or_never() {}
    }
    let deliveries: Vec<_> = (0..4).map(|_| hub.take_turn().deliveries).collect();
    assert_eq!(deliveries, [1, 1, 1, 1]);
    assert!(hub.is_idle());
}

#[test]
fn what_waits_is_bounded_and_makes_room_again() {
    let hub = HubPart::default();
    let (a, b) = (channel("a"), channel("b"));
    let in_a: Vec<_> = (0..2).map(|_| Member::join_with(&hub, &a, QUEUE, 1)).collect();
    let _in_b = Member::join(&hub, &b, QUEUE);
    queue(&hub, &a, 0..MAX_WAITING - 1);
    assert!(hub.has_room());
    queue(&hub, &b, [1]);
    assert!(!hub.has_room());
    hub.take_turn();
    assert!(hub.has_room(), "the sockets have had a part");
    for member in &in_a {
        hub.detach(&a, &member.socket);
    }
    finish(&hub);
    let waiting = hub.0.borrow().waiting;
    assert_eq!((waiting.publications, waiting.bytes), (0, 0), "a channel takes what waits with it");
    let frame = frame::text(&"x".repeat(MAX_WAITING_BYTES));
    hub.queue(b, Delivery::new(frame, None), Instant::now());
    assert!(!hub.has_room());
    finish(&hub);
    assert!(hub.has_room());
}

#[test]
fn slow_sockets_are_closed_and_cost_the_others_nothing() {
    let hub = HubPart::default();
    let name = channel("mixed");
    let few = SendQueue { messages: 10, bytes: 1 << 20 };
    let slow: Vec<_> = (0..100).map(|_| Member::join_with(&hub, &name, few, 1)).collect();
    let mut fast: Vec<_> = (0..100).map(|_| Member::join(&hub, &name, few)).collect();
    let drops = Cell::new(0);
    for number in 0..30 {
        queue(&hub, &name, [number]);
        while !hub.is_idle() {
            drops.set(drops.get() + hub.take_turn().drops);
        }
    }
    assert!(slow.iter().all(|member| !member.socket.is_open()));
    assert!(drops.get() >= 100 * 19, "{drops:?}");
    for member in &mut fast {
        assert!(member.socket.is_open());
        assert_eq!(member.received(), Vec::from_iter(0..30));
    }
}

/// Something that happens to one of a few channels.
#[derive(Debug, Clone)]
enum Step {
    Join(usize),
    Leave(usize),
    Publish(usize),
    Turns(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop_oneof![1..4_usize, 40..200_usize].prop_map(Step::Join),
        4 => (0..1000_usize).prop_map(Step::Leave),
        4 => prop_oneof![9 => 1..4_usize, 1 => 200..700_usize].prop_map(Step::Publish),
        6 => (1..5_usize).prop_map(Step::Turns),
    ]
}

/// One channel, and what its members were and are to get.
struct Model {
    name: ChannelName,
    members: Vec<Member>,
    published: usize,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// However sockets join and leave between turns, each gets what was queued while it was attached, once, in order; and
    /// one that leaves gets a beginning of it.
    #[test]
    fn each_socket_gets_each_publication_once_in_order(
        steps in proptest::collection::vec((0..3_usize, step()), 1..60),
    ) {
        let hub = HubPart::default();
        let mut channels: Vec<_> = ["a", "b", "c"]
            .map(|name| Model { name: channel(name), members: Vec::new(), published: 0 })
            .into();
        let large = SendQueue { messages: usize::MAX, bytes: usize::MAX };
        for (of, step) in steps {
            let Model { name, members, published } = &mut channels[of];
            match step {
                Step::Join(count) => members.extend((0..count).map(|_| Member {
                    joined_at: *published,
                    ..Member::join(&hub, name, large)
                })),
                Step::Leave(_) if members.is_empty() => {}
                Step::Leave(at) => {
                    let mut member = members.swap_remove(at % members.len());
                    let was_last = hub.detach(name, &member.socket);
                    prop_assert_eq!(was_last, members.is_empty());
                    let received = member.received();
                    let expected = member.joined_at..member.joined_at + received.len();
                    prop_assert!(expected.end <= *published);
                    prop_assert_eq!(received, Vec::from_iter(expected));
                }
                Step::Publish(count) => {
                    queue(&hub, name, *published..*published + count);
                    *published += count;
                }
                Step::Turns(count) => (0..count).for_each(|_| {
                    hub.take_turn();
                }),
            }
        }
        finish(&hub);
        prop_assert!(hub.has_room());
        let waiting = hub.0.borrow().waiting;
        prop_assert_eq!((waiting.publications, waiting.bytes), (0, 0));
        for Model { members, published, .. } in &mut channels {
            for member in members {
                prop_assert_eq!(member.received(), Vec::from_iter(member.joined_at..*published));
            }
        }
    }
}

/// What a busy node does most often costs no allocation, however many sockets there are.
#[tokio::test]
async fn a_delivery_allocates_nothing() {
    // Like the broker: tokio's budget would make writes fail after 128 of them.
    tokio::task::unconstrained(deliver_without_allocations()).await;
}

async fn deliver_without_allocations() {
    // All that is written fits into the kernel's queues, so that nothing is waited for.
    let _watching = watch_connections().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for count in [1, 3 * SOCKETS_PER_TURN] {
        let (hub, name) = (HubPart::default(), channel("busy"));
        let mut peers = Vec::new();
        for _ in 0..count {
            peers.push(TcpStream::connect(address).await.unwrap());
            let ours = ClientTcp::from_tokio(listener.accept().await.unwrap().0).unwrap();
            let socket = Socket::new(ByteStream::Tcp(ours), 1000, QUEUE);
            hub.attach(&name, Rc::new(socket));
        }
        let delivery = Delivery::new(frame::text("one of many"), None);
        let deliver = || {
            for waiting in [1, 4] {
                for _ in 0..waiting {
                    hub.queue(name.clone(), delivery.clone(), Instant::now());
                }
                finish(&hub);
            }
        };
        let first = allocation_counter::measure(deliver);
        assert!(first.count_total > 0, "what is kept for the next publications is allocated");
        let allocations = allocation_counter::measure(|| (0..10).for_each(|_| deliver()));
        assert_eq!(allocations.count_total, 0, "{count} sockets: {allocations:?}");
        for peer in &mut peers {
            let mut received = vec![0; 11 * 5 * delivery.frame.len()];
            peer.read_exact(&mut received).await.unwrap();
        }
    }
}

/// Each channel has one on each thread that has clients of it.
#[test]
fn a_channel_is_small() {
    let size = size_of::<Channel>();
    eprintln!("channel: {size} bytes, at most 48");
    assert!(size <= 48, "{size}");
}

#[tokio::test]
async fn the_sockets_of_a_channel_share_its_name() {
    let (hub, name) = (HubPart::default(), ChannelName::new("shared").unwrap());
    assert_eq!(hub.shared_name(&name), None);
    let (stream, _peer) = tokio::io::duplex(64);
    let queue = crate::config::SendQueue { messages: 1, bytes: 1 };
    let socket = Rc::new(Socket::new(crate::socket::ByteStream::Memory(stream), 64, queue));
    hub.attach(&name, Rc::clone(&socket));
    let same = ChannelName::new("shared").unwrap();
    let shared = hub.shared_name(&same).unwrap();
    assert!(std::ptr::eq(shared.as_str(), name.as_str()));
    hub.detach(&name, &socket);
    assert_eq!(hub.shared_name(&name), None);
}
