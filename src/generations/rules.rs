//! Which events end a generation, by the routes' channel templates.

use super::event::Event;
use crate::config::{self, DuplicateTerminal};
use crate::protocol::{ChannelName, ChannelPattern, Template};

/// Of the routes, in order; replaced as a whole.
pub(super) struct Rules {
    by_channel: Vec<(ChannelPattern, Rule)>,
    /// Names of events that have to be read further on every channel.
    pub names: Vec<String>,
}

pub(super) struct Rule {
    terminal_events: Vec<String>,
    pub drops: bool,
}

impl Rule {
    pub fn ends(&self, event: &Event<'_>) -> bool {
        event.name == "cancelled"
            || (event.by_gateway && event.name == "error")
            || self.terminal_events.iter().any(|name| *name == event.name)
    }
}

impl Rules {
    pub fn new<'a>(routes: impl Iterator<Item = (&'a Template, &'a config::Generations)>) -> Self {
        let rule = |(channel, settings): (&Template, &config::Generations)| {
            let terminal_events = settings.terminal_events.clone();
            let drops = settings.duplicate_terminal == DuplicateTerminal::Drop;
            (ChannelPattern::of(channel), Rule { terminal_events, drops })
        };
        let by_channel: Vec<_> = routes.map(rule).collect();
        let own = ["cancelled", "error", "processing_started"].map(str::to_owned);
        let theirs = by_channel.iter().flat_map(|(_, rule)| rule.terminal_events.iter().cloned());
        let mut names: Vec<_> = own.into_iter().chain(theirs).collect();
        names.sort();
        names.dedup();
        Self { by_channel, names }
    }

    pub fn of(&self, channel: &ChannelName) -> Option<&Rule> {
        let fits = |(pattern, _): &&(ChannelPattern, Rule)| pattern.matches(channel.as_str());
        self.by_channel.iter().find(fits).map(|(_, rule)| rule)
    }
}
