//! Reads the map of slots from the nodes, and starts and ends the links to them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use futures_util::future::Either;
use futures_util::stream::FuturesUnordered;
use redis::{AsyncConnectionConfig, ConnectionAddr};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::map::{Node, SlotMap};
use super::view::{self, Master, View};
use super::{
    CONFIRMATION, MAX_ASKED, MIN_PAUSE, NodeSlots, OTHERS, PATIENCE, PERIOD, PERIOD_UNSETTLED,
    State, Topology,
};
use crate::config::RedisUrl;
use crate::redis_link::open::{self, COMMAND_DEADLINE};
use crate::redis_link::reason::describe;
use crate::redis_link::server::ServerCommands;
use crate::redis_link::slots::SLOTS;
use crate::telemetry;

impl Topology {
    pub(super) async fn keep_current(&self) {
        loop {
            self.refresh().await;
            let pause = if self.update_up() { PERIOD } else { PERIOD_UNSETTLED };
            // What comes during the read makes for another one.
            let _ = timeout(pause, self.0.refresh.notified()).await;
            self.update_up();
            sleep(MIN_PAUSE).await;
        }
    }

    /// The cluster can be used once all masters with slots are there, or some of them have not come for [`PATIENCE`]; and
    /// from then on as long as one of them is. Returns whether all are there and have all slots.
    fn update_up(&self) -> bool {
        let map = self.0.map.load();
        let (up, down): (Vec<_>, Vec<_>) = map.owners().partition(|node| node.commands.is_up());
        let is_settled = down.is_empty() && map.is_complete();
        let can_be_used = !up.is_empty()
            && (is_settled || *self.0.up.borrow() || self.0.began.elapsed() > PATIENCE);
        self.0.up.send_if_modified(|was| std::mem::replace(was, can_be_used) != can_be_used);
        is_settled
    }

    /// Reads the map from some of the nodes, or from those that the URL names.
    async fn refresh(&self) {
        match self.views().await {
            Ok(views) => {
                let problem = self.apply(&view::merge(&views)).err();
                self.0.problem.store(problem.map(Arc::new));
            }
            Err(reason) => {
                let before = self.0.problem.swap(Some(Arc::new(reason.clone())));
                let changed = before.is_none_or(|before| *before != reason);
                telemetry::engine::cluster_unknown(&self.0.name, &reason, changed);
            }
        }
    }

    /// Asks the nodes that can be reached; if there is none, every address that is known. `Err` has the first reason.
    async fn views(&self) -> Result<Vec<View>, String> {
        let map = self.0.map.load_full();
        let mut up: Vec<_> = map.nodes.iter().filter(|node| node.commands.is_up()).collect();
        let mut asked = FuturesUnordered::new();
        if !up.is_empty() {
            let turn = self.0.turn.fetch_add(1, Ordering::Relaxed) % up.len();
            up.rotate_left(turn);
        }
        for node in up.into_iter().take(MAX_ASKED) {
            asked.push(Either::Left(async move {
                let text = node.commands.query::<String>(&nodes_command()).await;
                let text = text.map_err(|failure| failure.to_string())?;
                view::parse(&text, &node.host)
            }));
        }
        if asked.is_empty() {
            let urls = self.0.url.seeds();
            let known = map.nodes.iter().map(|node| self.0.url.at(&node.host, node.port));
            for url in urls.chain(known) {
                asked.push(Either::Right(ask_anybody(url)));
            }
        }
        let (mut views, mut error) = (Vec::new(), None);
        let mut deadline = Instant::now() + COMMAND_DEADLINE + COMMAND_DEADLINE;
        while let Ok(Some(answer)) = timeout_at(deadline, asked.next()).await {
            match answer {
                Ok(view) => {
                    views.push(view);
                    deadline = deadline.min(Instant::now() + OTHERS);
                }
                Err(reason) => error = error.or(Some(reason)),
            }
        }
        match views.is_empty() {
            false => Ok(views),
            true => Err(error.unwrap_or_else(|| "no node answers".to_owned())),
        }
    }

    /// Whether the nodes that can be reached take this one for a master that has slots. `false` if they do not say so in
    /// time.
    pub(super) async fn is_still_owner(&self, node: &Node) -> bool {
        let Ok(Ok(views)) = timeout(CONFIRMATION, self.views()).await else { return false };
        let masters = view::merge(&views);
        masters.iter().any(|master| node.is_at(&master.host, master.port) && master.slots() > 0)
    }

    /// Starts links to masters that are new, and ends those to others.
    fn apply(&self, masters: &[Master]) -> Result<(), String> {
        let before = self.0.map.load_full();
        let mut nodes: Vec<Arc<Node>> = Vec::with_capacity(masters.len());
        for master in masters {
            let known = before.nodes.iter().find(|node| node.is_at(&master.host, master.port));
            if let Some(node) = known {
                nodes.push(Arc::clone(node));
                continue;
            }
            // The links of nodes that are gone lend their numbers, so that there are no more of these than nodes.
            let is_kept = |node: &Node| masters.iter().any(|m| node.is_at(&m.host, m.port));
            let kept = before.nodes.iter().filter(|node| is_kept(node));
            let taken: Vec<usize> = kept.chain(&nodes).map(|node| node.number).collect();
            let number = (0..).find(|number| !taken.contains(number)).unwrap_or_default();
            nodes.push(self.start_node(master, number)?);
        }
        let map = SlotMap::new(nodes, masters);
        if map == *before {
            return Ok(());
        }
        for gone in
            before.nodes.iter().filter(|node| !map.nodes.iter().any(|n| Arc::ptr_eq(n, node)))
        {
            let is_replaced = map.nodes.iter().any(|node| node.number == gone.number);
            telemetry::engine::cluster_node_gone(gone.name(), &gone.address, is_replaced);
        }
        telemetry::engine::cluster_changed(&self.0.name, map.owners().count(), map.is_complete());
        self.0.map.store(Arc::new(map));
        self.0.version.send_modify(|version| *version += 1);
        Ok(())
    }

    fn start_node(&self, master: &Master, number: usize) -> Result<Arc<Node>, String> {
        let State { url, name, shutdown, .. } = &*self.0;
        let is_tls = matches!(url.info().addr(), ConnectionAddr::TcpTls { .. });
        // A certificate is one of a name, if the node has one.
        let name_of_node = master.hostname.as_deref().filter(|_| is_tls);
        let host = name_of_node.unwrap_or(&master.host);
        let client = open::client(&url.at(host, master.port))?;
        let slots = NodeSlots::none();
        let label = format!("{name}.shard{number}");
        let commands = ServerCommands::start_node(client.clone(), slots.clone(), &label, shutdown);
        for (user, needs) in &*self.0.needs() {
            commands.declare(user, needs.clone());
        }
        let (mut up, state) = (commands.subscribe_up(), Arc::downgrade(&self.0));
        tokio::spawn(async move {
            while up.changed().await.is_ok() {
                match state.upgrade() {
                    Some(state) => state.refresh.notify_one(),
                    None => return,
                }
            }
        });
        Ok(Arc::new(Node::new(master, client, commands, slots, number)))
    }
}

fn nodes_command() -> redis::Cmd {
    let mut nodes = redis::cmd("CLUSTER");
    nodes.arg("NODES");
    nodes
}

/// Asks a node, whatever its role is, over a connection of its own.
async fn ask_anybody(url: RedisUrl) -> Result<View, String> {
    let client = open::client(&url)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(COMMAND_DEADLINE))
        .set_response_timeout(Some(COMMAND_DEADLINE));
    let asked = async {
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        nodes_command().query_async::<String>(&mut connection).await
    };
    let address = url.info().addr().to_string();
    let text = match timeout(COMMAND_DEADLINE, asked).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(format!("{address}: {}", describe(&error))),
        Err(_) => return Err(format!("{address}: no answer within {COMMAND_DEADLINE:?}")),
    };
    let host = match url.info().addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
        _ => "",
    };
    view::parse(&text, host)
}

/// Asks the nodes of a cluster once. Returns the URL of each master that has slots.
pub(in crate::redis_link) async fn find_masters(url: &RedisUrl) -> Result<Vec<RedisUrl>, String> {
    let mut asked: FuturesUnordered<_> = url.seeds().map(ask_anybody).collect();
    let (mut views, mut error) = (Vec::new(), None);
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(view) => views.push(view),
            Err(reason) => error = error.or(Some(reason)),
        }
    }
    if views.is_empty() {
        return Err(error.unwrap_or_else(|| "no node answers".to_owned()));
    }
    let masters = view::merge(&views);
    let is_tls = matches!(url.info().addr(), ConnectionAddr::TcpTls { .. });
    let held: usize = masters.iter().map(Master::slots).sum();
    if held < usize::from(SLOTS) {
        return Err(format!("{} slots have no node", usize::from(SLOTS) - held));
    }
    let owners = masters.iter().filter(|master| master.slots() > 0);
    let host = |master: &Master| {
        master.hostname.clone().filter(|_| is_tls).unwrap_or_else(|| master.host.clone())
    };
    Ok(owners.map(|master| url.at(&host(master), master.port)).collect())
}
