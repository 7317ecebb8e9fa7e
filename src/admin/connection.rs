//! One connection to the admin port: how it is served, and what ends it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Admin;
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::telemetry::admin::Action;

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that takes nothing for this long is gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);

/// A reader that was cut off may still take so long to hear why.
const CUT_GRACE: Duration = Duration::from_secs(5);

/// Whoever is waited for when the process stops has so long to take the rest of its answer.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What the requests of one connection share.
pub(super) struct Connection {
    pub address: SocketAddr,
    /// Cancelled when a tail of it was too slow.
    pub cut: CancellationToken,
    /// The process is not to end before the answer is out; the connection then ends with it.
    pub answering: RefCell<Option<TaskTrackerToken>>,
    /// `answering` has been set, perhaps after the drain had begun.
    pub held_late: Notify,
}

/// Who asks: a connection, and which of the API keys it gave, from 1.
pub(super) struct Caller<'a> {
    pub connection: &'a Connection,
    pub key: usize,
}

impl Connection {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            cut: CancellationToken::new(),
            answering: RefCell::default(),
            held_late: Notify::new(),
        }
    }

    /// Answers its requests until it ends.
    pub async fn serve(
        self: Rc<Self>,
        admin: Rc<Admin>,
        stream: TcpStream,
        permit: OwnedSemaphorePermit,
    ) {
        let socket = socket2::SockRef::from(&stream);
        let _or_by_the_systems_own_time = socket.set_tcp_user_timeout(Some(PEER_TIMEOUT));
        let (serving, connection) = (Rc::clone(&admin), Rc::clone(&self));
        let service = service_fn(move |request| {
            let (admin, connection) = (Rc::clone(&serving), Rc::clone(&connection));
            async move { Ok::<_, Infallible>(admin.answer(request, &connection).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let cut = async {
            self.cut.cancelled().await;
            tokio::time::sleep(CUT_GRACE).await;
        };
        let mut served = pin!(served);
        let (mut cut, mut stopping) = (pin!(cut), pin!(self.stopping(&admin)));
        tokio::select! {
            ended = &mut served => return finished(ended, permit),
            () = &mut cut => return,
            () = &mut stopping => served.as_mut().graceful_shutdown(),
        }
        let last_word = tokio::time::timeout(LAST_WORD, served);
        tokio::select! {
            ended = last_word => if let Ok(ended) = ended { finished(ended, permit) },
            () = cut => {}
        }
    }

    /// Completes when the process waits for what is being answered here.
    async fn stopping(&self, admin: &Admin) {
        admin.shutdown.draining().await;
        if self.answering.borrow().is_none() {
            // It goes on: metrics and health are asked for to the end, and a call of the API may begin it.
            self.held_late.notified().await;
        }
    }
}

fn finished(ended: hyper::Result<()>, permit: OwnedSemaphorePermit) {
    if let Err(error) = ended {
        telemetry::connections::http_failed(&error);
    }
    drop(permit);
}

impl Caller<'_> {
    /// The process waits until what is being answered is out, for a second at most once it stops.
    pub fn hold_the_process(&self, shutdown: &Shutdown) {
        *self.connection.answering.borrow_mut() = Some(shutdown.track());
        self.connection.held_late.notify_one();
    }

    /// An audit event: it did this.
    pub fn did(&self, action: Action, what: &dyn Display) {
        telemetry::admin::audit(action, self.key, self.connection.address, what);
    }
}
