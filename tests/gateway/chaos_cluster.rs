//! The chaos test on a real Redis Cluster: slots move and a master dies while clients of two gateways, which are replaced
//! too, follow streams.

use rustix::process::Signal;

use crate::chaos::{
    DEVICES, FAULT_EVERY, Outcome, PUBLISH, World, is_ready, number, publications, replace,
    settings,
};
use crate::rig::{Cluster, Gateway};

/// How many slots move, one after the other.
const MOVES: usize = 5;

#[tokio::test]
async fn every_stream_arrives_once_and_in_order_while_slots_move_and_a_master_dies() {
    let clients = number("TIDEGATE_CHAOS_CLIENTS", 100);
    let channels = clients.div_ceil(DEVICES);
    let mut cluster = Cluster::start_with_replicas().await;
    let url = cluster.url();
    let mut gateways = [Gateway::start(settings(&url)).await, Gateway::start(settings(&url)).await];
    for gateway in &gateways {
        is_ready(gateway).await;
    }
    let nodes = cluster.nodes.iter().map(crate::rig::Redis::url).collect();
    let script = PUBLISH.replace("'PUBLISH'", "'SPUBLISH'");
    let world = World::new(nodes, &script, &gateways);
    let tasks = world.start(channels);
    let pause = FAULT_EVERY * channels as u64;
    publications(&world, pause).await;
    for number in 0..MOVES.min(channels) {
        let channel = format!("stream_{number}");
        let (slot, from) = (cluster.slot_of(&channel).await, cluster.master_of(&channel).await);
        let to = (from + 1) % 3;
        cluster.begin_move(slot, from, to).await;
        publications(&world, channels as u64).await;
        cluster.move_keys(slot, from, to).await;
        publications(&world, channels as u64).await;
        cluster.end_move(slot, from, to).await;
    }
    publications(&world, pause).await;
    replace(&world, &mut gateways, 0, &url, Signal::KILL).await;
    publications(&world, pause).await;
    let dies = cluster.master_of(&format!("stream_{}", channels - 1)).await;
    {
        // Redis answers before it replicates, and does not keep what it has not replicated.
        let _nothing_is_published = world.publishing.write().await;
        let replicas: i64 = cluster.nodes[dies].run(&["WAIT", "1", "10000"]).await;
        assert_eq!(replicas, 1);
        cluster.nodes[dies].stop();
    }
    cluster.promoted(3 + dies).await;
    publications(&world, pause).await;
    replace(&world, &mut gateways, 1, &url, Signal::TERM).await;
    publications(&world, pause).await;
    let Outcome { lost, repeated, told } = world.finish(tasks).await;
    assert_eq!((lost, repeated), (0, 0), "told {told}");
    assert!(told <= (channels * DEVICES) as u64, "{told}");
}
