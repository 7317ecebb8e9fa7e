//! What the users of Redis send commands with, be it one server or a cluster.
//!
//! A server has one supervised link, which every command goes over. In a cluster each node has one, and a command goes to
//! the node that has its keys.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::Either;
use redis::{Cmd, FromRedisValue, Pipeline, ScriptInvocation};
use tokio::sync::watch;
use tokio::time::timeout;

use super::RedisFailure;
use super::cluster::{ClusterCommands, Topology};
use super::primary::Primary;
use super::probe::Needs;
use super::server::{ServerCommands, all};
use super::slots::tagged;
use crate::config::RedisUrl;
use crate::shutdown::Shutdown;

/// Supervised connections for commands, for use from any thread. Clones share them, and they end with the last clone.
#[derive(Clone)]
pub struct Commands(pub(super) Target);

#[derive(Clone)]
pub(super) enum Target {
    Server(ServerCommands),
    Cluster(Arc<ClusterCommands>),
}

impl Commands {
    /// Checks `url` and starts the supervisor on the current runtime. `name` is the label in logs and metrics; that of a
    /// node of a cluster ends with its number. It is not an error if Redis cannot be reached: the supervisor keeps trying.
    pub fn start(url: &RedisUrl, name: &str, shutdown: &Shutdown) -> Result<Self, String> {
        Ok(Self(match url.is_cluster() {
            false => Target::Server(ServerCommands::start(url, name, shutdown)?),
            true => Target::Cluster(Arc::new(ClusterCommands::start(url, name, shutdown)?)),
        }))
    }

    /// Whether the keys are spread over the nodes of a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.0, Target::Cluster(_))
    }

    /// The nodes of the cluster, if it is one.
    pub fn topology(&self) -> Option<&Topology> {
        match &self.0 {
            Target::Server(_) => None,
            Target::Cluster(cluster) => Some(cluster.topology()),
        }
    }

    /// The key `{prefix}{name}:{part}`, which belongs to a channel, with braces around the name. In a cluster it is in the
    /// slot in which sharded pub/sub has the channel.
    pub fn channel_key(&self, prefix: &str, name: &str, part: &str) -> String {
        match self.is_cluster() {
            false => format!("{prefix}{{{name}}}:{part}"),
            true => format!("{prefix}{}:{part}", tagged(name)),
        }
    }

    /// The command that publishes to the channels of clients.
    pub fn publish_command(&self) -> &'static str {
        if self.is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }

    /// The text of a script that publishes to the channels of clients, as the server or the cluster needs it.
    pub fn script_source(&self, source: &'static str) -> &'static str {
        if self.is_cluster() { sharded(source) } else { source }
    }

    /// Where links to the one server lead. Must not be called of a cluster, which has several.
    pub(super) fn server_primary(&self) -> Primary {
        match &self.0 {
            Target::Server(server) => server.shared.primary.clone(),
            Target::Cluster(cluster) => {
                Primary::OwnerOf { topology: cluster.topology().clone(), slot: 0 }
            }
        }
    }

    /// Declares what `user` sends over this connection from now on, instead of what it has declared before. Redis is
    /// probed for it every few seconds, and [`Commands::check`] reports what is refused.
    pub fn declare(&self, user: &'static str, needs: Needs) {
        match &self.0 {
            Target::Server(server) => server.declare(user, needs),
            Target::Cluster(cluster) => cluster.declare(user, needs),
        }
    }

    /// For readiness checks: whether there is a connection, and Redis accepts what was declared; in a cluster, whether
    /// this is so of at least one node that has keys. The error is for operators; it has the command and the reason that
    /// Redis gave.
    pub fn check(&self) -> Result<(), String> {
        match &self.0 {
            Target::Server(server) => server.check(),
            Target::Cluster(cluster) => cluster.check(),
        }
    }

    /// [`Commands::check`] of all servers in this process whose name begins with `prefix`; the error begins with the
    /// name.
    pub fn check_named(prefix: &str) -> Result<(), String> {
        let mut all = all();
        all.retain(|shared| shared.strong_count() > 0);
        let named = all.iter().filter_map(Weak::upgrade);
        for shared in named.filter(|shared| shared.name.starts_with(prefix)) {
            shared.check().map_err(|problem| format!("{}: {problem}", shared.name))?;
        }
        Ok(())
    }

    /// Whether both are the same connection, so that a chain can have steps of the users of both.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Target::Server(one), Target::Server(other)) => one.is_same(other),
            (Target::Cluster(one), Target::Cluster(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Gives up every connection to the server of this one, whatever it is used for, so that all are opened again and
    /// lead to the same server. In a cluster, where each link knows its node, nothing is done.
    pub fn reconnect_all(&self, reason: &'static str) {
        if let Target::Server(server) = &self.0 {
            server.reconnect_all(reason);
        }
    }

    // The calls of a cluster, and those with sentinels, are in a box, so that others are no larger than without them.

    /// Sends one command and waits for its answer, for at most two seconds.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        match &self.0 {
            Target::Server(server) if server.has_sentinels() => {
                Box::pin(server.confirmed(server.query(command))).await
            }
            Target::Server(server) => server.query(command).await,
            Target::Cluster(cluster) => Box::pin(cluster.query(command, None)).await,
        }
    }

    /// Calls a script with EVALSHA, after SCRIPT LOAD if the server does not know it yet. Waits for at most two
    /// seconds in total. In a cluster all keys must be in one slot.
    pub async fn invoke<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        match &self.0 {
            Target::Server(server) if server.has_sentinels() => {
                Box::pin(server.confirmed(server.invoke(script))).await
            }
            Target::Server(server) => server.invoke(script).await,
            Target::Cluster(cluster) => Box::pin(cluster.invoke(script)).await,
        }
    }

    /// Sends all commands of `pipeline`, whose answers are all ignored, in one write to each server, and waits for at
    /// most two seconds. An error answer to one command is returned for all of them, although the others ran.
    pub async fn pipeline(&self, pipeline: &Pipeline) -> Result<(), RedisFailure> {
        match &self.0 {
            Target::Server(server) if server.has_sentinels() => {
                Box::pin(server.confirmed(server.pipeline(pipeline))).await
            }
            Target::Server(server) => server.pipeline(pipeline).await,
            Target::Cluster(cluster) => Box::pin(cluster.pipeline(pipeline)).await,
        }
    }

    /// Records that Redis has refused a part of a script.
    pub(super) fn record_refusal(&self, reason: &str) {
        match &self.0 {
            Target::Server(server) => server.record_refusal(reason),
            Target::Cluster(cluster) => cluster.record_refusal(reason),
        }
    }

    /// Returns a receiver that reports whether the last check was passed, in a cluster that of any node.
    pub fn subscribe_up(&self) -> watch::Receiver<bool> {
        match &self.0 {
            Target::Server(server) => server.subscribe_up(),
            Target::Cluster(cluster) => cluster.topology().subscribe_up(),
        }
    }

    /// Whether the last check was passed: the server answers and is the primary.
    #[cfg(test)]
    pub fn is_up(&self) -> bool {
        *self.subscribe_up().borrow()
    }

    /// Waits until there is a connection, for at most `deadline`. Returns whether there is one.
    pub async fn wait_up(&self, deadline: Duration) -> bool {
        let mut up = self.subscribe_up();
        timeout(deadline, up.wait_for(|up| *up)).await.is_ok_and(|changed| changed.is_ok())
    }

    /// Keeps connections for the commands of the current thread, until the process is killed or this is dropped. Does
    /// nothing on the thread that drives the shared connections.
    pub fn serve_thread(&self, shutdown: &Shutdown) -> impl Future<Output = ()> + use<> {
        match &self.0 {
            Target::Server(server) => Either::Left(server.serve_thread(shutdown)),
            Target::Cluster(cluster) => {
                let serving = cluster.topology().clone().serve_thread(shutdown.clone());
                Either::Right(serving)
            }
        }
    }
}

/// The same script with sharded pub/sub.
fn sharded(source: &'static str) -> &'static str {
    /// As many as there are scripts.
    static SHARDED: Mutex<BTreeMap<&'static str, &'static str>> = Mutex::new(BTreeMap::new());

    let mut known = SHARDED.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .entry(source)
        .or_insert_with(|| source.replace("redis.call('PUBLISH'", "redis.call('SPUBLISH'").leak())
}

#[cfg(test)]
mod tests;
