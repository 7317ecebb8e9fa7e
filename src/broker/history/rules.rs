//! Which channels keep a history, by the routes' channel templates.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config;
use crate::protocol::{ChannelName, ChannelPattern, Template};

/// The first rule whose pattern fits decides. They can be replaced while they are asked.
#[derive(Debug, Default)]
pub struct Rules(ArcSwap<List>);

type List = Vec<(ChannelPattern, config::History)>;

impl Rules {
    /// From each route's channel and history, in order.
    pub fn new<'a>(routes: impl Iterator<Item = (&'a Template, &'a config::History)>) -> Self {
        Self(ArcSwap::from_pointee(list(routes)))
    }

    /// Takes effect with the next publication; what is kept already stays for as long as it was to.
    pub fn replace<'a>(&self, routes: impl Iterator<Item = (&'a Template, &'a config::History)>) {
        self.0.store(Arc::new(list(routes)));
    }

    /// `None` = it keeps nothing.
    pub fn of(&self, channel: &ChannelName) -> Option<config::History> {
        let rules = self.0.load();
        let (_, history) = rules.iter().find(|(pattern, _)| pattern.matches(channel.as_str()))?;
        (history.size > 0).then_some(*history)
    }
}

fn list<'a>(routes: impl Iterator<Item = (&'a Template, &'a config::History)>) -> List {
    routes.map(|(channel, history)| (ChannelPattern::of(channel), *history)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let history = |size| config::History {
            size,
            ttl: Duration::from_secs(60),
            compact: config::Compact::Off,
        };
        let template = |text| Template::parse(text).unwrap();
        let (chat, none, all) =
            (template("chat_{id}_{user_id}"), template("x_{id}"), template("{id}"));
        let (one, zero, two) = (history(1), history(0), history(2));
        let rules = Rules::new([(&chat, &one), (&none, &zero), (&all, &two)].into_iter());
        let size = |name: &str| rules.of(&ChannelName::new(name).unwrap()).map(|found| found.size);
        assert_eq!(size("chat_1_2"), Some(1));
        assert_eq!(size("x_1"), None);
        assert_eq!(size("chat_1"), Some(2));
        rules.replace([(&all, &one)].into_iter());
        assert_eq!(size("x_1"), Some(1));
    }
}
