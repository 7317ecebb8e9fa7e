//! `tidegate tail`: what is published to a channel, as it comes.
//!
//! The stream is opened before the history is read, so that nothing falls between; what comes by both is
//! told once, by its offset.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::record::Record;
use super::server_api::{ServerApi, Unanswered, block_on};
use super::signals;
use super::target::Target;
use super::{Failure, complain};
use crate::clock;
use crate::sse::{SseEvent, SseParser};

/// The server sends a comment every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// Above the largest publication that a gateway may be set to, with its field names.
const MAX_EVENT_BYTES: usize = 1100 << 20;

/// Between attempts to come back: doubled, from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Publications of one answer of the history.
const PAGE: usize = 100;

/// Watch a channel: print what is published to it, as it comes
///
/// For people, a line has offset, time of day (UTC), event, text and the other fields; control characters are
/// escaped. With --json it is one object, which "tidegate replay" reads: {"time","channel","offset","epoch","data"}.
/// A lost connection is made again; what was published meanwhile is read from the channel's history, or, where it
/// keeps none, a line on standard error says that something may be missing. Ctrl-C ends it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  tidegate tail --config gateway.toml chat_42
  tidegate tail --config gateway.toml chat_42 --history --json > recorded.jsonl")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The channel
    #[arg(value_parser = super::channel)]
    channel: String,
    /// Begin with what the channel's history keeps
    #[arg(long)]
    history: bool,
    /// Begin with what the history has after this offset
    #[arg(long, value_name = "OFFSET", conflicts_with = "history")]
    since: Option<u64>,
    /// The epoch that --since is of; without it, the channel's present one
    #[arg(long, value_name = "EPOCH", requires = "since")]
    epoch: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// End after so many publications
    #[arg(short = 'n', long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut tail = Tail {
        api: args.target.api_with_key()?,
        channel: args.channel.clone(),
        json: args.json,
        left: args.count,
        begun: false,
        epoch: args.epoch.clone(),
        told: args.since,
        from_oldest: args.history,
        resume: args.since,
    };
    block_on(async {
        let mut signals = signals::Signals::new()?;
        tokio::select! {
            ended = tail.run() => ended,
            () = signals.next() => Ok(()),
        }
    })??;
    Ok(ExitCode::SUCCESS)
}

/// Why a stream is over.
enum Over {
    /// Everything was printed that was asked for, or nobody reads it any more.
    Done,
    /// It may go on later.
    Lost(String),
    /// It will not.
    Failed(String),
}

impl From<Unanswered> for Over {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Away(why) => Self::Lost(why),
            Unanswered::Refused(_, why) => Self::Failed(why),
        }
    }
}

struct Tail {
    api: ServerApi,
    channel: String,
    json: bool,
    /// How many are to be printed.
    left: Option<u64>,
    /// A stream was live before.
    begun: bool,
    epoch: Option<String>,
    /// The last offset that was printed, in this epoch.
    told: Option<u64>,
    /// The history is to be read from its oldest.
    from_oldest: bool,
    /// Where the history is read from after a gap.
    resume: Option<u64>,
}

/// What comes first on a stream.
#[derive(Deserialize)]
struct Live {
    /// The channel keeps one.
    history: bool,
}

#[derive(Deserialize)]
struct Described {
    epoch: Option<String>,
    offset: Option<u64>,
}

#[derive(Deserialize)]
struct Page {
    epoch: Option<String>,
    offset: u64,
    publications: Vec<Kept>,
    recovered: bool,
    next_since: Option<u64>,
}

#[derive(Deserialize)]
struct Kept {
    offset: Option<u64>,
    data: Option<Box<RawValue>>,
    text: Option<String>,
    base64: Option<String>,
}

impl Tail {
    async fn run(&mut self) -> Result<(), Failure> {
        let mut pause = FIRST_PAUSE;
        let mut was_away = false;
        loop {
            let Err(over) = self.follow(&mut pause).await else { continue };
            match over {
                Over::Done => return Ok(()),
                Over::Failed(why) => return Err(Failure(why)),
                // Whoever mistypes an address is told at once.
                Over::Lost(why) if !self.begun => return Err(Failure(why)),
                Over::Lost(why) => {
                    // Each outage is told once, not each attempt.
                    if pause == FIRST_PAUSE || !was_away {
                        complain(format_args!("tidegate: {why}; trying again"));
                    }
                    was_away = true;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// One stream, to its end. Resets `pause` once it is live.
    async fn follow(&mut self, pause: &mut Duration) -> Result<(), Over> {
        let path = self.path("/tail");
        let mut stream = Stream::new(self.api.stream(&path).await?);
        let mut live = None;
        loop {
            let event = stream.next().await?;
            match (event.name.as_str(), &live) {
                ("live", None) => {
                    let first = serde_json::from_slice::<Live>(&event.data);
                    let first = first.map_err(|_| Over::Failed("no stream of this API".into()))?;
                    self.begin(&first).await?;
                    *pause = FIRST_PAUSE;
                    live = Some(first);
                }
                ("gap", Some(live)) => self.fill(live).await?,
                ("end", _) => return Err(self.ended(&event.data)),
                ("" | "binary", Some(_)) => self.publication(event)?,
                _ => {}
            }
        }
    }

    /// The stream is live: what came before it.
    async fn begin(&mut self, live: &Live) -> Result<(), Over> {
        if std::mem::replace(&mut self.begun, true) {
            complain("tidegate: connected again");
            return self.fill(live).await;
        }
        if !live.history {
            if self.from_oldest || self.resume.is_some() {
                return Err(Over::Failed(format!("the channel {} keeps no history", self.channel)));
            }
            return Ok(());
        }
        if self.from_oldest || self.resume.is_some() {
            return self.read_history().await;
        }
        // So that there is a place to come back to before anything was published.
        let body = self.api.get(&self.path("")).await?;
        if let Ok(Described { epoch, offset }) = serde_json::from_slice(&body) {
            self.epoch = epoch;
            self.resume = Some(offset.unwrap_or(0));
        }
        Ok(())
    }

    /// What was missed.
    async fn fill(&mut self, live: &Live) -> Result<(), Over> {
        if live.history && self.resume.is_some() {
            return self.read_history().await;
        }
        complain("tidegate: publications may be missing here: the channel keeps no history");
        Ok(())
    }

    async fn read_history(&mut self) -> Result<(), Over> {
        loop {
            let mut path = self.path(&format!("/history?limit={PAGE}"));
            if let Some(since) = self.resume.filter(|_| !self.from_oldest) {
                path.push_str(&format!("&since={since}"));
                if let Some(epoch) = &self.epoch {
                    path.push_str(&format!("&epoch={}", encoded(epoch)));
                }
            }
            let body = self.api.get(&path).await?;
            let page: Page = serde_json::from_slice(&body)
                .map_err(|_| Over::Failed("the history was not understood".to_owned()))?;
            if !page.recovered && !self.from_oldest {
                complain(
                    "tidegate: publications are missing here: the history does not reach back",
                );
                self.told = None;
            }
            self.from_oldest = false;
            if page.epoch != self.epoch {
                self.told = None;
                self.epoch = page.epoch;
            }
            for Kept { offset, data, text, base64 } in page.publications {
                let mut record = self.record(offset, None);
                match data {
                    Some(json) => record.set_text(json.get().to_owned()),
                    None => (record.text, record.base64) = (text, base64),
                }
                self.print(&record)?;
            }
            match page.next_since {
                Some(next) => self.resume = Some(next),
                None => {
                    self.resume = Some(page.offset.max(self.told.unwrap_or(0)));
                    return Ok(());
                }
            }
        }
    }

    fn publication(&mut self, event: SseEvent) -> Result<(), Over> {
        let mut record = self.record(event.id.parse().ok(), Some(clock::now_rfc3339()));
        let text = String::from_utf8(event.data).map_err(|_| no_events())?;
        if event.name == "binary" {
            record.base64 = Some(text);
        } else {
            record.set_text(text);
        }
        if record.offset.is_some() && record.epoch != self.epoch {
            // The first of an epoch says so.
            self.epoch.clone_from(&record.epoch);
            self.told = None;
        }
        self.print(&record)
    }

    fn record(&self, offset: Option<u64>, time: Option<String>) -> Record {
        let epoch = offset.and(self.epoch.clone());
        let channel = self.channel.clone();
        Record { time, channel, offset, epoch, data: None, text: None, base64: None }
    }

    fn print(&mut self, record: &Record) -> Result<(), Over> {
        if let Some(offset) = record.offset {
            if self.told.is_some_and(|told| offset <= told) {
                return Ok(());
            }
            self.told = Some(offset);
            self.resume = Some(offset);
        }
        let line = match self.json {
            true => serde_json::to_string(record).map_err(|e| Over::Failed(e.to_string()))?,
            false => record.to_line(),
        };
        let mut out = std::io::stdout().lock();
        if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
            return Err(match error.kind() {
                std::io::ErrorKind::BrokenPipe => Over::Done,
                _ => Over::Failed(format!("standard output: {error}")),
            });
        }
        match &mut self.left {
            Some(left) => {
                *left -= 1;
                if *left == 0 { Err(Over::Done) } else { Ok(()) }
            }
            None => Ok(()),
        }
    }

    fn ended(&self, data: &[u8]) -> Over {
        #[derive(Deserialize)]
        struct End {
            reason: String,
        }
        let reason = serde_json::from_slice::<End>(data).map(|end| end.reason).unwrap_or_default();
        match reason.as_str() {
            "refused" => Over::Failed(format!("the engine refuses the channel {}", self.channel)),
            "too_slow" => Over::Lost("the channel was faster than this reader".to_owned()),
            "draining" => Over::Lost("the gateway stops".to_owned()),
            _ => Over::Lost("the gateway ended the stream".to_owned()),
        }
    }

    fn path(&self, more: &str) -> String {
        format!("/v1/channels/{}{more}", encoded(&self.channel))
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The body of a response with events.
struct Stream {
    body: Incoming,
    /// The part of the body that has arrived and is not parsed yet.
    input: Bytes,
    parser: SseParser,
}

impl Stream {
    fn new(body: Incoming) -> Self {
        Self { body, input: Bytes::new(), parser: SseParser::new(MAX_EVENT_BYTES) }
    }

    async fn next(&mut self) -> Result<SseEvent, Over> {
        let lost = |why: &str| Over::Lost(why.to_owned());
        loop {
            if let Some(event) = self.parser.next(&mut self.input).map_err(|_| no_events())? {
                return Ok(event);
            }
            match tokio::time::timeout(SILENCE, self.body.frame()).await {
                Err(_) => return Err(lost("the stream has gone silent")),
                Ok(None) => return Err(lost("the stream ended")),
                Ok(Some(Err(error))) => {
                    return Err(Over::Lost(format!("the stream broke: {error}")));
                }
                Ok(Some(Ok(frame))) => self.input = frame.into_data().unwrap_or_default(),
            }
        }
    }
}

fn no_events() -> Over {
    Over::Failed("no stream of events".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_that_is_not_utf8_ends_the_command() {
        let mut tail = Tail {
            api: ServerApi::at("127.0.0.1:1".to_owned(), None),
            channel: "c".to_owned(),
            json: false,
            left: None,
            begun: true,
            epoch: None,
            told: None,
            from_oldest: false,
            resume: None,
        };
        let event = SseEvent { data: vec![0xff], ..SseEvent::default() };
        assert!(matches!(tail.publication(event), Err(Over::Failed(_))));
    }
}
