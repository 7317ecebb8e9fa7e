//! What is counted for: messages, events, handshakes and publications, one after the other.
//!
//! Each operation is done N times and 2N times in turn, and the difference counts, so that what happens once falls out.
//! The counts of instructions (`instructions/`) use this file too.

use std::net::SocketAddr;

use super::peers::{Api, Client, Pace, Upstream, handshake, text_frame, write_digits};

/// How often each operation is repeated at first.
const REPEATS: usize = 50;

/// The same for handshakes, ten times as many of which are open at the end.
const HANDSHAKES: usize = 20;

/// What happens in the background, such as the upkeep of metrics, only ever adds to a count.
const ROUNDS: usize = 2;

const API_KEY: &str = "operations";

/// The configuration of a gateway that relays to the upstream at `upstream`.
pub fn settings(upstream: SocketAddr) -> String {
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

/// A running gateway with [`settings`].
#[derive(Clone, Copy)]
pub struct Gateway {
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

/// Returns what has been counted since the start.
type Total<'a> = &'a mut dyn FnMut() -> u64;

/// What one operation counts, if `repeat` does as many of them as it is told.
fn per_operation(total: Total<'_>, repeats: usize, mut repeat: impl FnMut(usize)) -> f64 {
    let mut counted = |times| {
        let before = total();
        repeat(times);
        total() - before
    };
    // What is kept for the next operations is made here.
    counted(repeats);
    let (mut once, mut twice) = (u64::MAX, u64::MAX);
    for _ in 0..ROUNDS {
        once = once.min(counted(repeats));
        twice = twice.min(counted(2 * repeats));
    }
    (twice as f64 - once as f64) / repeats as f64
}

impl Gateway {
    /// The names of all operations, and what each counts.
    pub fn count_operations(
        self,
        upstream: &Upstream,
        total: Total<'_>,
    ) -> [(&'static str, f64); 11] {
        let published = [1, 9].map(|clients| self.publications(total, 1, clients));
        let queued = b"task_queued";
        [
            ("a message, answered by 202", self.messages(total, "/queued/plain/", queued, false)),
            (
                "a message with an id, answered by 202",
                self.messages(total, "/queued/id/", queued, true),
            ),
            (
                "a message, answered by 200 without a reply",
                self.messages(total, "/taken/plain/", queued, false),
            ),
            ("a message, answered by a streamed reply of one event", self.replies(total, upstream)),
            ("a streamed event that comes alone", self.events(total, upstream, false)),
            ("a streamed event that comes with others", self.events(total, upstream, true)),
            ("an anonymous handshake", self.handshakes(total, false)),
            ("a handshake with a token", self.handshakes(total, true)),
            ("a publication by the API, to one client", published[0]),
            (
                "a publication by the API, of 16 in one call, to one client",
                self.publications(total, 16, 1) / 16.0,
            ),
            ("a delivery of a publication to one more client", (published[1] - published[0]) / 8.0),
        ]
    }

    /// Starts a drain, which ends the gateway.
    pub fn drain(self) {
        let mut api = Api::connect(self.admin, API_KEY);
        let drain = api.request("/v1/drain", "{}");
        api.call(&drain);
    }

    /// One message after the other; each is sent when the last one has its answer.
    fn messages(self, total: Total<'_>, path: &str, answer: &[u8], with_id: bool) -> f64 {
        let mut client = Client::open(self.public, &handshake(path, None));
        let mut number = 0;
        // All messages have the same length.
        let name = if with_id { "id" } else { "no" };
        let text = format!(r#"{{"message":"How is the weather?","{name}":"m-00000000"}}"#);
        let mut frame = text_frame(text.as_bytes());
        let digits = frame.len() - 10..frame.len() - 2;
        per_operation(total, REPEATS, |times| {
            for _ in 0..times {
                number += 1;
                write_digits(&mut frame[digits.clone()], number);
                client.send(&frame);
                client.expect(answer);
            }
        })
    }

    /// Replies of one event each.
    fn replies(self, total: Total<'_>, upstream: &Upstream) -> f64 {
        let mut client = Client::open(self.public, &handshake("/stream/replies/", None));
        upstream.pace().set(1, false);
        let frame = text_frame(br#"{"message":"How is the weather?"}"#);
        per_operation(total, REPEATS, |times| {
            for _ in 0..times {
                client.send(&frame);
                take_reply(&mut client, upstream.pace(), 1);
            }
        })
    }

    /// Events of replies that are long, so that the rest of the reply falls out.
    fn events(self, total: Total<'_>, upstream: &Upstream, together: bool) -> f64 {
        let path = if together { "/stream/together/" } else { "/stream/alone/" };
        let mut client = Client::open(self.public, &handshake(path, None));
        let frame = text_frame(br#"{"message":"How is the weather?"}"#);
        per_operation(total, REPEATS, |times| {
            upstream.pace().set(times, together);
            client.send(&frame);
            take_reply(&mut client, upstream.pace(), times);
        })
    }

    /// Connections that stay open until all of them are counted.
    fn handshakes(self, total: Total<'_>, with_token: bool) -> f64 {
        let mut api = Api::connect(self.admin, API_KEY);
        let all = HANDSHAKES * (1 + 3 * ROUNDS);
        let requests: Vec<_> = (0..=all)
            .map(|number| {
                let token = with_token.then(|| api.token(number));
                handshake(&format!("/queued/shake-{with_token}-{number:05}/"), token.as_deref())
            })
            .collect();
        let mut requests = requests.iter();
        let first = requests.next().expect("one more than there are handshakes");
        let mut client = Client::open(self.public, first);
        let mut open = Vec::with_capacity(all);
        per_operation(total, HANDSHAKES, |times| {
            for request in requests.by_ref().take(times) {
                open.push(client.open_next(self.public, request));
            }
        })
    }

    /// Calls with so many publications each, to a channel with so many clients. Per call.
    fn publications(self, total: Total<'_>, count: usize, clients: usize) -> f64 {
        let mut api = Api::connect(self.admin, API_KEY);
        let name = format!("publish-{count}-{clients}");
        let request = handshake(&format!("/queued/{name}/"), None);
        let open = |_| Client::open(self.public, &request);
        let mut clients: Vec<_> = (0..clients).map(open).collect();
        let data = r#"{"event":"chunk","chunk":"Hello, all of you"}"#;
        let one = format!(r#"{{"channel":"queued_{name}","data":{data}}}"#);
        let body = match count {
            1 => one,
            _ => format!(r#"{{"publications":[{}]}}"#, vec![one; count].join(",")),
        };
        let request = api.request("/v1/publish", &body);
        per_operation(total, REPEATS, |times| {
            for _ in 0..times {
                api.call(&request);
                for client in &mut clients {
                    (0..count).for_each(|_| client.expect(b"Hello, all of you"));
                }
            }
        })
    }
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
