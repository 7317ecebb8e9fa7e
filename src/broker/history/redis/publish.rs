//! Publishing through Redis: what one caller has to publish takes one round trip, over however many channels.

use bytes::Bytes;
use redis::ScriptInvocation;

use super::{RedisHistory, milliseconds, published};
use crate::broker::history::{PublishOnce, Published};
use crate::config;
use crate::protocol::ChannelName;
use crate::redis_link::{EngineUnavailable, RedisFailure};

/// The most calls or commands of one write, so that those of others get their turn.
const CALLS_PER_WRITE: usize = 256;

/// The outcome on a channel that keeps no history.
const UNSTORED: Published = Published { position: None, duplicate: false, refused: false };

/// Publications to one channel, one of several.
pub struct PublicationGroup<'a> {
    pub channel: &'a ChannelName,
    /// `None` if the channel keeps no history.
    pub history: Option<config::History>,
    pub data: &'a [Bytes],
}

type Outcome = Result<Published, EngineUnavailable>;

impl RedisHistory {
    /// Publishes, and appends to the history if `history` says that the channel keeps one.
    pub async fn publish(
        &self,
        channel: &ChannelName,
        history: Option<&config::History>,
        data: &[Bytes],
        once: Option<&PublishOnce>,
    ) -> Outcome {
        if history.is_none() && once.is_none() {
            return self.publish_plain(&[(channel, data)]).await.pop().unwrap_or(Ok(UNSTORED));
        }
        let call = self.publish_call(channel, history, data, once);
        Ok(published(self.0.commands.invoke(&call).await?))
    }

    /// Publishes to several channels like [`RedisHistory::publish`]. Returns the outcome of each of `groups`.
    pub async fn publish_each(
        &self,
        groups: &[PublicationGroup<'_>],
        once: Option<&PublishOnce>,
    ) -> Vec<Outcome> {
        let is_plain = |group: &PublicationGroup<'_>| group.history.is_none() && once.is_none();
        let plain = groups.iter().filter(|group| is_plain(group));
        let plain: Vec<_> = plain.map(|group| (group.channel, group.data)).collect();
        let called: Vec<_> = groups.iter().filter(|group| !is_plain(group)).collect();
        let (plain, called) =
            tokio::join!(self.publish_plain(&plain), self.publish_stored(&called, once));
        let (mut plain, mut called) = (plain.into_iter(), called.into_iter());
        let outcome = |group| if is_plain(group) { plain.next() } else { called.next() };
        groups.iter().map(outcome).map(|one| one.unwrap_or(Err(EngineUnavailable))).collect()
    }

    /// Publishes to channels that keep no history. The outcome of a channel is that of all its publications.
    async fn publish_plain(&self, groups: &[(&ChannelName, &[Bytes])]) -> Vec<Outcome> {
        let mut outcomes = vec![Ok(UNSTORED); groups.len()];
        let numbered = groups.iter().enumerate();
        let all: Vec<_> = numbered
            .flat_map(|(group, (channel, data))| {
                data.iter().map(move |json| (group, channel, json))
            })
            .collect();
        let mut is_lost = false;
        for chunk in all.chunks(CALLS_PER_WRITE) {
            let mut pipeline = redis::pipe();
            for (_, channel, json) in chunk {
                pipeline
                    .cmd(self.0.commands.publish_command())
                    .arg(channel.as_str())
                    .arg(&json[..]);
            }
            let mut answers = match is_lost {
                false => self.0.commands.query_each::<i64>(pipeline).await.unwrap_or_default(),
                true => Vec::new(),
            }
            .into_iter();
            is_lost |= answers.len() == 0;
            for (group, ..) in chunk {
                if answers.next().is_none_or(|answer| answer.is_err()) {
                    outcomes[*group] = Err(EngineUnavailable);
                }
            }
        }
        outcomes
    }

    /// Publishes to channels that keep a history, or what is published only once.
    async fn publish_stored(
        &self,
        groups: &[&PublicationGroup<'_>],
        once: Option<&PublishOnce>,
    ) -> Vec<Outcome> {
        let script = &self.0.scripts.publish;
        let mut outcomes = Vec::with_capacity(groups.len());
        for chunk in groups.chunks(CALLS_PER_WRITE) {
            let call = |group: &&PublicationGroup<'_>| {
                self.publish_call(group.channel, group.history.as_ref(), group.data, once)
            };
            let calls: Vec<_> = chunk.iter().map(call).collect();
            let Ok(answers) = self.0.commands.invoke_all(script, &calls).await else { break };
            let outcome = |answer: Result<_, RedisFailure>| Ok(published(answer?));
            outcomes.extend(answers.into_iter().map(outcome));
        }
        // Without an answer to one write, no other is tried.
        outcomes.resize(groups.len(), Err(EngineUnavailable));
        outcomes
    }

    fn publish_call(
        &self,
        channel: &ChannelName,
        history: Option<&config::History>,
        data: &[Bytes],
        once: Option<&PublishOnce>,
    ) -> ScriptInvocation<'_> {
        let mut call = self.0.scripts.publish.prepare_invoke();
        call.key(self.key(channel, "stream")).key(self.key(channel, "meta"));
        call.arg(channel.as_str());
        call.arg(history.map_or(0, |history| history.size));
        call.arg(history.map_or(0, |history| milliseconds(history.ttl)));
        if let Some(PublishOnce { key, number, ttl, unless }) = once {
            call.key(self.once_key(channel, key));
            call.arg(*number).arg(milliseconds(*ttl));
            if let Some(end) = unless {
                call.key(self.once_key(channel, end));
            }
        }
        data.iter().for_each(|json| {
            call.arg(&json[..]);
        });
        call
    }
}
