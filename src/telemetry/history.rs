//! Facts about channels' histories and those who come back to them.

use tracing::warn;

use super::about::{About, line};
use super::definitions::{labels, metrics, words};
use crate::protocol::ChannelName;

metrics! {
    /// Clients that asked to resume, by what came of it.
    RESUMES = counter "tidegate_resumes_total" [outcome: words(&[Resumed::LABELS])];
    /// Publications sent to clients from a history.
    REPLAYED = counter "tidegate_replayed_publications_total";
    /// Channels that this node missed a part of, and has looked for in their history.
    CATCH_UPS = counter "tidegate_catch_ups_total" [outcome: words(&[&["complete", "lost"]])];
}

labels! {
    /// What came of a client's wish to go on where it was.
    pub enum Resumed {
        /// Without a gap.
        Recovered = "recovered",
        /// The history reaches back no further, or there is none; the client is told.
        NotRecovered = "not_recovered",
        /// The history could not be read; the client is to come again.
        EngineDown = "engine_down",
    }
}

/// A client asked to resume.
pub fn resumed(about: About<'_>, outcome: Resumed) {
    let outcome = outcome.label();
    RESUMES.at([outcome]).increment(1);
    line!(debug, about, event = "resumed", outcome, "a client asked to resume");
}

/// Publications were sent to a client from its channel's history.
pub fn replayed(about: About<'_>, publications: usize) {
    REPLAYED.get().increment(publications as u64);
    if publications > 0 {
        line!(debug, about, event = "replayed", publications, "sent from the channel's history");
    }
}

/// This node missed publications of a channel, and has looked for them in its history.
pub fn caught_up(channel: &ChannelName, complete: bool) {
    let outcome = if complete { "complete" } else { "lost" };
    CATCH_UPS.at([outcome]).increment(1);
    if !complete {
        warn!(
            event = "history_lost",
            channel = channel.as_str(),
            "a channel's history does not hold what this node missed; its clients are told"
        );
    }
}
