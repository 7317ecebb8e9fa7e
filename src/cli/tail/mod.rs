//! `tidegate tail`: prints the publications of a channel as they arrive.
//!
//! The stream is opened before the history is read, so that nothing is missed between the two. Publications
//! that arrive in both ways are printed once, by their offset.

mod stream;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;

use self::stream::{EventStream, StreamEnd, invalid_stream};
use super::arguments::parse_channel;
use super::record::Record;
use super::server_api::{ServerApi, block_on};
use super::signals;
use super::target::Target;
use super::{Failure, print_error};
use crate::admin::EndReason;
use crate::clock;
use crate::sse::SseEvent;

/// The pauses between attempts to reconnect, which double from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The number of publications per page of the history.
const PAGE_SIZE: usize = 100;

/// Print the publications of a channel as they arrive
///
/// A line has offset, time of day (UTC), event, text and the other fields, with control characters escaped. With
/// --json it is an object for "tidegate replay": {"time","channel","offset","epoch","data"}. After a lost
/// connection it reconnects and reads missed publications from the channel's history; if the channel keeps none, it
/// warns on standard error. Ctrl-C stops it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  tidegate tail --config gateway.toml chat_42
  tidegate tail --config gateway.toml chat_42 --history --json > recorded.jsonl")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The channel
    #[arg(value_parser = parse_channel)]
    channel: String,
    /// Start with the whole history of the channel
    #[arg(long)]
    history: bool,
    /// Start with the history after this offset
    #[arg(long, value_name = "OFFSET", conflicts_with = "history")]
    since: Option<u64>,
    /// The epoch of --since [default: the current one]
    #[arg(long, value_name = "EPOCH", requires = "since")]
    epoch: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Stop after this many publications
    #[arg(short = 'n', long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut tail = Tail {
        api: args.target.api_with_key()?,
        channel: args.channel.clone(),
        json: args.json,
        remaining: args.count,
        was_connected: false,
        epoch: args.epoch.clone(),
        last_offset: args.since,
        from_oldest: args.history,
        resume_from: args.since,
    };
    block_on(async {
        let mut signals = signals::Signals::new()?;
        tokio::select! {
            result = tail.run() => result,
            () = signals.next() => Ok(()),
        }
    })??;
    Ok(ExitCode::SUCCESS)
}

struct Tail {
    api: ServerApi,
    channel: String,
    json: bool,
    /// How many publications are still to be printed; `None` = no limit.
    remaining: Option<u64>,
    /// Whether a stream was live before.
    was_connected: bool,
    epoch: Option<String>,
    /// The last printed offset of this epoch.
    last_offset: Option<u64>,
    /// Whether the history is to be read from its start.
    from_oldest: bool,
    /// The offset after which the history is read to fill a gap.
    resume_from: Option<u64>,
}

/// The first event of a stream.
#[derive(Deserialize)]
struct Live {
    /// Whether the channel keeps a history.
    history: bool,
}

#[derive(Deserialize)]
struct ChannelState {
    epoch: Option<String>,
    offset: Option<u64>,
}

#[derive(Deserialize)]
struct Page {
    epoch: Option<String>,
    offset: u64,
    publications: Vec<HistoryEntry>,
    recovered: bool,
    next_since: Option<u64>,
}

#[derive(Deserialize)]
struct HistoryEntry {
    offset: Option<u64>,
    data: Option<Box<RawValue>>,
    text: Option<String>,
    base64: Option<String>,
}

impl Tail {
    async fn run(&mut self) -> Result<(), Failure> {
        let mut pause = FIRST_PAUSE;
        let mut was_lost = false;
        loop {
            let Err(end) = self.follow_stream(&mut pause).await else { continue };
            match end {
                StreamEnd::Finished => return Ok(()),
                StreamEnd::Failed(reason) => return Err(Failure(reason)),
                // A mistyped address fails at once.
                StreamEnd::Lost(reason) if !self.was_connected => return Err(Failure(reason)),
                StreamEnd::Lost(reason) => {
                    // Each outage is reported once, not each attempt.
                    if pause == FIRST_PAUSE || !was_lost {
                        print_error(format_args!("tidegate: {reason}; reconnecting"));
                    }
                    was_lost = true;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Follows one stream to its end. Resets `pause` once the stream is live.
    async fn follow_stream(&mut self, pause: &mut Duration) -> Result<(), StreamEnd> {
        let path = self.path("/tail");
        let mut stream = EventStream::new(self.api.stream(&path).await?);
        let mut live = None;
        loop {
            let event = stream.next().await?;
            match (event.name.as_str(), &live) {
                ("live", None) => {
                    let first = serde_json::from_slice::<Live>(&event.data);
                    let first = first
                        .map_err(|_| StreamEnd::Failed("not a stream of the server API".into()))?;
                    self.start(&first).await?;
                    *pause = FIRST_PAUSE;
                    live = Some(first);
                }
                ("gap", Some(live)) => self.fill_gap(live).await?,
                ("end", _) => return Err(self.end_reason(&event.data)),
                ("" | "binary", Some(_)) => self.publication(event)?,
                _ => {}
            }
        }
    }

    /// Prints what was published before the stream was live, as far as the arguments ask for it.
    async fn start(&mut self, live: &Live) -> Result<(), StreamEnd> {
        if std::mem::replace(&mut self.was_connected, true) {
            print_error("tidegate: reconnected");
            return self.fill_gap(live).await;
        }
        if !live.history {
            if self.from_oldest || self.resume_from.is_some() {
                return Err(StreamEnd::Failed(format!(
                    "the channel {} keeps no history",
                    self.channel
                )));
            }
            return Ok(());
        }
        if self.from_oldest || self.resume_from.is_some() {
            return self.read_history().await;
        }
        // The current offset is where to resume if the stream is lost before the first publication.
        let body = self.api.get(&self.path("")).await?;
        if let Ok(ChannelState { epoch, offset }) = serde_json::from_slice(&body) {
            self.epoch = epoch;
            self.resume_from = Some(offset.unwrap_or(0));
        }
        Ok(())
    }

    /// Prints the missed publications.
    async fn fill_gap(&mut self, live: &Live) -> Result<(), StreamEnd> {
        if live.history && self.resume_from.is_some() {
            return self.read_history().await;
        }
        print_error("tidegate: publications may be missing here: the channel keeps no history");
        Ok(())
    }

    async fn read_history(&mut self) -> Result<(), StreamEnd> {
        loop {
            let mut path = self.path(&format!("/history?limit={PAGE_SIZE}"));
            if let Some(since) = self.resume_from.filter(|_| !self.from_oldest) {
                path.push_str(&format!("&since={since}"));
                if let Some(epoch) = &self.epoch {
                    path.push_str(&format!("&epoch={}", percent_encode(epoch)));
                }
            }
            let body = self.api.get(&path).await?;
            let page: Page = serde_json::from_slice(&body).map_err(|_| {
                StreamEnd::Failed("invalid response to a history request".to_owned())
            })?;
            if !page.recovered && !self.from_oldest {
                print_error(
                    "tidegate: publications are missing here: the history does not go back far enough",
                );
                self.last_offset = None;
            }
            self.from_oldest = false;
            if page.epoch != self.epoch {
                self.last_offset = None;
                self.epoch = page.epoch;
            }
            for HistoryEntry { offset, data, text, base64 } in page.publications {
                let mut record = self.record(offset, None);
                match data {
                    Some(json) => record.set_text(json.get().to_owned()),
                    None => (record.text, record.base64) = (text, base64),
                }
                self.print(&record)?;
            }
            match page.next_since {
                Some(next) => self.resume_from = Some(next),
                None => {
                    self.resume_from = Some(page.offset.max(self.last_offset.unwrap_or(0)));
                    return Ok(());
                }
            }
        }
    }

    fn publication(&mut self, event: SseEvent) -> Result<(), StreamEnd> {
        let mut record = self.record(event.id.parse().ok(), Some(clock::now_rfc3339()));
        let text = String::from_utf8(event.data).map_err(|_| invalid_stream())?;
        if event.name == "binary" {
            record.base64 = Some(text);
        } else {
            record.set_text(text);
        }
        if record.offset.is_some() && record.epoch != self.epoch {
            // The first publication of an epoch carries its id.
            self.epoch.clone_from(&record.epoch);
            self.last_offset = None;
        }
        self.print(&record)
    }

    fn record(&self, offset: Option<u64>, time: Option<String>) -> Record {
        let epoch = offset.and(self.epoch.clone());
        Record { time, epoch, ..Record::new(self.channel.clone(), offset) }
    }

    fn print(&mut self, record: &Record) -> Result<(), StreamEnd> {
        if let Some(offset) = record.offset {
            if self.last_offset.is_some_and(|last| offset <= last) {
                return Ok(());
            }
            self.last_offset = Some(offset);
            self.resume_from = Some(offset);
        }
        let line = match self.json {
            true => serde_json::to_string(record).map_err(|e| StreamEnd::Failed(e.to_string()))?,
            false => record.to_line(),
        };
        let mut out = std::io::stdout().lock();
        if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
            return Err(match error.kind() {
                std::io::ErrorKind::BrokenPipe => StreamEnd::Finished,
                _ => StreamEnd::Failed(format!("standard output: {error}")),
            });
        }
        match &mut self.remaining {
            Some(remaining) => {
                *remaining -= 1;
                if *remaining == 0 { Err(StreamEnd::Finished) } else { Ok(()) }
            }
            None => Ok(()),
        }
    }

    fn end_reason(&self, data: &[u8]) -> StreamEnd {
        #[derive(Deserialize)]
        struct End {
            reason: String,
        }
        let reason = serde_json::from_slice::<End>(data).map(|end| end.reason).unwrap_or_default();
        match EndReason::from_label(&reason) {
            Some(EndReason::Refused) => {
                StreamEnd::Failed(format!("the engine refused the channel {}", self.channel))
            }
            Some(EndReason::TooSlow) => {
                StreamEnd::Lost("this reader is too slow for the channel".to_owned())
            }
            Some(EndReason::Draining) => StreamEnd::Lost("the gateway is shutting down".to_owned()),
            None => StreamEnd::Lost("the gateway ended the stream".to_owned()),
        }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/channels/{}{rest}", percent_encode(&self.channel))
    }
}

fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests;
