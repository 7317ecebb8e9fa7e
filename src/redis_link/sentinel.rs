//! The server that sentinels name: which address is the primary now.
//!
//! This module owns whom the sentinels are asked, whose answer counts, and that all links are opened again when they name
//! another server. The sentinels are asked whenever a link is opened, and every [`PERIOD`] while one is used. The answer
//! with the highest epoch counts, which a failover raises; one with a lower epoch than was known before counts only if most
//! of the sentinels give it, so that a sentinel that has slept, or was cut off, does not lead back to the former primary.
//! Whether the server is a primary is asked of itself, as everywhere. Invariant: all links of this process that go through
//! the same sentinels lead to the same server.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::ConnectionError;
use super::health::Server;
use super::open;
use super::reason::describe;
use crate::config::RedisUrl;
use crate::telemetry;

/// The interval between questions while nothing happens.
const PERIOD: Duration = Duration::from_secs(1);

/// How long one sentinel may take to answer.
const DEADLINE: Duration = Duration::from_secs(1);

/// How long the other sentinels are waited for once one has answered.
const OTHERS: Duration = Duration::from_millis(200);

/// How long the sentinels have to confirm which server is the primary.
const CONFIRMATION: Duration = Duration::from_millis(500);

/// Why links are opened again when the sentinels name another server.
const SWITCHED: &str = "the sentinels name another primary";

/// The server behind some sentinels. Shared by all links of the process that have the same URL.
pub struct Sentinels {
    url: RedisUrl,
    name: Box<str>,
    asked: Vec<Asked>,
    known: Mutex<Option<Known>>,
    is_watched: AtomicBool,
}

/// One sentinel.
struct Asked {
    address: String,
    client: Client,
    /// The connection of the last question, if it was answered.
    connection: Mutex<Option<MultiplexedConnection>>,
}

/// The primary as it was last named.
#[derive(Clone)]
struct Known {
    answer: Answer,
    client: Client,
}

/// What a sentinel says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    /// A name if the sentinels announce names.
    host: String,
    port: u16,
    /// The number of the failover that has made it the primary.
    epoch: u64,
}

impl Answer {
    fn is_at(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port
    }
}

impl Sentinels {
    /// Those that `url` names.
    ///
    /// # Errors
    /// The URL is not valid. No part of it is shown.
    pub fn of(url: &RedisUrl) -> Result<Arc<Self>, String> {
        /// One entry for each URL of a config that is in use.
        static ALL: Mutex<BTreeMap<String, Weak<Sentinels>>> = Mutex::new(BTreeMap::new());

        let mut all = lock(&ALL);
        all.retain(|_, sentinels| sentinels.strong_count() > 0);
        let key = url.text().expose();
        if let Some(known) = all.get(key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let asked = url.sentinels().map(|sentinel| {
            let address = sentinel.info().addr().to_string();
            open::client(&sentinel).map(|client| Asked {
                address,
                client,
                connection: Mutex::default(),
            })
        });
        let sentinels = Arc::new(Self {
            name: url.sentinel_name().unwrap_or_default().into(),
            asked: asked.collect::<Result<_, String>>()?,
            url: url.clone(),
            known: Mutex::default(),
            is_watched: AtomicBool::new(false),
        });
        all.insert(key.to_owned(), Arc::downgrade(&sentinels));
        Ok(sentinels)
    }

    /// Prepares a connection to the primary as the sentinels name it now. While none of them answers it is the one that
    /// they named last: they may be restarted without an interruption.
    pub(super) async fn primary(self: &Arc<Self>) -> Result<Client, ConnectionError> {
        self.watch();
        match self.ask().await {
            Ok(known) => Ok(known.client),
            Err(reason) => match &*self.known() {
                Some(known) => Ok(known.client.clone()),
                None => Err(reason.into()),
            },
        }
    }

    /// Asks the sentinels, so that the links to a server which is the primary no more are given up. Returns whether one of
    /// them has answered within [`CONFIRMATION`].
    pub(super) async fn answer_in_time(&self) -> bool {
        timeout(CONFIRMATION, self.ask()).await.is_ok_and(|asked| asked.is_ok())
    }

    /// Asks the sentinels once, and returns the URL of the server that they name.
    pub(super) async fn find(url: &RedisUrl) -> Result<RedisUrl, String> {
        let Known { answer, .. } = Self::of(url)?.ask().await?;
        Ok(url.at(&answer.host, answer.port))
    }

    /// Has the sentinels asked from time to time, until no link uses them any more.
    fn watch(self: &Arc<Self>) {
        if self.is_watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let sentinels = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                sleep(PERIOD).await;
                let Some(sentinels) = sentinels.upgrade() else { return };
                // A failure matters when a link is opened.
                let _ = sentinels.ask().await;
            }
        });
    }

    /// Asks all sentinels. `Err` has the first reason if none names a server.
    async fn ask(&self) -> Result<Known, String> {
        let mut asked: FuturesUnordered<_> = self
            .asked
            .iter()
            .map(async |asked| {
                let answer = match timeout(DEADLINE, asked.question(&self.name)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(format!("no answer within {DEADLINE:?}")),
                };
                answer.map_err(|reason| format!("sentinel {}: {reason}", asked.address))
            })
            .collect();
        let (mut answers, mut error) = (Vec::new(), None);
        let mut deadline = Instant::now() + DEADLINE + OTHERS;
        while let Ok(Some(answer)) = timeout_at(deadline, asked.next()).await {
            match answer {
                Ok(answer) => {
                    answers.push(answer);
                    deadline = deadline.min(Instant::now() + OTHERS);
                }
                Err(reason) => error = error.or(Some(reason)),
            }
        }
        self.apply(&answers)
            .ok_or_else(|| error.unwrap_or_else(|| "no sentinel answers".to_owned()))?
    }

    /// Takes over what the sentinels say. `None` if they say nothing, and nothing was known before.
    fn apply(&self, answers: &[Answer]) -> Option<Result<Known, String>> {
        let mut known = self.known();
        let before = known.as_ref().map(|known| &known.answer);
        let named = choose(answers, before, self.asked.len());
        let answer = match (named, &*known) {
            (None, None) => return None,
            // Those who answer are out of date.
            (None, Some(known)) if !answers.is_empty() => return Some(Ok(known.clone())),
            (None, Some(_)) => return None,
            (Some(answer), _) => answer,
        };
        if let Some(known) = &mut *known
            && known.answer.is_at(answer)
        {
            known.answer.epoch = answer.epoch;
            return Some(Ok(known.clone()));
        }
        let client = match open::client(&self.url.at(&answer.host, answer.port)) {
            Ok(client) => client,
            Err(reason) => return Some(Err(reason)),
        };
        let new = Known { answer: answer.clone(), client };
        let former = known.replace(new.clone());
        drop(known);
        telemetry::engine::sentinels_named(&self.name, &format!("{}:{}", answer.host, answer.port));
        if let Some(former) = former {
            Server::of(&former.client).give_up_all(SWITCHED);
        }
        Some(Ok(new))
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        lock(&self.known)
    }
}

/// The answer that counts among those of `of` sentinels; `None` if all of them are older than what is known.
fn choose<'a>(answers: &'a [Answer], known: Option<&Answer>, of: usize) -> Option<&'a Answer> {
    let newest = answers.iter().max_by_key(|answer| {
        // Among equals the one that is known stays.
        (answer.epoch, known.is_some_and(|known| known.is_at(answer)))
    })?;
    let is_older = known.is_some_and(|known| newest.epoch < known.epoch);
    if !is_older {
        return Some(newest);
    }
    // The sentinels were set up anew, and count from the beginning.
    let agreeing = |answer: &&Answer| answers.iter().filter(|other| other.is_at(answer)).count();
    answers.iter().find(|answer| 2 * agreeing(answer) > of)
}

impl Asked {
    /// Asks this sentinel, over the connection of the last question if that is still open.
    async fn question(&self, name: &str) -> Result<Answer, String> {
        let asked = async {
            let kept = lock(&self.connection).take();
            if let Some(connection) = kept
                && let Ok(fields) = self.question_over(connection, name).await
            {
                return Ok(fields);
            }
            self.question_over(self.connect().await?, name).await
        };
        let fields = asked.await.map_err(|error: RedisError| describe(&error))?;
        read(&fields).ok_or_else(|| "the answer to SENTINEL MASTER has no address".to_owned())
    }

    async fn question_over(
        &self,
        mut connection: MultiplexedConnection,
        name: &str,
    ) -> RedisResult<HashMap<String, String>> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("MASTER").arg(name);
        let fields = question.query_async(&mut connection).await?;
        *lock(&self.connection) = Some(connection);
        Ok(fields)
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }
}

fn read(fields: &HashMap<String, String>) -> Option<Answer> {
    Some(Answer {
        host: fields.get("ip").filter(|host| !host.is_empty())?.clone(),
        port: fields.get("port")?.parse().ok().filter(|port| *port > 0)?,
        epoch: fields.get("config-epoch")?.parse().ok()?,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
