//! What the lists over all nodes have in common.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::code::Code;
use super::{Answer, api};
use crate::control::{Reached, SendError};

/// Gathered at once by this node; how long others wait for their turn.
const MAX_AT_ONCE: usize = 4;
const TURN: Duration = Duration::from_secs(2);

/// Lists that this node gathers.
pub struct Listings(Semaphore);

impl Default for Listings {
    fn default() -> Self {
        Self(Semaphore::new(MAX_AT_ONCE))
    }
}

impl Listings {
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, Answer> {
        let turn = tokio::time::timeout(TURN, self.0.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            let message = "too many lists are being gathered; ask again";
            api::error(Code::Busy, message)
        })
    }
}

/// Of how many nodes a list is.
#[derive(Serialize)]
pub(super) struct Nodes {
    /// All of these are in it.
    answered: u64,
    asked: u64,
}

impl From<Reached> for Nodes {
    fn from(reached: Reached) -> Self {
        Self { answered: reached.answered, asked: reached.asked }
    }
}

pub(super) fn refusal(error: SendError) -> Answer {
    match error {
        SendError::EngineDown => api::engine_down(),
        SendError::TooLarge => {
            let message = "the texts of a command have at most 16 KiB";
            api::error(Code::TooLarge, message)
        }
    }
}
