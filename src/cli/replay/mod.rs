//! `tidegate replay`: publishes recorded publications again, with their original timing.

mod recording;
mod timing;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use self::recording::{RecordedPublication, RecordingReader, read_history_page};
use self::timing::{ReplaySpeed, ReplayTiming};
use super::arguments::{parse_channel, parse_deadline};
use super::server_api::{ServerApi, block_on};
use super::signals;
use super::target::Target;
use super::{Failure, print_error, print_line};
use crate::protocol::random_hex;

/// Publish recorded publications again, with their original timing
///
/// FILE is the output of "tidegate tail --json": one object per line, with "data" and "time". The pauses between
/// publications are the recorded ones divided by --speed; publications without a time follow at once. This
/// reproduces a reported stream in a test system. --from-history replays what a channel of the gateway still keeps;
/// a history has no times, so use --every.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  tidegate tail --url http://10.0.0.5:9000 chat_42 --json > recorded.jsonl
  tidegate replay --config gateway.toml recorded.jsonl --to chat_test --speed 2
  tidegate replay --config gateway.toml --from-history chat_42 --to chat_test --every 50ms")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The recorded publications; "-" is standard input
    #[arg(required_unless_present = "from_history", conflicts_with = "from_history")]
    file: Option<PathBuf>,
    /// Replay the history of this channel, instead of a file
    #[arg(long, value_name = "CHANNEL", value_parser = parse_channel)]
    from_history: Option<String>,
    /// The channel to publish to, instead of the recorded one
    #[arg(long, value_name = "CHANNEL", value_parser = parse_channel)]
    to: String,
    /// The speed: a factor such as 0.5 or 2, or "max" for no pauses
    #[arg(long, value_name = "FACTOR", value_parser = timing::parse_speed, default_value = "1", conflicts_with = "every")]
    speed: ReplaySpeed,
    /// Use this pause between publications, instead of the recorded ones
    #[arg(long, value_name = "DURATION", value_parser = parse_deadline)]
    every: Option<Duration>,
    /// The longest pause between two publications
    #[arg(long, value_name = "DURATION", value_parser = parse_deadline)]
    max_pause: Option<Duration>,
    /// Replace each "task_id" by a new one, so that a stream can be replayed more than once: the gateway drops a
    /// second terminal event of a task
    #[arg(long)]
    new_task_ids: bool,
    /// Print the publications without publishing them
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    // A dry run needs a gateway only to read a history.
    let api = match args.dry_run && args.from_history.is_none() {
        true => None,
        false => Some(args.target.api_with_key()?),
    };
    block_on(async {
        let mut signals = signals::Signals::new()?;
        let started = Instant::now();
        let mut replay = Replay {
            args,
            api: api.as_ref(),
            timing: ReplayTiming::new(args.speed, args.every, args.max_pause),
            new_task_ids: args.new_task_ids.then(HashMap::new),
            published: 0,
        };
        let result = tokio::select! {
            result = replay.run() => result,
            () = signals.next() => Err(Failure("interrupted".to_owned())),
        };
        let verb = if args.dry_run { "would be published" } else { "published" };
        print_error(format_args!(
            "tidegate: {} publications {verb} to {} in {:.1} s",
            replay.published,
            args.to,
            started.elapsed().as_secs_f64()
        ));
        result
    })??;
    Ok(ExitCode::SUCCESS)
}

struct Replay<'a> {
    args: &'a Args,
    /// `None` in a dry run of a file.
    api: Option<&'a ServerApi>,
    timing: ReplayTiming,
    /// The new id of each recorded task; `None` if ids are kept.
    new_task_ids: Option<HashMap<String, String>>,
    published: u64,
}

impl Replay<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        match (&self.args.from_history, self.api) {
            (Some(channel), Some(api)) => {
                let mut since = None;
                loop {
                    let (page, next) = read_history_page(api, channel, since).await?;
                    for publication in page {
                        self.publish(publication).await?;
                    }
                    since = next;
                    if since.is_none() {
                        return Ok(());
                    }
                }
            }
            _ => {
                let path = self.args.file.as_deref().unwrap_or(Path::new("-"));
                let mut reader = RecordingReader::open(path)?;
                while let Some(publication) = reader.next()? {
                    self.publish(publication).await?;
                }
                Ok(())
            }
        }
    }

    /// Waits until the publication is due, then publishes or prints it.
    async fn publish(&mut self, publication: RecordedPublication) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct PublishRequest<'a> {
            channel: &'a str,
            data: &'a RawValue,
        }
        let RecordedPublication { at, data } = publication;
        let data = match &mut self.new_task_ids {
            Some(ids) => replace_task_id(data, ids)?,
            None => data,
        };
        self.timing.wait(at).await;
        match self.api {
            Some(api) if !self.args.dry_run => {
                let request = PublishRequest { channel: &self.args.to, data: &data };
                api.post("/v1/publish", &request).await?;
            }
            _ => print_line(data.get()),
        }
        self.published += 1;
        Ok(())
    }
}

/// Replaces the `task_id` of a publication, always by the same new id for the same task.
fn replace_task_id(
    data: Box<RawValue>,
    new_ids: &mut HashMap<String, String>,
) -> Result<Box<RawValue>, Failure> {
    let Ok(Value::Object(mut object)) = serde_json::from_str(data.get()) else { return Ok(data) };
    let Some(Value::String(task)) = object.get_mut("task_id") else { return Ok(data) };
    let new = new_ids.entry(task.clone()).or_insert_with(|| random_hex(16));
    task.clone_from(new);
    Ok(serde_json::value::to_raw_value(&object)?)
}

#[cfg(test)]
mod tests;
