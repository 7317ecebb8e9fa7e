//! The identity that accepted credentials stand for.

use crate::protocol::{ChannelName, ChannelPattern, UserId};

/// An accepted caller and its limits.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `None` = anonymous.
    pub user_id: Option<UserId>,
    pub username: Option<Box<str>>,
    /// The channels that the caller may join; `None` = every channel of the route.
    pub channels: Option<Box<[ChannelPattern]>>,
    /// When the credentials expire, in Unix seconds; `None` = never.
    pub expires_at: Option<u64>,
}

impl Identity {
    pub fn anonymous() -> Self {
        Self { user_id: None, username: None, channels: None, expires_at: None }
    }

    /// Returns the name that limits and templates use: the user's id, or [`UserId::ANONYMOUS`].
    pub fn key(&self) -> String {
        self.user_id.as_ref().map_or_else(|| UserId::ANONYMOUS.to_owned(), ToString::to_string)
    }

    pub fn may_join(&self, channel: &str) -> bool {
        self.channels.as_ref().is_none_or(|patterns| patterns.iter().any(|p| p.matches(channel)))
    }

    /// Whether the caller may use a route with this channel, or without one. Credentials that are good for some channels
    /// only are not good for a route without a channel.
    pub fn may_join_route(&self, channel: Option<&ChannelName>) -> bool {
        self.may_join(channel.map_or("", ChannelName::as_str))
    }

    /// Returns the channel patterns as a token record stores them.
    pub fn patterns(&self) -> Option<Vec<String>> {
        let patterns = self.channels.as_ref()?;
        Some(patterns.iter().map(ToString::to_string).collect())
    }
}
