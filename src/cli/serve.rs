//! `tidegate serve`: the gateway as a configuration describes it.

use std::path::Path;
use std::process::ExitCode;

use super::{done, ended, load, logging};
use crate::gateway;

pub fn run(path: &Path) -> ExitCode {
    let config = match load(path) {
        Ok(config) => config,
        Err(mistakes) => return done(Err(mistakes)),
    };
    if let Err(wrong) = logging::install(&config.log) {
        return done(Err(wrong));
    }
    match gateway::run(config, listening) {
        Ok(outcome) => ended(outcome),
        Err(error) => {
            // By the log and not as plain text: collectors read nothing else.
            tracing::error!(event = "start_failed", %error, "the gateway did not start");
            ExitCode::FAILURE
        }
    }
}

/// Process managers and tests wait for this line; its addresses are the real ones, port 0 resolved.
fn listening(addresses: gateway::Addresses) {
    tracing::info!(
        event = "listening",
        public = %addresses.public,
        admin = %addresses.admin,
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
}
