//! Tests of histories, run on both engines: what is stored, what is read, and what is deduplicated.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::LocalSet;

use super::*;
use crate::broker::{Core, PublishError, Publisher};
use crate::config::{Config, SharedConfig};
use crate::redis_link::Commands;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;
use crate::socket::frame;

const TTL: Duration = Duration::from_secs(60);

fn terminal_event(task_id: &str, cancellation: Option<Cancellation>) -> TerminalEvent {
    let once = PublishOnce { key: end_key(task_id), number: 1, ttl: TTL, unless: None };
    TerminalEvent { task_id: task_id.into(), json: "{}".into(), once, cancellation }
}

/// A publisher on one engine, with everything that must outlive it. Channels `long_…` keep 3000
/// publications, `five_…` five, `brief_…` one for 50 ms, others none.
struct Bench {
    publisher: Publisher,
    history: History,
    redis: Option<(RedisServer, Commands)>,
    _core: Option<Core>,
}

fn config() -> SharedConfig {
    let route = |(prefix, size, ttl): (&str, usize, &str)| {
        format!(
            "[[route]]\npath = \"/{prefix}/{{x}}/\"\nchannel = \"{prefix}_{{x}}\"\n\
             auth = [\"anonymous\"]\n\
             history = {{ size = {size}, ttl = \"{ttl}\", compact = \"off\" }}\n"
        )
    };
    let ttl = format!("{}s", TTL.as_secs());
    let text: String =
        [("long", 3000, &*ttl), ("five", 5, &*ttl), ("brief", 5, "50ms")].map(route).concat();
    SharedConfig::new(Config::from_toml(&text).unwrap_or_else(|mistakes| panic!("{mistakes}")))
}

impl Bench {
    fn memory() -> Self {
        Self::with_memory(MemoryHistory::new(64 << 20))
    }

    fn with_memory(memory: MemoryHistory) -> Self {
        let (core, _) = Core::new(1, 1 << 20);
        let publisher = Publisher::memory(core.intake(), config(), memory, 1 << 20);
        Self { history: publisher.history(), publisher, redis: None, _core: Some(core) }
    }

    async fn redis() -> Self {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(Duration::from_secs(10)).await);
        let publisher = Publisher::redis(commands.clone(), "tg:", config(), 1 << 20);
        let redis = Some((server, commands));
        Self { history: publisher.history(), publisher, redis, _core: None }
    }

    async fn publish(&self, channel: &ChannelName, json: &str) -> Published {
        let json = Bytes::copy_from_slice(json.as_bytes());
        self.publisher.publish(channel, json, None).await.unwrap()
    }

    /// Publishes `{"n":1}` to `{"n":count}` and returns the last one's position.
    async fn fill(&self, channel: &ChannelName, count: usize) -> Position {
        let mut last = None;
        for n in 1..=count {
            last = self.publish(channel, &format!("{{\"n\":{n}}}")).await.position;
        }
        last.expect("the channel keeps a history")
    }

    async fn read(&self, channel: &ChannelName, from: ReadFrom) -> Page {
        self.history.read(channel, from).await.unwrap()
    }
}

macro_rules! on_both_engines {
    ($($test:ident),* $(,)?) => {
        mod on_memory {
            use super::*;
            $(#[tokio::test(flavor = "current_thread")] async fn $test() {
                local(async { super::$test(Bench::memory()).await }).await;
            })*
        }
        mod on_redis {
            use super::*;
            $(#[tokio::test(flavor = "current_thread")] async fn $test() {
                local(async { super::$test(Bench::redis().await).await }).await;
            })*
        }
    };
}

on_both_engines! {
    offsets_grow_by_one_and_pages_follow_each_other,
    trimmed_publications_are_not_recovered,
    the_first_read_starts_an_epoch,
    a_repeat_is_recognised_by_its_key,
    several_publications_are_published_in_one_step,
    several_channels_have_their_own_outcomes,
    late_clients_start_at_the_running_generation,
    a_generation_that_gets_another_id_keeps_its_start_and_counts_once,
    the_gateways_terminal_event_records_the_end,
    a_generation_whose_start_was_trimmed_is_cut,
    a_page_is_limited_in_bytes,
    a_removed_publication_is_not_read,
    a_client_that_missed_nothing_resumes_after_expiry,
}

mod cancelled;
mod on_memory_only;
mod on_redis_only;

async fn local<T>(test: impl Future<Output = T>) -> T {
    let deadline = Duration::from_secs(60);
    tokio::time::timeout(deadline, LocalSet::new().run_until(test)).await.expect("in time")
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn at(position: Position, offset: u64) -> ReadFrom {
    ReadFrom::After(Position { offset, ..position })
}

fn offsets(page: &Page) -> Vec<u64> {
    page.publications.iter().map(|one| one.position.unwrap().offset).collect()
}

fn text(publication: &Delivery) -> &str {
    std::str::from_utf8(frame::payload(&publication.frame)).unwrap()
}

async fn a_generation_whose_start_was_trimmed_is_cut(bench: Bench) {
    let channel = channel("five_1");
    bench.fill(&channel, 2).await;
    bench.history.record_generation_start(&channel, "task", None).await.unwrap();
    bench.fill(&channel, 5).await;
    let page = bench.read(&channel, ReadFrom::Running).await;
    assert_eq!((page.after, page.is_cut), (Some(2), false));
    bench.fill(&channel, 1).await;
    let page = bench.read(&channel, ReadFrom::Running).await;
    assert_eq!((page.after, page.is_cut), (Some(3), true));
    bench.history.record_generation_end(&channel, "task").await.unwrap();
    let page = bench.read(&channel, ReadFrom::Running).await;
    assert_eq!((page.after, page.is_cut), (Some(8), false));
}

async fn offsets_grow_by_one_and_pages_follow_each_other(bench: Bench) {
    let channel = channel("long_1");
    let last = bench.fill(&channel, 2500).await;
    assert_eq!(last.offset, 2500);
    let mut after = 0;
    let mut sizes = Vec::new();
    loop {
        let page = bench.read(&channel, at(last, after)).await;
        assert_eq!((page.now, page.after), (last, Some(after)));
        let expected: Vec<u64> = (after + 1..).take(page.publications.len()).collect();
        assert_eq!(offsets(&page), expected);
        assert_eq!(text(&page.publications[1]), format!("{{\"n\":{0},\"offset\":{0}}}", after + 2));
        sizes.push(page.publications.len());
        after += page.publications.len() as u64;
        if page.complete {
            break;
        }
    }
    assert_eq!(sizes, [1000, 1000, 500]);
    let page = bench.read(&channel, at(last, 2500)).await;
    assert!(page.publications.is_empty() && page.complete && page.after == Some(2500));
}

async fn trimmed_publications_are_not_recovered(bench: Bench) {
    let channel = channel("five_1");
    let last = bench.fill(&channel, 12).await;
    assert_eq!(offsets(&bench.read(&channel, at(last, 7)).await), [8, 9, 10, 11, 12]);
    for since in [0, 6, 13, u64::MAX] {
        let page = bench.read(&channel, at(last, since)).await;
        assert_eq!((page.now, page.after), (last, None), "{since}");
    }
    let other = Position { epoch: Epoch::new(7).unwrap(), offset: 12 };
    assert_eq!(bench.read(&channel, ReadFrom::After(other)).await.after, None);
}

async fn the_first_read_starts_an_epoch(bench: Bench) {
    let channel = channel("five_1");
    let page = bench.read(&channel, ReadFrom::Running).await;
    assert_eq!((page.now.offset, page.after, page.complete), (0, Some(0), true));
    assert_eq!(bench.read(&channel, ReadFrom::Running).await.now, page.now);
    if let Some((_, commands)) = &bench.redis {
        // What a read creates expires soon.
        let ttl: u128 = commands.query(::redis::cmd("PTTL").arg("tg:{five_1}:meta")).await.unwrap();
        assert!((1..=TTL.as_millis()).contains(&ttl), "{ttl}");
    }
    let first = bench.fill(&channel, 1).await;
    assert_eq!(first, Position { offset: 1, ..page.now });
    let page = bench.read(&channel, at(page.now, 0)).await;
    let epoch = first.epoch;
    assert_eq!(text(&page.publications[0]), format!(r#"{{"n":1,"offset":1,"epoch":"{epoch}"}}"#));
}

async fn a_repeat_is_recognised_by_its_key(bench: Bench) {
    for name in ["five_1", "plain"] {
        let channel = channel(name);
        let once =
            |key: &str, number| PublishOnce { key: key.to_owned(), number, ttl: TTL, unless: None };
        let publish = async |once: &PublishOnce| {
            bench.publisher.publish(&channel, "{}".into(), Some(once)).await.unwrap()
        };
        let first = publish(&once("a", 1)).await;
        assert!(!first.duplicate);
        assert_eq!(first.position.is_some(), name == "five_1");
        assert_eq!(publish(&once("a", 1)).await, Published { duplicate: true, ..first });
        assert!(!publish(&once("a", 2)).await.duplicate);
        assert!(publish(&once("a", 1)).await.duplicate);
        assert!(!publish(&once("b", 1)).await.duplicate);
    }
    let page = bench.read(&channel("five_1"), ReadFrom::Running).await;
    assert_eq!(page.now.offset, 3);
}

async fn several_publications_are_published_in_one_step(bench: Bench) {
    let channel = channel("five_1");
    let data = ["{\"a\":1}", "[2]", "three"].map(|json| Bytes::from_static(json.as_bytes()));
    let published = bench.publisher.publish_all(&channel, &data, None).await.unwrap();
    let last = published.position.unwrap();
    assert_eq!(last.offset, 3);
    let page = bench.read(&channel, at(last, 1)).await;
    let texts: Vec<_> = page.publications.iter().map(text).collect();
    assert_eq!(
        texts,
        [
            r#"{"event":"message","data":[2],"offset":2}"#,
            r#"{"event":"message","data":"three","offset":3}"#
        ]
    );
}

async fn several_channels_have_their_own_outcomes(bench: Bench) {
    let json = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let data = |channel: &str, text: &str| (self::channel(channel), vec![json(text), json(text)]);
    let groups = [data("five_1", "{}"), data("unstored", "{}"), data("long_1", "{\"n\":1}")];
    let offsets = async |once: Option<&PublishOnce>| -> Vec<_> {
        let outcomes = bench.publisher.publish_each(&groups, once).await;
        let outcomes = outcomes.into_iter().map(Result::unwrap);
        outcomes.map(|one| (one.position.map(|at| at.offset), one.duplicate)).collect()
    };
    assert_eq!(offsets(None).await, [(Some(2), false), (None, false), (Some(2), false)]);
    let once = PublishOnce { key: "a".to_owned(), number: 1, ttl: TTL, unless: None };
    assert_eq!(offsets(Some(&once)).await, [(Some(4), false), (None, false), (Some(4), false)]);
    assert_eq!(offsets(Some(&once)).await, [(Some(4), true), (None, true), (Some(4), true)]);
    assert!(bench.publisher.publish_each(&[], None).await.is_empty());
    let large = "x".repeat(2 << 20);
    let outcomes = bench.publisher.publish_each(&[data("a", "{}"), data("b", &large)], None).await;
    let is_ok: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!((is_ok, outcomes[1]), (vec![true, false], Err(PublishError::TooLarge)));
}

async fn late_clients_start_at_the_running_generation(bench: Bench) {
    let channel = channel("five_1");
    bench.fill(&channel, 2).await;
    bench.history.record_generation_start(&channel, "one", None).await.unwrap();
    bench.fill(&channel, 2).await;
    bench.history.record_generation_start(&channel, "two", None).await.unwrap();
    bench.fill(&channel, 1).await;
    let seen = async || offsets(&bench.read(&channel, ReadFrom::Running).await);
    assert_eq!(seen().await, [3, 4, 5]);
    bench.history.record_generation_end(&channel, "one").await.unwrap();
    assert_eq!(seen().await, [5]);
    bench.history.record_generation_end(&channel, "two").await.unwrap();
    assert!(seen().await.is_empty());
    bench.history.record_generation_start(&channel, "three", None).await.unwrap();
    let last = bench.fill(&channel, 8).await;
    // The page starts at the oldest stored publication.
    let page = bench.read(&channel, ReadFrom::Running).await;
    assert_eq!(page.after, Some(last.offset - 5));
    assert_eq!(page.publications.len(), 5);
}

async fn a_generation_that_gets_another_id_keeps_its_start_and_counts_once(bench: Bench) {
    let channel = channel("five_1");
    let history = &bench.history;
    let seen = async || offsets(&bench.read(&channel, ReadFrom::Running).await);
    history.record_generation_start(&channel, "first", None).await.unwrap();
    bench.fill(&channel, 1).await;
    for (name, replaced) in [("second", "first"), ("third", "second"), ("third", "unknown")] {
        history.record_generation_start(&channel, name, Some(replaced)).await.unwrap();
        history.record_generation_end(&channel, replaced).await.unwrap();
        assert_eq!(seen().await, [1], "{name}");
    }
    history.record_generation_end(&channel, "third").await.unwrap();
    assert!(seen().await.is_empty());
    // One that was ended under its former id, or was never recorded, starts now.
    history.record_generation_start(&channel, "new", Some("first")).await.unwrap();
    bench.fill(&channel, 1).await;
    assert_eq!(seen().await, [2]);
}

async fn the_gateways_terminal_event_records_the_end(bench: Bench) {
    let channel = channel("five_1");
    for (task, cancellation) in [("one", None), ("two", Some(Cancellation { unnamed: None }))] {
        bench.history.record_generation_start(&channel, task, None).await.unwrap();
        bench.history.record_generation_start(&channel, "other", None).await.unwrap();
        let chunk = bench.fill(&channel, 1).await;
        let end = terminal_event(task, cancellation);
        let published = bench.publisher.end_generation(&channel, &end).await.unwrap();
        assert_eq!(published.position.unwrap().offset, chunk.offset + 1);
        let seen = offsets(&bench.read(&channel, ReadFrom::Running).await);
        assert_eq!(seen, [chunk.offset, chunk.offset + 1], "the other one still runs");
        bench.publisher.end_generation(&channel, &terminal_event("other", None)).await.unwrap();
        // Nothing else has recorded the end of either.
        assert!(offsets(&bench.read(&channel, ReadFrom::Running).await).is_empty());
        assert!(bench.publisher.end_generation(&channel, &end).await.unwrap().duplicate);
    }
}

async fn a_page_is_limited_in_bytes(bench: Bench) {
    let channel = channel("long_1");
    let json = format!("{{\"x\":\"{}\"}}", "y".repeat(100_000));
    let mut last = None;
    for _ in 0..20 {
        last = bench.publish(&channel, &json).await.position;
    }
    let page = bench.read(&channel, at(last.unwrap(), 0)).await;
    assert!(!page.complete);
    assert!(page.publications.len() < 20, "{}", page.publications.len());
}

async fn a_removed_publication_is_not_read(bench: Bench) {
    let channel = channel("five_1");
    let last = bench.fill(&channel, 4).await;
    bench.history.remove(&channel, Position { offset: 3, ..last }).await.unwrap();
    let page = bench.read(&channel, at(last, 1)).await;
    assert_eq!(offsets(&page), [2, 4]);
    assert!(page.complete);
    bench.history.remove(&channel, last).await.unwrap();
    let page = bench.read(&channel, at(last, 2)).await;
    assert!(page.publications.is_empty() && page.complete, "{page:?}");
}

async fn a_client_that_missed_nothing_resumes_after_expiry(bench: Bench) {
    let channel = channel("brief_1");
    let last = bench.fill(&channel, 3).await;
    let is_expired = async || bench.read(&channel, at(last, 2)).await.after.is_none();
    while !is_expired().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let page = bench.read(&channel, at(last, 3)).await;
    assert_eq!((page.now, page.after), (last, Some(3)));
    let mut next = bench.fill(&channel, 1).await;
    assert_eq!(next, Position { offset: 4, ..last });
    // On a busy machine it may have expired as well before it is read.
    loop {
        let page = bench.read(&channel, at(last, next.offset - 1)).await;
        if !page.publications.is_empty() {
            assert_eq!(offsets(&page), [next.offset]);
            break;
        }
        next = bench.fill(&channel, 1).await;
    }
}
