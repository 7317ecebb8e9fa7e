//! Replies that stream through two gateways, while connections are closed and a gateway is killed: every
//! client receives each reply from its start to exactly one end, with its chunks once and in order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{
    Client, DEADLINE, Event, Gateway, Redis, Reply, Settings, Upstream, http, jwt, until,
};

const CHANNELS: usize = 10;

/// The number of clients of each channel; the first of them sends the questions.
const DEVICES: usize = 3;

/// The number of questions on each channel.
const QUESTIONS: usize = 4;

const CHUNKS: u64 = 40;
const PACE: Duration = Duration::from_millis(20);
const SECRET: &str = "0123456789abcdef0123456789abcdef";

const RETRY: Duration = Duration::from_millis(50);

struct World {
    gateways: Mutex<[SocketAddr; 2]>,
    /// The task id of each channel's last question.
    last: Mutex<HashMap<usize, String>>,
    queued: AtomicUsize,
    ended: AtomicUsize,
    worker_lost: AtomicUsize,
    cuts: AtomicUsize,
}

/// A client of one channel that behaves like a client library.
struct Device {
    world: Arc<World>,
    channel: usize,
    asks: bool,
    position: Option<(String, u64)>,
    /// The number of the next chunk of each reply; `None` means that the reply has ended.
    replies: HashMap<String, Option<u64>>,
    questions_sent: usize,
    /// The task id of the current question, once it is queued.
    task: Option<String>,
    roll: usize,
}

impl Device {
    async fn run(mut self) -> HashMap<String, Option<u64>> {
        while !self.is_done() {
            self.roll += 1;
            let address = self.world.gateways.lock().unwrap()[self.roll % 2];
            let session =
                jwt::hs256(SECRET, &json!({"user_id": self.channel, "exp": jwt::in_seconds(3600)}));
            let mut path = format!("/ws/{}/?token={session}", self.channel);
            if let Some((epoch, offset)) = &self.position {
                path.push_str(&format!("&since={offset}&epoch={epoch}"));
            }
            match Client::attempt(address, &path).await {
                Some(client) => self.follow(client).await,
                None => tokio::time::sleep(RETRY).await,
            }
        }
        self.replies
    }

    /// Whether this client has received the end of the channel's last reply and of every other.
    fn is_done(&self) -> bool {
        let last = self.world.last.lock().unwrap().get(&self.channel).cloned();
        let ended = |task| self.replies.get(&task) == Some(&None);
        last.is_some_and(ended) && self.replies.values().all(Option::is_none)
    }

    /// Reads frames until the connection ends, this client closes it, or everything has been received.
    async fn follow(&mut self, mut client: Client) {
        let frames = 20 + self.roll * 7 % 40;
        for number in 0..frames {
            // The next event may be the end of a lost reply, which waits until the lease of a dead node (10 s) has expired.
            let event = tokio::time::timeout(3 * DEADLINE, client.next_without_deadline()).await;
            match event.expect("an event before the deadline") {
                Event::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).expect("JSON");
                    // A client that is refused gets an `error` before the close.
                    if number == 0 && frame["event"] == "error" {
                        continue;
                    }
                    if number == 0 { self.connected(&frame) } else { self.hear(&frame) }
                }
                Event::Binary(_) => panic!("nobody sends binary"),
                Event::Closed(..) | Event::Lost => return,
            }
            if self.is_done() {
                return;
            }
            self.send_question(&mut client, number == 0).await;
        }
        self.world.cuts.fetch_add(1, Relaxed);
        drop(client);
    }

    /// Sends the next question or, on a new connection, repeats the one that has no answer yet.
    async fn send_question(&mut self, client: &mut Client, fresh: bool) {
        if !self.asks {
            return;
        }
        let ended = self.task.as_ref().is_some_and(|task| self.replies.get(task) == Some(&None));
        let is_next = self.questions_sent == 0 || ended;
        if is_next && self.questions_sent < QUESTIONS {
            (self.questions_sent, self.task) = (self.questions_sent + 1, None);
        }
        if is_next || fresh && self.task.is_none() {
            let id = format!("{}-{}", self.channel, self.questions_sent);
            let question = json!({"message": "go", "id": id}).to_string();
            let _ = client.try_send(Event::Text(question)).await;
        }
    }

    fn connected(&mut self, frame: &Value) {
        assert_eq!(frame["event"], "connected");
        assert_ne!(frame["recovered"], false, "Redis has lost nothing");
        let epoch = frame["epoch"].as_str().expect("an epoch").to_owned();
        self.position = Some((epoch, frame["offset"].as_u64().expect("an offset")));
    }

    fn hear(&mut self, frame: &Value) {
        let event = frame["event"].as_str().expect("a name");
        if event == "task_queued" {
            let task = frame["task_id"].as_str().expect("a task").to_owned();
            if self.questions_sent == QUESTIONS {
                self.world.last.lock().unwrap().insert(self.channel, task.clone());
            }
            self.task = Some(task);
            self.world.queued.fetch_add(1, Relaxed);
            return;
        }
        let (epoch, last) = self.position.take().expect("connected");
        assert_eq!(frame["offset"], last + 1, "{frame}");
        let epoch =
            if last == 0 { frame["epoch"].as_str().expect("one").to_owned() } else { epoch };
        self.position = Some((epoch, last + 1));
        let task = frame["task_id"].as_str().expect("a task").to_owned();
        match (event, self.replies.get(&task).copied()) {
            ("processing_started", None) => {
                self.replies.insert(task, Some(0));
            }
            ("chunk", Some(Some(next))) => {
                assert_eq!(frame["n"], next, "{frame}");
                self.replies.insert(task, Some(next + 1));
            }
            ("complete", Some(Some(next))) => {
                assert_eq!(next, CHUNKS, "{frame}");
                self.ends(task);
            }
            // There is no `processing_started` if the gateway died before it could publish it.
            ("error", Some(Some(_)) | None) => {
                assert_eq!(frame["code"], "worker_lost", "{frame}");
                if self.asks {
                    self.world.worker_lost.fetch_add(1, Relaxed);
                }
                self.ends(task);
            }
            (_, before) => panic!("{before:?}, and then {frame}"),
        }
    }

    fn ends(&mut self, task: String) {
        self.replies.insert(task, None);
        if self.asks {
            self.world.ended.fetch_add(1, Relaxed);
        }
    }
}

/// Streams numbered chunks, each with the task id from the gateway.
async fn upstream() -> Upstream {
    Upstream::start(|request| {
        let task = request.json()["task_id"].clone();
        let (writer, reply) = Reply::stream("text/event-stream");
        tokio::spawn(async move {
            for n in 0..CHUNKS {
                let event = json!({"event": "chunk", "n": n, "task_id": task});
                if !writer.write(format!("data: {event}\n\n")) {
                    return;
                }
                tokio::time::sleep(PACE).await;
            }
            let end = json!({"event": "complete", "task_id": task});
            writer.write(format!("data: {end}\n\n"));
        });
        reply
    })
    .await
}

fn settings(redis: &Redis, upstream: &Upstream) -> Settings {
    Settings::new()
        .redis(&redis.url())
        .route(
            "path = \"/ws/{name}/\"\nchannel = \"replies_{name}\"\nupstream = \"worker\"\n\
             auth = [\"query\"]\n\
             [route.limits]\nconnects_per_user = \"off\"\nconnections_per_user = 0",
        )
        .section("jwt", &format!("keys = [{{ alg = \"HS256\", secret = {SECRET:?} }}]"))
        .upstream("worker", &format!("kind = \"http\"\nurl = {:?}", upstream.url("/")))
}

#[tokio::test]
async fn every_reply_ends_once_for_every_client_even_if_its_gateway_dies() {
    let (redis, upstream) = (Redis::start().await, upstream().await);
    let settings = settings(&redis, &upstream);
    let start = async || {
        let gateway = Gateway::start(&settings).await;
        until("ready gateway", async || {
            (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
        })
        .await;
        gateway
    };
    let (mut doomed, other) = (start().await, start().await);
    let world = Arc::new(World {
        gateways: Mutex::new([doomed.addr(), other.addr()]),
        last: Mutex::default(),
        queued: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
        worker_lost: AtomicUsize::new(0),
        cuts: AtomicUsize::new(0),
    });
    let device = |number: usize| Device {
        world: Arc::clone(&world),
        channel: number / DEVICES,
        asks: number.is_multiple_of(DEVICES),
        position: None,
        replies: HashMap::new(),
        questions_sent: 0,
        task: None,
        roll: number,
    };
    let devices: Vec<_> =
        (0..CHANNELS * DEVICES).map(|number| tokio::spawn(device(number).run())).collect();
    until("a second round of questions", async || {
        (world.queued.load(Relaxed) > CHANNELS + CHANNELS / 2).then_some(())
    })
    .await;
    doomed.signal(Signal::KILL);
    doomed.wait_exit().await;
    let next = start().await;
    world.gateways.lock().unwrap()[0] = next.addr();
    for device in devices {
        let replies = device.await.expect("a client without errors");
        assert!(replies.values().all(Option::is_none), "a reply without an end: {replies:?}");
    }
    let World { queued, ended, worker_lost, cuts, .. } = &*world;
    eprintln!(
        "questions answered {}, replies ended {}, of them lost with their gateway {}, cuts {}",
        queued.load(Relaxed),
        ended.load(Relaxed),
        worker_lost.load(Relaxed),
        cuts.load(Relaxed),
    );
    assert!(worker_lost.load(Relaxed) > 0, "the gateway died with replies under way");
    assert!(ended.load(Relaxed) >= CHANNELS * QUESTIONS);
}
