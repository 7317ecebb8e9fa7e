//! How often the gateway allocates for a message, an event, a handshake and a publication.
//!
//! A gateway runs in this process, and the allocator counts for all threads of it. The clients and the upstream
//! ([`peers`]) allocate nothing while they are measured. Each operation is done N times and 2N times in turn, and the
//! difference counts, so that what is allocated once falls out.
//!
//! The counts are those of a debug build, which removes no allocation. They do not depend on the machine's speed, only
//! on whether events arrive together; so each peer waits for the answer to the last one before it goes on.

mod peers;

use std::alloc::System;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidegate::internals::Config;
use tidegate::internals::gateway::{Addresses, Inherited, Outcome, Process, log_filter, run};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use peers::{Api, Client, DEADLINE, Pace, Upstream, handshake, text_frame};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The most allocations of each operation, over all threads of the gateway: a few more than there are, because the order
/// in which its threads run varies. Lower a limit with each change that allows it. To raise one, say in the commit what
/// the allocation is for. `cargo test --test allocations -- --nocapture` prints the counts.
const LIMITS: [(&str, u64); 11] = [
    ("a message, answered by 202", 78),
    ("a message with an id, answered by 202", 109),
    ("a message, answered by 200 without a reply", 63),
    ("a message, answered by a streamed reply of one event", 137),
    ("a streamed event that comes alone", 28),
    ("a streamed event that comes with others", 25),
    ("an anonymous handshake", 67),
    ("a handshake with a token", 112),
    ("a publication by the API, to one client", 41),
    ("a publication by the API, of 16 in one call, to one client", 11),
    ("a delivery of a publication to one more client", 0),
];

/// How often each operation is repeated at first.
const REPEATS: usize = 50;

/// The same for handshakes, ten times as many of which are open at the end.
const HANDSHAKES: usize = 20;

/// What happens in the background, such as the upkeep of metrics, only ever adds to a count.
const ROUNDS: usize = 2;

const API_KEY: &str = "allocations";

fn settings(upstream: SocketAddr) -> String {
    let mut toml = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nthreads = 1\nmax_connections_per_ip = 0\n\
         [admin]\nlisten = \"127.0.0.1:0\"\napi_keys = [{API_KEY:?}]\n\
         [shutdown]\ndrain = \"100ms\"\ngrace = \"1s\"\n"
    );
    for path in ["queued", "taken", "stream"] {
        toml += &format!(
            "[[route]]\npath = \"/{path}/{{name}}/\"\nchannel = \"{path}_{{name}}\"\nupstream = {path:?}\n\
             auth = [\"connection_token\", \"anonymous\"]\nidle_ping = \"10m\"\n\
             [route.limits]\nmessages_per_connection = \"1000000/1s\"\nframes_per_connection = \"off\"\ngenerations_per_user = 0\n\
             [upstream.{path}]\nkind = \"http\"\nurl = \"http://{upstream}/{path}\"\n\
             max_in_flight_per_user = 256\n"
        );
    }
    toml
}

/// Starts a gateway in this process. It runs until it is drained.
fn start(toml: &str) -> (Addresses, thread::JoinHandle<Outcome>) {
    let config = Config::from_toml(toml).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let (log, filter) = log_filter("warn", None).expect("a level");
    tracing_subscriber::registry().with(filter).with(tracing_subscriber::fmt::layer()).init();
    let (ready, addresses) = mpsc::channel();
    let gateway = thread::spawn(move || {
        let process = Process { inherited: Inherited::default(), log, read: None };
        let started = run(config, process, |addresses| ready.send(addresses).expect("the test"));
        started.expect("a gateway")
    });
    (addresses.recv_timeout(DEADLINE).expect("a gateway that listens"), gateway)
}

/// The allocations of the process so far. A block that grows counts as a new one.
fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// The allocations of one operation, if `repeat` does as many of them as it is told.
fn per_operation(repeats: usize, mut repeat: impl FnMut(usize)) -> f64 {
    let mut counted = |times| {
        let before = allocations();
        repeat(times);
        allocations() - before
    };
    // What is kept for the next operations is allocated here.
    counted(repeats);
    let (mut once, mut twice) = (usize::MAX, usize::MAX);
    for _ in 0..ROUNDS {
        once = once.min(counted(repeats));
        twice = twice.min(counted(2 * repeats));
    }
    (twice as f64 - once as f64) / repeats as f64
}

/// One message after the other; each is sent when the last one has its answer.
fn messages(gateway: SocketAddr, path: &str, answer: &[u8], with_id: bool) -> f64 {
    let mut client = Client::open(gateway, &handshake(path, None));
    let mut number = 0;
    // All messages have the same length, so that the buffer for them never grows.
    let frame = text_frame(br#"{"message":"How is the weather?","id":"m-00000000"}"#);
    let plain = text_frame(br#"{"message":"How is the weather?","no":"m-00000000"}"#);
    let mut frame = if with_id { frame } else { plain };
    let digits = frame.len() - 10..frame.len() - 2;
    per_operation(REPEATS, |times| {
        for _ in 0..times {
            number += 1;
            peers::write_digits(&mut frame[digits.clone()], number);
            client.send(&frame);
            client.expect(answer);
        }
    })
}

/// Replies of one event each.
fn replies(gateway: SocketAddr, upstream: &Upstream) -> f64 {
    let mut client = Client::open(gateway, &handshake("/stream/replies/", None));
    upstream.pace().set(1, false);
    let frame = text_frame(br#"{"message":"How is the weather?"}"#);
    per_operation(REPEATS, |times| {
        for _ in 0..times {
            client.send(&frame);
            take_reply(&mut client, upstream.pace(), 1);
        }
    })
}

/// Events of replies that are long, so that the rest of the reply falls out.
fn events(gateway: SocketAddr, upstream: &Upstream, together: bool) -> f64 {
    let path = if together { "/stream/together/" } else { "/stream/alone/" };
    let mut client = Client::open(gateway, &handshake(path, None));
    let frame = text_frame(br#"{"message":"How is the weather?"}"#);
    per_operation(REPEATS, |times| {
        upstream.pace().set(times, together);
        client.send(&frame);
        take_reply(&mut client, upstream.pace(), times);
    })
}

fn take_reply(client: &mut Client, pace: &Pace, events: usize) {
    client.expect(b"task_queued");
    client.expect(b"processing_started");
    for _ in 0..events {
        client.expect(b"chunk");
        pace.event_taken();
    }
    client.expect(b"complete");
}

/// Connections that stay open until all of them are counted.
fn handshakes(addresses: &Addresses, with_token: bool) -> f64 {
    let mut api = Api::connect(addresses.admin, API_KEY);
    let all = HANDSHAKES * (1 + 3 * ROUNDS);
    let requests: Vec<_> = (0..=all)
        .map(|number| {
            let token = with_token.then(|| api.token(number));
            handshake(&format!("/queued/shake-{with_token}-{number:05}/"), token.as_deref())
        })
        .collect();
    let mut requests = requests.iter();
    let first = requests.next().expect("one more than there are handshakes");
    let mut client = Client::open(addresses.public, first);
    let mut open = Vec::with_capacity(all);
    per_operation(HANDSHAKES, |times| {
        for request in requests.by_ref().take(times) {
            open.push(client.open_next(addresses.public, request));
        }
    })
}

/// Calls with so many publications each, to a channel with so many clients. Per call.
fn publications(addresses: &Addresses, count: usize, clients: usize) -> f64 {
    let mut api = Api::connect(addresses.admin, API_KEY);
    let name = format!("publish-{count}-{clients}");
    let request = handshake(&format!("/queued/{name}/"), None);
    let open = |_| Client::open(addresses.public, &request);
    let mut clients: Vec<_> = (0..clients).map(open).collect();
    let data = r#"{"event":"chunk","chunk":"Hello, all of you"}"#;
    let one = format!(r#"{{"channel":"queued_{name}","data":{data}}}"#);
    let body = match count {
        1 => one,
        _ => format!(r#"{{"publications":[{}]}}"#, vec![one; count].join(",")),
    };
    let request = api.request("/v1/publish", &body);
    per_operation(REPEATS, |times| {
        for _ in 0..times {
            api.call(&request);
            for client in &mut clients {
                (0..count).for_each(|_| client.expect(b"Hello, all of you"));
            }
        }
    })
}

#[test]
fn operations_allocate_no_more_than_their_limits() {
    let upstream = Upstream::start();
    let (addresses, gateway) = start(&settings(upstream.address()));
    let public = addresses.public;
    let published = [1, 9].map(|clients| publications(&addresses, 1, clients));
    let counts = [
        messages(public, "/queued/plain/", b"task_queued", false),
        messages(public, "/queued/id/", b"task_queued", true),
        messages(public, "/taken/plain/", b"task_queued", false),
        replies(public, &upstream),
        events(public, &upstream, false),
        events(public, &upstream, true),
        handshakes(&addresses, false),
        handshakes(&addresses, true),
        published[0],
        publications(&addresses, 16, 1) / 16.0,
        (published[1] - published[0]) / 8.0,
    ];
    let mut exceeded = Vec::new();
    for ((name, limit), count) in LIMITS.iter().zip(counts) {
        println!("{count:8.2} (at most {limit}): {name}");
        if count.round() > *limit as f64 {
            exceeded.push(format!("{name}: {count:.2} allocations, at most {limit}"));
        }
    }
    let mut api = Api::connect(addresses.admin, API_KEY);
    let drain = api.request("/v1/drain", "{}");
    api.call(&drain);
    assert_eq!(gateway.join().expect("the gateway's thread"), Outcome::Drained);
    assert!(exceeded.is_empty(), "more than before:\n{}", exceeded.join("\n"));
}
