use std::sync::atomic::{AtomicU16, AtomicUsize};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::redis_link::server::LATE;
use crate::redis_link::test_server::RedisServer;
use crate::redis_link::{Commands, RedisFailure};
use crate::shutdown::Shutdown;

fn answer(port: u16, epoch: u64) -> Answer {
    Answer { host: "h".to_owned(), port, epoch }
}

#[test]
fn the_newest_answer_counts_and_older_ones_only_of_most() {
    let (old, new) = (answer(1, 4), answer(2, 5));
    let one = |answers: &[Answer], known| choose(answers, known, 3).cloned();
    assert_eq!(one(&[], None), None);
    assert_eq!(one(&[old.clone(), new.clone()], None), Some(new.clone()));
    assert_eq!(one(&[new.clone(), old.clone()], Some(&old)), Some(new.clone()));
    // One that has slept, alone or beside another.
    assert_eq!(one(std::slice::from_ref(&old), Some(&new)), None);
    assert_eq!(one(&[old.clone(), answer(3, 3)], Some(&new)), None);
    assert_eq!(one(&[old.clone(), new.clone()], Some(&new)), Some(new.clone()));
    // Set up anew.
    let anew = answer(3, 0);
    assert_eq!(one(&[anew.clone(), anew.clone()], Some(&new)), Some(anew.clone()));
    assert_eq!(choose(std::slice::from_ref(&anew), Some(&new), 1), Some(&anew), "the only one");
    // Before the first failover all have the same epoch.
    let (first, other) = (answer(1, 0), answer(2, 0));
    assert_eq!(one(&[first.clone(), other.clone()], Some(&first)), Some(first.clone()));
    assert_eq!(one(&[other.clone(), first.clone()], Some(&first)), Some(first));
}

#[test]
fn an_answer_without_an_address_is_none() {
    let fields = |more: &[(&str, &str)]| {
        let all = [("ip", "h"), ("port", "6379"), ("config-epoch", "7"), ("flags", "master")];
        let all = all.iter().chain(more).map(|(name, value)| ((*name).into(), (*value).into()));
        all.collect::<HashMap<String, String>>()
    };
    assert_eq!(read(&fields(&[])), Some(answer(6379, 7)));
    for wrong in [("ip", ""), ("port", "0"), ("port", "70000"), ("port", "x"), ("config-epoch", "")]
    {
        assert_eq!(read(&fields(&[wrong])), None, "{wrong:?}");
    }
    assert_eq!(read(&HashMap::new()), None);
}

/// A sentinel that says what it is told to.
struct FakeSentinel {
    port: u16,
    /// The port of the server that it names, which is the number of its failovers too.
    named: Arc<AtomicU16>,
    questions: Arc<AtomicUsize>,
}

impl FakeSentinel {
    async fn start(named: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sentinel = Self {
            port: listener.local_addr().unwrap().port(),
            named: Arc::new(named.into()),
            questions: Arc::default(),
        };
        let (named, questions) = (sentinel.named.clone(), sentinel.questions.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::serve(stream, named.clone(), questions.clone()));
            }
        });
        sentinel
    }

    async fn serve(stream: TcpStream, named: Arc<AtomicU16>, questions: Arc<AtomicUsize>) {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|length| length > 0) {
            let answer = match line.trim() {
                "HELLO" => "%1\r\n+server\r\n+redis\r\n".to_owned(),
                "SENTINEL" => {
                    questions.fetch_add(1, Ordering::SeqCst);
                    let port = named.load(Ordering::SeqCst);
                    format!(
                        "%3\r\n+ip\r\n+127.0.0.1\r\n+port\r\n+{port}\r\n+config-epoch\r\n+{port}\r\n"
                    )
                }
                _ => String::new(),
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            line.clear();
        }
    }

    /// Waits until it was asked once more.
    async fn asked(&self) {
        let before = self.questions.load(Ordering::SeqCst);
        while self.questions.load(Ordering::SeqCst) == before {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn what_a_former_primary_answers_when_it_wakes_is_not_believed() {
    let mut servers = [RedisServer::start(), RedisServer::start()];
    servers.sort_by_key(RedisServer::port);
    let [old, new] = servers;
    let sentinel = FakeSentinel::start(old.port()).await;
    let url = RedisUrl::example(&format!("redis-sentinel://127.0.0.1:{}/mymaster", sentinel.port));
    let commands = Commands::start(&url, "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(Duration::from_secs(10)).await);
    let set = |key: &'static str| {
        let commands = commands.clone();
        async move { commands.query::<()>(redis::cmd("SET").arg(key).arg(1)).await }
    };
    // One that is slow is believed while the sentinels name it.
    old.pause();
    let slow = tokio::spawn(set("slow"));
    sleep(LATE + Duration::from_millis(50)).await;
    old.resume();
    assert!(slow.await.unwrap().is_ok());
    // The sentinels are not asked again for a second, unless there is a reason.
    sentinel.asked().await;
    old.pause();
    let unknown = tokio::spawn(set("unknown"));
    sentinel.named.store(new.port(), Ordering::SeqCst);
    sleep(LATE + Duration::from_millis(50)).await;
    old.resume();
    assert!(matches!(unknown.await.unwrap(), Err(RedisFailure::Unavailable)));
    // Everything that follows is the new one's.
    let stored =
        async || set("after").await.is_ok() && new.run::<i64>(&["EXISTS", "after"]).await == 1;
    while !stored().await {
        sleep(Duration::from_millis(5)).await;
    }
}
