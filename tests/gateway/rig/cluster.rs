//! A real Redis Cluster: masters that share the slots, each with a replica or none.

use std::fs::File;
use std::path::PathBuf;

use futures_util::future::join_all;

use super::{Redis, until};

/// How many slots a cluster has.
const SLOTS: usize = 16384;

/// Its nodes: first the masters in the order of their slots, then the replicas in the same order. They are killed when it
/// is dropped.
pub struct Cluster {
    pub nodes: Vec<Redis>,
    masters: usize,
}

impl Cluster {
    /// Three masters. What works goes on while one is dead.
    pub async fn start() -> Self {
        Self::start_as(false).await
    }

    /// The same with a replica of each.
    pub async fn start_with_replicas() -> Self {
        Self::start_as(true).await
    }

    async fn start_as(with_replicas: bool) -> Self {
        let masters = 3;
        let count = if with_replicas { 2 * masters } else { masters };
        let options = [
            ["--cluster-enabled", "yes"],
            ["--cluster-node-timeout", "1000"],
            ["--cluster-require-full-coverage", "no"],
            ["--cluster-replica-validity-factor", "0"],
        ]
        .concat();
        let nodes = join_all((0..count).map(|_| Redis::start_with(&options))).await;
        let cluster = Self { nodes, masters };
        let (_, first_port) = cluster.host_and_port(0);
        for (at, node) in cluster.nodes.iter().enumerate() {
            let () = node.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]).await;
            if at < masters {
                let (from, to) = (at * SLOTS / masters, (at + 1) * SLOTS / masters - 1);
                let (from, to) = (from.to_string(), to.to_string());
                let () = node.run(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]).await;
            }
            if at > 0 {
                let () = node.run(&["CLUSTER", "MEET", "127.0.0.1", &first_port]).await;
            }
        }
        let known = format!("cluster_known_nodes:{count}\r");
        for node in &cluster.nodes {
            until("nodes that know each other", async || {
                let info: String = node.run(&["CLUSTER", "INFO"]).await;
                info.contains(&known).then_some(())
            })
            .await;
        }
        for at in masters..count {
            let master: String = cluster.nodes[at - masters].run(&["CLUSTER", "MYID"]).await;
            until("replica that is one", async || {
                // It may not have heard from its master yet.
                let mut connection = cluster.nodes[at].connection().await;
                let mut replicate = redis::cmd("CLUSTER");
                replicate.arg("REPLICATE").arg(&master);
                replicate.query_async::<()>(&mut connection).await.ok()
            })
            .await;
            until("replica that follows", async || {
                let info: String = cluster.nodes[at].run(&["INFO", "replication"]).await;
                info.contains("master_link_status:up").then_some(())
            })
            .await;
        }
        for node in &cluster.nodes {
            until("cluster that is ok", async || {
                let info: String = node.run(&["CLUSTER", "INFO"]).await;
                info.contains("cluster_state:ok").then_some(())
            })
            .await;
        }
        cluster
    }

    /// The URL with its masters.
    pub fn url(&self) -> String {
        let masters: Vec<String> = self.nodes[..self.masters].iter().map(Redis::address).collect();
        format!("redis-cluster://{}", masters.join(","))
    }

    /// The slot of `key`.
    pub async fn slot_of(&self, key: &str) -> usize {
        self.nodes[self.nodes.len() - 1].run(&["CLUSTER", "KEYSLOT", key]).await
    }

    /// Which of the masters had the slot of `key` at the start.
    pub async fn master_of(&self, key: &str) -> usize {
        self.slot_of(key).await * self.masters / SLOTS
    }

    /// Waits until `replica` is a master.
    pub async fn promoted(&self, replica: usize) {
        until("promoted replica", async || {
            let info: String = self.nodes[replica].run(&["INFO", "replication"]).await;
            info.contains("role:master").then_some(())
        })
        .await;
    }

    /// Begins to move `slot`: keys that are not at `from` are looked for at `to`.
    pub async fn begin_move(&self, slot: usize, from: usize, to: usize) {
        let slot = slot.to_string();
        let id = async |node: usize| self.nodes[node].run::<String>(&["CLUSTER", "MYID"]).await;
        let (source, target) = (id(from).await, id(to).await);
        let () = self.nodes[to].run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]).await;
        let () = self.nodes[from].run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]).await;
    }

    /// Moves the keys of `slot`.
    pub async fn move_keys(&self, slot: usize, from: usize, to: usize) {
        let (slot, (host, port)) = (slot.to_string(), self.host_and_port(to));
        loop {
            let listing = ["CLUSTER", "GETKEYSINSLOT", &slot, "100"];
            let keys: Vec<String> = self.nodes[from].run(&listing).await;
            if keys.is_empty() {
                return;
            }
            let mut migrate = vec!["MIGRATE", &host, &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            let _: String = self.nodes[from].run(&migrate).await;
        }
    }

    /// Ends the move of `slot`.
    pub async fn end_move(&self, slot: usize, from: usize, to: usize) {
        let target: String = self.nodes[to].run(&["CLUSTER", "MYID"]).await;
        for node in [to, from] {
            let set = ["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &target];
            let () = self.nodes[node].run(&set).await;
        }
    }

    fn host_and_port(&self, node: usize) -> (String, String) {
        let address = self.nodes[node].address();
        let (host, port) = address.split_once(':').expect("an address");
        (host.to_owned(), port.to_owned())
    }
}

/// A cluster of one of the gateways of a test: one of those in `TIDEGATE_TEST_CLUSTERS`, which nobody else uses at the
/// same time, or one of its own.
pub enum AnyCluster {
    Pooled { url: String, _lock: File },
    Own(Cluster),
}

impl AnyCluster {
    pub async fn get() -> Self {
        let Ok(directory) = std::env::var("TIDEGATE_TEST_CLUSTERS") else {
            return Self::Own(Cluster::start().await);
        };
        // `scripts/test-cluster` writes a file for each cluster, with its URL.
        let entries = std::fs::read_dir(&directory).expect("the directory of the clusters");
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        until("free cluster", async || {
            for file in &files {
                let lock = File::open(file).expect("the file of a cluster");
                if lock.try_lock().is_ok() {
                    let url = std::fs::read_to_string(file).expect("the URL of a cluster");
                    let url = url.trim().to_owned();
                    flush(&url).await;
                    return Some(Self::Pooled { url, _lock: lock });
                }
            }
            None
        })
        .await
    }

    pub fn url(&self) -> String {
        match self {
            Self::Pooled { url, .. } => url.clone(),
            Self::Own(cluster) => cluster.url(),
        }
    }
}

/// Empties all masters of a cluster.
async fn flush(url: &str) {
    let nodes = url.trim_start_matches("redis-cluster://").split(',');
    for node in nodes {
        let client = redis::Client::open(format!("redis://{node}")).expect("a URL");
        let mut connection =
            client.get_multiplexed_async_connection().await.expect("a node of the cluster");
        let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.expect("it is emptied");
        let () = redis::cmd("SCRIPT")
            .arg("FLUSH")
            .query_async(&mut connection)
            .await
            .expect("scripts are forgotten");
    }
}
