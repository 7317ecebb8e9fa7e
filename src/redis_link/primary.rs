//! Where the links of one use lead: which address is the primary now is asked each time that one is opened.

use std::borrow::Cow;
use std::sync::Arc;

use redis::Client;

use super::cluster::Topology;
use super::open;
use super::sentinel::Sentinels;
use super::slots::slot_of;
use super::{Commands, ConnectionError};
use crate::config::RedisUrl;

/// A server that is found by its role. Cheap to clone.
#[derive(Clone)]
pub enum Primary {
    /// The one server that a URL names.
    Server(Arc<Client>),
    /// The server that sentinels name.
    Sentinels(Arc<Sentinels>),
    /// The node of a cluster that has a slot.
    OwnerOf { topology: Topology, slot: u16 },
}

impl Primary {
    /// The server that `url` names, or that its sentinels name. It must not be the URL of a cluster.
    ///
    /// # Errors
    /// The URL is not valid. No part of it is shown.
    pub fn named(url: &RedisUrl) -> Result<Self, String> {
        match url.sentinel_name() {
            Some(_) => Sentinels::of(url).map(Self::Sentinels),
            None => open::client(url).map(Arc::new).map(Self::Server),
        }
    }

    /// The server of `commands`; of a cluster the node that has `key`.
    pub fn of(commands: &Commands, key: &str) -> Self {
        match commands.topology() {
            Some(topology) => {
                Self::OwnerOf { topology: topology.clone(), slot: slot_of(key.as_bytes()) }
            }
            None => commands.server_primary(),
        }
    }

    /// Those who are asked where it is, if there are any.
    pub(super) fn sentinels(&self) -> Option<&Sentinels> {
        match self {
            Self::Sentinels(sentinels) => Some(sentinels),
            Self::Server(_) | Self::OwnerOf { .. } => None,
        }
    }

    /// Prepares a connection to the primary as it is known now, within the time in which commands are answered.
    pub async fn client(&self) -> Result<Cow<'_, Client>, ConnectionError> {
        match self {
            Self::Server(client) => Ok(Cow::Borrowed(&**client)),
            Self::Sentinels(sentinels) => Ok(Cow::Owned(sentinels.primary().await?)),
            Self::OwnerOf { topology, slot } => {
                let owner = topology.owner_of(*slot).await;
                owner.map(Cow::Owned).ok_or_else(|| "no node of the cluster has the slot".into())
            }
        }
    }
}
