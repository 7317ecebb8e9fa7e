//! The bounds of the store in memory.

use super::*;

#[tokio::test(flavor = "current_thread")]
async fn memory_is_bounded_in_bytes() {
    let bench = Bench::with_memory(MemoryHistory::new(100_000));
    let json = format!("{{\"x\":\"{}\"}}", "y".repeat(1000));
    let mut first = None;
    for n in 0..500 {
        let channel = channel(&format!("five_{n}"));
        let position = bench.publish(&channel, &json).await.position.unwrap();
        first.get_or_insert(position);
    }
    let oldest = bench.read(&channel("five_0"), at(first.unwrap(), 0)).await;
    assert_eq!(oldest.after, None);
    let newest = bench.read(&channel("five_499"), ReadFrom::Running).await;
    assert_eq!(offsets(&bench.read(&channel("five_499"), at(newest.now, 0)).await), [1]);
}

#[tokio::test(flavor = "current_thread")]
async fn empty_channels_are_bounded_and_cost_no_channel_its_publications() {
    let memory = MemoryHistory::new(100_000);
    let bench = Bench::with_memory(memory.clone());
    let stored = bench.fill(&channel("five_0"), 5).await;
    let brief = bench.fill(&channel("brief_0"), 5).await;
    for n in 1..5000 {
        bench.read(&channel(&format!("five_{n}")), ReadFrom::Running).await;
    }
    let is_kept = |n: usize| memory.extent(&channel(&format!("five_{n}"))).is_some();
    assert_eq!(offsets(&bench.read(&channel("five_0"), at(stored, 0)).await), [1, 2, 3, 4, 5]);
    let kept = (1..5000).filter(|n| is_kept(*n)).count();
    assert!((10..=50).contains(&kept), "{kept} empty channels");
    assert!(is_kept(4999), "the newest");
    // A channel whose publications have expired is empty and keeps its epoch.
    let path = channel("brief_0");
    while memory.extent(&path).is_some_and(|extent| extent.kept > 0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (next, _) = (bench.fill(&path, 1).await, bench.fill(&channel("five_1"), 1).await);
    assert_eq!(next, Position { offset: 6, ..brief });
}
