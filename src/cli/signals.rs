//! Ctrl-C and SIGTERM, for commands that run until they are stopped.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub fn new() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(|error| Failure(format!("signals: {error}")));
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
        })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
