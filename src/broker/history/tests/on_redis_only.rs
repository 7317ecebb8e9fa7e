//! What only several nodes, or faults of Redis, can do to a history.

use super::*;

#[tokio::test(flavor = "current_thread")]
async fn an_end_is_recorded_by_whichever_node_delivers_it() {
    local(async {
        let (bench, channel) = (Bench::redis().await, channel("long_1"));
        let history = &bench.history;
        let start = async |task| {
            history.record_generation_start(&channel, task, None).await.unwrap();
            bench.fill(&channel, 1).await.offset
        };
        let settle = async |task, offset| {
            history.settle_generation(&channel, task, offset).await.unwrap();
        };
        let end = async |task| history.record_generation_end(&channel, task).await.unwrap();
        let state = async |task| history.generation_state(&channel, task).await.unwrap().unwrap();
        let seen = async || offsets(&bench.read(&channel, ReadFrom::Running).await);

        let one = start("one").await;
        assert_eq!(seen().await, [one]);
        settle(None, one - 1).await;
        assert_eq!(state("one").await.start, Some(one - 1), "that event came before it");
        settle(None, one).await;
        assert!(state("one").await.has_ended);
        assert!(seen().await.is_empty());
        settle(None, one).await;
        end("one").await;
        assert_eq!(
            state("one").await,
            GenerationState { start: None, has_ended: false, ..state("one").await }
        );

        // With two, only a task id tells which of them has ended.
        let (one, two) = (start("one").await, start("two").await);
        settle(None, two).await;
        assert_eq!(seen().await, [one, two]);
        settle(Some("one"), two).await;
        assert_eq!(seen().await, [two]);
        // Another node delivers the first one's end again, when its own node has recorded it.
        end("one").await;
        settle(None, two).await;
        assert_eq!((seen().await, state("two").await.others), (vec![two], 1));
        // An event that comes after the end of the one is not its own.
        let later = bench.fill(&channel, 1).await.offset;
        settle(None, later).await;
        assert!(seen().await.is_empty() && state("two").await.has_ended);
        // An id that is used again runs again.
        let again = start("one").await;
        end("two").await;
        assert_eq!(seen().await, [again]);
        end("one").await;
        let running = bench.history.in_redis().unwrap().key(&channel, "running");
        let mut exists = ::redis::cmd("EXISTS");
        let commands = bench.history.in_redis().unwrap().commands();
        let left: u64 = commands.query(exists.arg(running)).await.unwrap();
        assert_eq!(left, 0);
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_history_that_lost_its_end_continues_under_another_epoch() {
    let bench = Bench::redis().await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    let channel = channel("five_1");
    let last = bench.fill(&channel, 4).await;
    // This is the state after a failover to a replica that was behind.
    let mut rewind = ::redis::pipe();
    rewind.cmd("XDEL").arg("tg:{five_1}:stream").arg("3-0").arg("4-0").ignore();
    rewind.cmd("HSET").arg("tg:{five_1}:meta").arg("offset").arg(2).ignore();
    let () = commands.pipeline(&rewind).await.unwrap();
    bench.history.rotate_epoch(&channel, Position { offset: 2, ..last }).await.unwrap();
    assert_eq!(bench.read(&channel, ReadFrom::Running).await.now.epoch, last.epoch);
    bench.history.rotate_epoch(&channel, last).await.unwrap();
    let page = bench.read(&channel, at(last, 2)).await;
    assert_eq!(page.after, None);
    assert_ne!(page.now.epoch, last.epoch);
}

#[tokio::test(flavor = "current_thread")]
async fn an_evicted_key_makes_the_history_lost() {
    let bench = Bench::redis().await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    let channel = channel("five_1");
    for part in ["stream", "meta"] {
        let last = bench.fill(&channel, 3).await;
        let mut evict = ::redis::cmd("DEL");
        evict.arg(format!("tg:{{five_1}}:{part}"));
        let () = commands.query(&evict).await.unwrap();
        assert_eq!(bench.read(&channel, at(last, 1)).await.after, None, "{part}");
        let next = bench.fill(&channel, 1).await;
        let page = bench.read(&channel, at(next, next.offset - 1)).await;
        assert_eq!(offsets(&page), [next.offset], "{part}");
    }
}

/// On a cluster a script may only touch keys of one slot.
#[tokio::test(flavor = "current_thread")]
async fn the_keys_of_a_channel_share_a_cluster_slot() {
    let (_server, cluster) = RedisServer::start_cluster().await;
    let publisher = Publisher::redis(cluster.clone(), "tg:", config(), 1 << 20);
    let channel = channel("five_1");
    let once = PublishOnce { key: "k".to_owned(), number: 1, ttl: TTL, unless: None };
    let published = publisher.publish(&channel, "{}".into(), Some(&once)).await.unwrap();
    let history = publisher.history();
    history.record_generation_start(&channel, "t", None).await.unwrap();
    let cancellation = Some(Cancellation { unnamed: None });
    publisher.end_generation(&channel, &terminal_event("t", cancellation)).await.unwrap();
    let event = r#"{"event":"chunk","task_id":"t"}"#;
    assert!(publisher.publish(&channel, event.into(), None).await.unwrap().refused);
    let page = history.read(&channel, at(published.position.unwrap(), 0)).await.unwrap();
    assert_eq!(offsets(&page), [1, 2]);
    let slot = async |key: &str| -> i64 {
        cluster.query(::redis::cmd("CLUSTER").arg("KEYSLOT").arg(key)).await.unwrap()
    };
    let own = slot("five_1").await;
    for part in ["stream", "meta", "running", "once:k", "once:end:t"] {
        assert_eq!(slot(&format!("tg:{{five_1}}:{part}")).await, own);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_channel_that_redis_refuses_costs_no_other_its_publications() {
    local(async {
        let bench = Bench::redis().await;
        let (_, commands) = bench.redis.as_ref().unwrap();
        let () =
            commands.query(::redis::cmd("SET").arg("tg:{long_1}:meta").arg("text")).await.unwrap();
        let _: () = commands.query(::redis::cmd("SCRIPT").arg("FLUSH")).await.unwrap();
        let groups: Vec<_> = (0..600)
            .map(|number| (channel(&format!("long_{number}")), vec![Bytes::from_static(b"{}"); 2]))
            .collect();
        let outcomes = bench.publisher.publish_each(&groups, None).await;
        for (number, outcome) in outcomes.into_iter().enumerate() {
            let offset = outcome.map(|one| one.position.unwrap().offset);
            let expected = if number == 1 { Err(PublishError::EngineUnavailable) } else { Ok(2) };
            assert_eq!(offset, expected, "long_{number}");
        }
    })
    .await;
}
