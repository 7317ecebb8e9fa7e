//! Where the links of one use lead: which address is the primary now is asked each time that one is opened.

use std::borrow::Cow;
use std::sync::Arc;

use redis::Client;

use super::cluster::Topology;
use super::slots::slot_of;
use super::{Commands, ConnectionError};

/// A server that is found by its role. Cheap to clone.
#[derive(Clone)]
pub enum Primary {
    /// The one server that a URL names.
    Server(Arc<Client>),
    /// The node of a cluster that has a slot.
    OwnerOf { topology: Topology, slot: u16 },
}

impl Primary {
    /// The server of `commands`; of a cluster the node that has `key`.
    pub fn of(commands: &Commands, key: &str) -> Self {
        match commands.topology() {
            Some(topology) => {
                Self::OwnerOf { topology: topology.clone(), slot: slot_of(key.as_bytes()) }
            }
            None => commands.server_primary(),
        }
    }

    /// Prepares a connection to the primary as it is known now, within the time in which commands are answered.
    pub(super) async fn client(&self) -> Result<Cow<'_, Client>, ConnectionError> {
        match self {
            Self::Server(client) => Ok(Cow::Borrowed(&**client)),
            Self::OwnerOf { topology, slot } => {
                let owner = topology.owner_of(*slot).await;
                owner.map(Cow::Owned).ok_or_else(|| "no node of the cluster has the slot".into())
            }
        }
    }
}
