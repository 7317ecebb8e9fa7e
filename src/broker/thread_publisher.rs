//! Publishing from a worker thread.
//!
//! A reply that the gateway publishes goes mostly to one client, whose socket is on the thread that relayed its message.
//! On the memory engine such a publication is queued for the thread's own part of the hub at once: by way of the engine
//! thread it would cost two wake-ups of a thread, which take longer than everything else that is done for it.
//!
//! Invariant: publications reach each socket in the order of their history. So the short way is only taken while nothing
//! of the channel can be on the other one ([`Broker::may_queue`]), and the histories stay locked from this
//! question until the publication is queued.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::history::{History, PublishOnce, Published, TerminalEvent, end_key};
use super::publisher::{self, Publisher};
use super::{Broker, PublishError};
use crate::config;
use crate::protocol::{ChannelName, Position};
use crate::socket::Delivery;

/// Publishes the events of replies, from the thread of its broker. Cheap to clone.
#[derive(Clone)]
pub struct ThreadPublisher(Rc<Inner>);

struct Inner {
    publisher: Publisher,
    broker: Rc<Broker>,
}

/// An event of a reply that does not end it.
#[derive(Debug)]
pub struct ReplyEvent<'a> {
    pub task_id: &'a str,
    /// Grows with each event of the reply.
    pub number: u64,
    /// How long a repetition is recognised.
    pub ttl: Duration,
    pub json: &'a Bytes,
}

impl ThreadPublisher {
    pub fn new(publisher: &Publisher, broker: &Rc<Broker>) -> Self {
        Self(Rc::new(Inner { publisher: publisher.clone(), broker: Rc::clone(broker) }))
    }

    /// The histories to which this publisher appends.
    pub fn history(&self) -> History {
        self.0.publisher.history()
    }

    /// Whether [`ThreadPublisher::end_generation`] removes the mark of the generation in the same step.
    pub fn removes_marks(&self) -> bool {
        self.0.publisher.removes_marks()
    }

    /// Publishes an event once, and not after the end of its reply. See [`Publisher::publish`].
    pub async fn publish_event(
        &self,
        channel: &ChannelName,
        event: ReplyEvent<'_>,
    ) -> Result<Published, PublishError> {
        let ReplyEvent { task_id, number, ttl, json } = event;
        // The short way never waits, so a reply that is all there would leave the thread to others only at its end.
        tokio::task::coop::consume_budget().await;
        let published = self.publish_here(channel, json, |memory, rule, queue| {
            let may_publish = || self.0.broker.may_queue(channel);
            memory.publish_event_if(may_publish, channel, rule, task_id, json, queue)
        })?;
        if let Some(published) = published {
            publisher::record(published, 1);
            return Ok(published);
        }
        let (key, unless) = (task_id.to_owned(), Some(end_key(task_id)));
        let once = PublishOnce { key, number, ttl, unless };
        // In a box, so that it takes no room in a reply of which all goes the short way.
        Box::pin(self.0.publisher.publish(channel, json.clone(), Some(&once))).await
    }

    /// Publishes the end of a reply. See [`Publisher::end_generation`].
    pub async fn end_generation(
        &self,
        channel: &ChannelName,
        terminal: &TerminalEvent,
    ) -> Result<Published, PublishError> {
        let published = self.publish_here(channel, &terminal.json, |memory, rule, queue| {
            let may_publish = || self.0.broker.may_queue(channel);
            memory.end_generation_if(may_publish, channel, rule, terminal, queue)
        })?;
        match published {
            Some(published) => {
                publisher::record_end(published);
                Ok(published)
            }
            None => Box::pin(self.0.publisher.end_generation(channel, terminal)).await,
        }
    }

    /// Makes a call that queues what it publishes for this thread's sockets. `None` = nothing was published: it has to go
    /// by way of the engine thread, or through Redis.
    fn publish_here(
        &self,
        channel: &ChannelName,
        json: &Bytes,
        call: impl FnOnce(
            &super::MemoryHistory,
            Option<&config::History>,
            &mut dyn FnMut(Delivery),
        ) -> Option<Published>,
    ) -> Result<Option<Published>, PublishError> {
        let Some(memory) = self.0.publisher.memory_history() else { return Ok(None) };
        self.0.publisher.check_size(json)?;
        let rule = self.0.publisher.rule(channel);
        let mut refused: Vec<Position> = Vec::new();
        let published = call(memory, rule.as_ref(), &mut |delivery| {
            refused.extend(self.0.broker.queue(channel, delivery));
        });
        // Only now, because the histories were locked.
        refused.into_iter().for_each(|position| memory.remove(channel, position));
        Ok(published)
    }
}

#[cfg(test)]
mod tests;
