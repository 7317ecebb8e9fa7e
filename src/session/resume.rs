//! Where a connection begins to receive its channel: now, where a generation in progress began, or where
//! the client was when it lost its previous connection.
//!
//! Publications are held back from before the channel is subscribed. What the history has is read and sent;
//! then what came live meanwhile follows, less what the history had. A history of more than one page is sent
//! as fast as the client reads, and the live publications are not kept for it meanwhile: they will be read
//! from the history.

use std::rc::Rc;
use std::time::Duration;

use super::Session;
use crate::broker::{Page, PublishError, ReadFrom, compact};
use crate::config::{Compact, Protocol};
use crate::protocol::{
    ChannelName, CloseReason, ErrorCode, ErrorEvent, Position, ResumePoint, StartPosition,
    connected, resumed,
};
use crate::redis_link::EngineUnavailable;
use crate::retry::retry;
use crate::socket::HoldGuard;
use crate::telemetry;
use crate::telemetry::delivery::ResumeOutcome;

/// A client that takes longer than this for one page is too slow.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the engine is asked for the next page, and the pause between two attempts.
const READ_ATTEMPTS: usize = 20;
const READ_PAUSE: Duration = Duration::from_millis(250);

/// The answer where the channel keeps no history to resume from.
const NOT_RECOVERED: StartPosition =
    StartPosition { position: None, recovered: Some(false), missed: None };

/// A client is being sent its channel's history, and live publications are held back, until this is dropped.
pub(super) struct Replay {
    session: Rc<Session>,
    _hold: HoldGuard,
}

impl Replay {
    pub fn begin(session: &Rc<Session>) -> Self {
        session.is_replaying.set(true);
        Self { session: Rc::clone(session), _hold: session.socket.hold() }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.session.is_replaying.set(false);
    }
}

impl Session {
    /// Sends `connected`, then lets the channel's publications follow.
    pub(super) async fn start_channel(self: &Rc<Self>, point: Option<ResumePoint>, replay: Replay) {
        let Some(channel) = &self.client.channel else { return };
        if self.client.route.borrow().protocol != Protocol::Json {
            return;
        }
        if !self.services.history.keeps(channel) {
            if point.is_some() {
                telemetry::delivery::resumed(self.log_fields(), ResumeOutcome::NotRecovered);
            }
            return self.send_connected(point.map(|_| &NOT_RECOVERED));
        }
        match self.start(channel, point).await {
            Ok((begin, page)) => {
                self.send_connected(Some(&begin));
                self.follow(channel, page, replay);
            }
            Err(_) => self.socket.close(CloseReason::Overloaded),
        }
    }

    fn send_connected(&self, begin: Option<&StartPosition>) {
        let client = &self.client;
        let user_id = client.user_id();
        self.send_event(&connected(&client.params, client.connection_id, user_id, begin));
        self.credentials.expect_notice();
    }

    /// A `resume` frame, from a client that has got `connected` already and ignores what has come since.
    pub(super) fn on_resume(self: &Rc<Self>, point: ResumePoint) {
        let Some(channel) = self.client.channel.clone() else { return };
        if !self.services.history.keeps(&channel) {
            telemetry::delivery::resumed(self.log_fields(), ResumeOutcome::NotRecovered);
            return self.send_event(&resumed(&NOT_RECOVERED));
        }
        if self.is_replaying.get() {
            let text = "this connection is being resumed already";
            return self.refuse(&ErrorEvent::new(ErrorCode::Busy, text).retry_after(1));
        }
        let (session, replay) = (Rc::clone(self), Replay::begin(self));
        self.spawn(async move {
            match session.start(&channel, Some(point)).await {
                Ok((begin, page)) => {
                    session.send_event(&resumed(&begin));
                    session.follow(&channel, page, replay);
                }
                Err(_) => session.socket.close(CloseReason::Overloaded),
            }
        });
    }

    /// Finds where the connection begins, and reads what it is to be sent first.
    async fn start(
        &self,
        channel: &ChannelName,
        point: Option<ResumePoint>,
    ) -> Result<(StartPosition, Page), PublishError> {
        let found = self.find(channel, point).await;
        if found.is_err() && point.is_some() {
            telemetry::delivery::resumed(self.log_fields(), ResumeOutcome::EngineDown);
        }
        found
    }

    async fn find(
        &self,
        channel: &ChannelName,
        point: Option<ResumePoint>,
    ) -> Result<(StartPosition, Page), PublishError> {
        let history = &self.services.history;
        let mut missed = None;
        if let Some(ResumePoint::At(position)) = point {
            let page = history.read(channel, ReadFrom::After(position)).await?;
            self.services.replies.record_cancelled(channel, &page);
            if page.now.epoch == position.epoch {
                missed = page.now.offset.checked_sub(position.offset);
            }
            if let Some(offset) = page.after {
                telemetry::delivery::resumed(self.log_fields(), ResumeOutcome::Recovered);
                let position = Some(Position { offset, ..page.now });
                return Ok((StartPosition { position, recovered: Some(true), missed }, page));
            }
        }
        let page = history.read(channel, ReadFrom::Running).await?;
        self.services.replies.record_cancelled(channel, &page);
        let position = Position { offset: page.after.unwrap_or(page.now.offset), ..page.now };
        // A client that did not ask is told as well if it does not get the whole running reply.
        let recovered = (point.is_some() || page.is_cut).then_some(false);
        if point.is_some() {
            telemetry::delivery::resumed(self.log_fields(), ResumeOutcome::NotRecovered);
        }
        Ok((StartPosition { position: Some(position), recovered, missed }, page))
    }

    /// Sends `page` and what follows it.
    fn follow(self: &Rc<Self>, channel: &ChannelName, page: Page, replay: Replay) {
        self.services.broker.start_after(channel, page.now);
        if let Some((after, replay)) = self.send_page(page, replay) {
            self.spawn(Rc::clone(self).send_pages(channel.clone(), after, replay));
        }
    }

    /// Returns the end of the page if more is to be read. Otherwise the live publications follow.
    fn send_page(&self, page: Page, replay: Replay) -> Option<(Position, Replay)> {
        let Page { now, after, publications, complete, .. } = page;
        let end = publications.last().and_then(|last| last.position);
        telemetry::delivery::replayed(self.log_fields(), publications.len());
        let mode = self.client.route.borrow().history.compact;
        let publications = match mode {
            Compact::Off => publications,
            Compact::Chunks => compact(publications),
        };
        let frames = self.socket.join_page(&publications);
        // A page that nearly fills the queue would leave no room for live publications.
        let has_room = frames.len() <= self.client.route.borrow().send_queue.bytes / 2;
        if !frames.is_empty() {
            self.socket.send_page(frames);
        }
        if complete && has_room {
            self.socket.start_after(now);
            return None;
        }
        self.socket.skip_positioned(true);
        let end = end.unwrap_or(Position { offset: after.unwrap_or(now.offset), ..now });
        Some((end, replay))
    }

    /// Sends page after page, each when the one before has been written.
    async fn send_pages(
        self: Rc<Self>,
        channel: ChannelName,
        mut after: Position,
        mut replay: Replay,
    ) {
        loop {
            if tokio::time::timeout(PAGE_TIMEOUT, self.socket.drained()).await.is_err() {
                return self.socket.close(CloseReason::TooSlow);
            }
            if !self.socket.is_open() {
                return;
            }
            self.socket.skip_positioned(false);
            let Some(page) = self.read_page(&channel, after).await else {
                return self.socket.close(CloseReason::BrokerGap);
            };
            if page.after.is_none() {
                // The history was trimmed: the client is slower than the channel.
                return self.socket.close(CloseReason::TooSlow);
            }
            match self.send_page(page, replay) {
                Some(next) => (after, replay) = next,
                None => return,
            }
        }
    }

    async fn read_page(&self, channel: &ChannelName, after: Position) -> Option<Page> {
        let from = ReadFrom::After(after);
        let read = || self.services.history.read(channel, from);
        retry(READ_ATTEMPTS, READ_PAUSE, |EngineUnavailable| true, read).await.ok()
    }
}

#[cfg(test)]
mod tests;
