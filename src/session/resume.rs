//! Where a connection begins to hear its channel: now, at the begin of a running generation, or where it
//! was when it was lost.
//!
//! The socket is held from before its channel is subscribed. What the history has is read and sent, then
//! what came live meanwhile follows, less what the history had. A history that is more than one page is
//! sent at the client's pace, and the live publications are not kept for it meanwhile: they will be read.

use std::rc::Rc;
use std::time::Duration;

use super::Session;
use crate::broker::{Page, PublishError, ReadFrom, compact, joined};
use crate::config::{Compact, Protocol};
use crate::protocol::{
    Begin, CloseReason, ErrorCode, ErrorEvent, Position, ResumePoint, connected, resumed,
};
use crate::telemetry;
use crate::telemetry::delivery::ResumeOutcome;

/// A client that takes longer for one page is too slow.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// The engine is asked this often for the next page.
const READ_ATTEMPTS: usize = 20;
const READ_PAUSE: Duration = Duration::from_millis(250);

impl Session {
    /// Says `connected` and lets the channel's publications go. The socket is held once.
    pub(super) async fn begin(self: &Rc<Self>, point: Option<ResumePoint>) {
        if self.client.route.borrow().protocol == Protocol::Raw {
            return self.socket.release();
        }
        if !self.services.history.keeps(&self.client.channel) {
            let nothing = Begin { position: None, recovered: Some(false), missed: None };
            if point.is_some() {
                telemetry::delivery::resumed(self.log_fields(), ResumeOutcome::NotRecovered);
            }
            self.say_connected(point.map(|_| &nothing));
            return self.socket.release();
        }
        match self.start(point).await {
            Ok((begin, page)) => {
                self.say_connected(Some(&begin));
                self.follow(page);
            }
            Err(_) => self.socket.close(CloseReason::Overloaded),
        }
    }

    fn say_connected(&self, begin: Option<&Begin>) {
        let client = &self.client;
        let identity = client.identity.borrow();
        let user_id = identity.user_id.as_ref();
        self.say(&connected(&client.params, client.connection_id, user_id, begin));
        self.notice_due.set(true);
    }

    /// A `resume` frame: the client was told `connected` already, and ignores what came since.
    pub(super) fn on_resume(self: &Rc<Self>, point: ResumePoint) {
        if !self.services.history.keeps(&self.client.channel) {
            telemetry::delivery::resumed(self.log_fields(), ResumeOutcome::NotRecovered);
            let nothing = Begin { position: None, recovered: Some(false), missed: None };
            return self.say(&resumed(&nothing));
        }
        if self.replaying.replace(true) {
            let text = "this connection is being resumed already";
            return self.refuse(&ErrorEvent::new(ErrorCode::Busy, text).retry_after(1));
        }
        self.socket.hold();
        let session = Rc::clone(self);
        tokio::task::spawn_local(async move {
            match session.start(Some(point)).await {
                Ok((begin, page)) => {
                    session.say(&resumed(&begin));
                    session.follow(page);
                }
                Err(_) => session.socket.close(CloseReason::Overloaded),
            }
        });
    }

    /// Finds where the connection begins, and reads what it is to be sent first.
    async fn start(&self, point: Option<ResumePoint>) -> Result<(Begin, Page), PublishError> {
        let found = self.find(point).await;
        if found.is_err() && point.is_some() {
            telemetry::delivery::resumed(self.log_fields(), ResumeOutcome::EngineDown);
        }
        found
    }

    async fn find(&self, point: Option<ResumePoint>) -> Result<(Begin, Page), PublishError> {
        let (history, channel) = (&self.services.history, &self.client.channel);
        let mut missed = None;
        if let Some(ResumePoint::At(position)) = point {
            let page = history.read(channel, ReadFrom::After(position)).await?;
            if page.now.epoch == position.epoch {
                missed = page.now.offset.checked_sub(position.offset);
            }
            if let Some(offset) = page.after {
                telemetry::delivery::resumed(self.log_fields(), ResumeOutcome::Recovered);
                let position = Some(Position { offset, ..page.now });
                return Ok((Begin { position, recovered: Some(true), missed }, page));
            }
        }
        let page = history.read(channel, ReadFrom::Running).await?;
        let position = Position { offset: page.after.unwrap_or(page.now.offset), ..page.now };
        let recovered = point.map(|_| false);
        if recovered.is_some() {
            telemetry::delivery::resumed(self.log_fields(), ResumeOutcome::NotRecovered);
        }
        Ok((Begin { position: Some(position), recovered, missed }, page))
    }

    /// Sends `page` and what follows it.
    fn follow(self: &Rc<Self>, page: Page) {
        self.services.broker.begins(&self.client.channel, page.now);
        if let Some(after) = self.send_page(page) {
            self.replaying.set(true);
            tokio::task::spawn_local(Rc::clone(self).replay(after));
        }
    }

    /// Returns the end of the page, where more is to be read; otherwise the live publications follow.
    fn send_page(&self, page: Page) -> Option<Position> {
        let Page { now, after, publications, complete } = page;
        let end = publications.last().and_then(|last| last.position);
        telemetry::delivery::replayed(self.log_fields(), publications.len());
        let mode = self.client.route.borrow().history.compact;
        let publications = match mode {
            Compact::Off => publications,
            Compact::Chunks => compact(publications),
        };
        let frames = joined(&publications);
        // A page that nearly fills the queue would leave no room for what comes live.
        let room = frames.len() <= self.client.route.borrow().send_queue.bytes / 2;
        if !frames.is_empty() {
            self.socket.send_page(frames);
        }
        if complete && room {
            self.replaying.set(false);
            self.socket.start_after(now);
            self.socket.release();
            return None;
        }
        self.socket.skip_positioned(true);
        Some(end.unwrap_or(Position { epoch: now.epoch, offset: after.unwrap_or(now.offset) }))
    }

    /// Page after page, each when the one before has been written.
    async fn replay(self: Rc<Self>, mut after: Position) {
        loop {
            if tokio::time::timeout(PAGE_TIMEOUT, self.socket.drained()).await.is_err() {
                return self.socket.close(CloseReason::TooSlow);
            }
            if !self.socket.is_open() {
                return;
            }
            self.socket.skip_positioned(false);
            let Some(page) = self.read_on(after).await else {
                return self.socket.close(CloseReason::BrokerGap);
            };
            if page.after.is_none() {
                // Trimmed under a client that is slower than the channel.
                return self.socket.close(CloseReason::TooSlow);
            }
            match self.send_page(page) {
                Some(end) => after = end,
                None => return,
            }
        }
    }

    async fn read_on(&self, after: Position) -> Option<Page> {
        for _ in 0..READ_ATTEMPTS {
            let from = ReadFrom::After(after);
            if let Ok(page) = self.services.history.read(&self.client.channel, from).await {
                return Some(page);
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
        None
    }
}
