//! The end of a generation before its time: by a client's word, or with the connection that asked.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio_util::sync::CancellationToken;

use super::Session;
use super::messages::PINGS;
use crate::control::NodeCommand;
use crate::generations::{Run, Task};
use crate::limits::{LimitName, Verdict};
use crate::protocol::{ConnectionId, ErrorCode, ErrorEvent};
use crate::telemetry;

/// Generations of one thread that end with the connection that asked: at most as many as run.
#[derive(Default)]
pub struct Attached(RefCell<HashMap<ConnectionId, Vec<CancellationToken>>>);

impl Attached {
    fn attach(&self, connection: ConnectionId, canceller: CancellationToken) {
        self.0.borrow_mut().entry(connection).or_default().push(canceller);
    }

    /// The generation has ended by itself.
    pub(super) fn detach(&self, connection: ConnectionId, run: &Run) {
        let mut attached = self.0.borrow_mut();
        if let Some(cancellers) = attached.get_mut(&connection) {
            cancellers.retain(|canceller| *canceller != run.canceller());
            if cancellers.is_empty() {
                attached.remove(&connection);
            }
        }
    }

    /// The connection has ended.
    pub(super) fn cancel_all(&self, connection: ConnectionId) {
        let cancellers = self.0.borrow_mut().remove(&connection);
        cancellers.unwrap_or_default().iter().for_each(CancellationToken::cancel);
    }
}

impl Session {
    /// Any client of its channel may stop a generation; its terminal event is the answer, to everybody.
    /// Bounded like pings, which it shares a bound with: who may not send may still stop.
    pub(super) fn on_cancel(self: &Rc<Self>, task_id: &str) {
        if let Verdict::Refused { retry_after } = self.take(&self.ping_bucket, PINGS) {
            telemetry::messages::local_limit_refused(LimitName::PingsPerConnection.label());
            return self.refuse_rate(retry_after, None);
        }
        let task = Task { channel: self.client.channel.clone(), id: task_id.into() };
        let generations = &self.services.generations;
        if generations.tracker.has_ended(&task) {
            self.refuse_unknown(&task);
        } else if !generations.running.cancel(&task) {
            tokio::task::spawn_local(Rc::clone(self).cancel_elsewhere(task));
        }
    }

    /// Asks the other nodes, where one of them is known to look after the task. Its word is kept for a
    /// node that has just taken it over, or did not hear the command.
    async fn cancel_elsewhere(self: Rc<Self>, task: Task) {
        let ttl = self.client.route.borrow().generations.max_duration;
        match self.services.generations.ledger.request_cancel(&task, ttl).await {
            Ok(true) => {
                let Task { channel, id } = task;
                let command = NodeCommand::Cancel { channel, task_id: id.into() };
                let _or_by_the_kept_word = self.services.control.send(command).await;
            }
            Ok(false) => self.refuse_unknown(&task),
            Err(_) => {
                let text = "other nodes cannot be asked at the moment; try again";
                let event = ErrorEvent::new(ErrorCode::EngineUnavailable, text);
                self.refuse(&event.retry_after(1).task_id(&task.id));
            }
        }
    }

    fn refuse_unknown(&self, task: &Task) {
        let text = "no such task is running on this channel";
        self.refuse(&ErrorEvent::new(ErrorCode::UnknownTask, text).task_id(&task.id));
    }

    /// From now on the end of this connection ends `run`.
    pub(super) fn attach(&self, run: &Run) {
        if self.socket.is_open() {
            self.services.attached.attach(self.client.connection_id, run.canceller());
        } else {
            run.canceller().cancel();
        }
    }
}
