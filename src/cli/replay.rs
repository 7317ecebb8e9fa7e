//! `tidegate replay`: publications that were recorded, again, at their pace.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::record::Record;
use super::server_api::{ServerApi, block_on};
use super::signals;
use super::target::{Target, deadline};
use super::{Failure, complain, say};
use crate::clock;
use crate::protocol::random_hex;

/// A line that is longer is no recorded publication.
const MAX_LINE_BYTES: usize = 64 << 20;

/// Publications of one answer of the history.
const PAGE: usize = 100;

/// Publish recorded publications again, at their pace
///
/// FILE holds what "tidegate tail --json" printed: one object a line, with "data" and "time". Each publication follows
/// the one before it after the time that lay between them, divided by --speed; those without a time follow at once. So
/// a stream that somebody reported can be seen again in a test system. With --from-history the file's place is taken
/// by what a channel of the same gateway still keeps, which has no times: --every gives it a pace.
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
    /// Publish what this channel keeps instead
    #[arg(long, value_name = "CHANNEL", value_parser = super::channel)]
    from_history: Option<String>,
    /// The channel that they are published to, whichever they were recorded on
    #[arg(long, value_name = "CHANNEL", value_parser = super::channel)]
    to: String,
    /// How much faster than recorded: 0.5, 2, or "max" for without any pause
    #[arg(long, value_name = "FACTOR", value_parser = speed, default_value = "1", conflicts_with = "every")]
    speed: Speed,
    /// From each to the next, whatever was recorded
    #[arg(long, value_name = "DURATION", value_parser = deadline)]
    every: Option<Duration>,
    /// Wait no longer than this between two
    #[arg(long, value_name = "DURATION", value_parser = deadline)]
    max_pause: Option<Duration>,
    /// Give each "task_id" another value, the same for all of its events, so that a stream can be replayed again: a
    /// second end of a task that the gateway knows is dropped
    #[arg(long)]
    new_task_ids: bool,
    /// Print what would be published, and publish nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Speed {
    Times(f64),
    Max,
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    match text.parse::<f64>() {
        Ok(factor) if (0.001..=1000.0).contains(&factor) => Ok(Speed::Times(factor)),
        _ => Err(format!("{text:?} is no speed; write a number from 0.001 to 1000, or max")),
    }
}

/// One to be published.
struct Recorded {
    /// Since the begin of 1970.
    at: Option<Duration>,
    data: Box<RawValue>,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    // Without publishing, only a history needs a gateway.
    let api = match args.dry_run && args.from_history.is_none() {
        true => None,
        false => Some(args.target.api_with_key()?),
    };
    block_on(async {
        let mut signals = signals::Signals::new()?;
        let mut done = 0;
        let began = Instant::now();
        let ended = tokio::select! {
            ended = replay(args, api.as_ref(), &mut done) => ended,
            () = signals.next() => Err(Failure("interrupted".to_owned())),
        };
        let what = if args.dry_run { "would be published" } else { "published" };
        complain(format_args!(
            "tidegate: {done} publications {what} to {} in {:.1} s",
            args.to,
            began.elapsed().as_secs_f64()
        ));
        ended
    })??;
    Ok(ExitCode::SUCCESS)
}

async fn replay(args: &Args, api: Option<&ServerApi>, done: &mut u64) -> Result<(), Failure> {
    let mut pace = Pace::new(args);
    let mut tasks = args.new_task_ids.then(HashMap::new);
    match (&args.from_history, api) {
        (Some(channel), Some(api)) => {
            let mut since = None;
            loop {
                let (page, next) = kept(api, channel, since).await?;
                for recorded in page {
                    publish(args, Some(api), &mut pace, &mut tasks, recorded, done).await?;
                }
                since = next;
                if since.is_none() {
                    return Ok(());
                }
            }
        }
        _ => {
            let path = args.file.as_deref().unwrap_or(Path::new("-"));
            let mut lines = Lines::open(path)?;
            while let Some(recorded) = lines.next()? {
                publish(args, api, &mut pace, &mut tasks, recorded, done).await?;
            }
            Ok(())
        }
    }
}

async fn publish(
    args: &Args,
    api: Option<&ServerApi>,
    pace: &mut Pace,
    tasks: &mut Option<HashMap<String, String>>,
    Recorded { at, data }: Recorded,
    done: &mut u64,
) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Call<'a> {
        channel: &'a str,
        data: &'a RawValue,
    }
    let data = match tasks {
        Some(tasks) => renamed(data, tasks)?,
        None => data,
    };
    pace.wait(at).await;
    match api {
        Some(api) if !args.dry_run => {
            let call = Call { channel: &args.to, data: &data };
            api.post("/v1/publish", &call).await?;
        }
        _ => say(data.get()),
    }
    *done += 1;
    Ok(())
}

/// When the next is due.
struct Pace {
    speed: Speed,
    every: Option<Duration>,
    max_pause: Option<Duration>,
    /// When the last was due, and when it was recorded.
    last: Option<(Instant, Option<Duration>)>,
}

impl Pace {
    fn new(args: &Args) -> Self {
        Self { speed: args.speed, every: args.every, max_pause: args.max_pause, last: None }
    }

    /// What a late one has lost is made up for.
    async fn wait(&mut self, at: Option<Duration>) {
        let due = self.due(at, Instant::now());
        tokio::time::sleep_until(due).await;
    }

    fn due(&mut self, at: Option<Duration>, now: Instant) -> Instant {
        let Some((due, before)) = self.last else {
            self.last = Some((now, at));
            return now;
        };
        let recorded = at.zip(before).map(|(at, before)| at.saturating_sub(before));
        let pause = match (self.every, self.speed, recorded) {
            (Some(every), _, _) => every,
            (None, Speed::Times(factor), Some(pause)) => pause.div_f64(factor),
            (None, Speed::Max, _) | (None, _, None) => Duration::ZERO,
        };
        let due = due + self.max_pause.map_or(pause, |most| pause.min(most));
        self.last = Some((due, at.or(before)));
        due
    }
}

/// A file of recorded publications.
struct Lines {
    name: String,
    reader: Box<dyn std::io::BufRead>,
    number: usize,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            let reader = Box::new(std::io::BufReader::new(std::io::stdin()));
            return Ok(Self { name: "standard input".to_owned(), reader, number: 0 });
        }
        let name = path.display().to_string();
        let file = std::fs::File::open(path).map_err(|e| Failure(format!("{name}: {e}")))?;
        Ok(Self { name, reader: Box::new(std::io::BufReader::new(file)), number: 0 })
    }

    /// Lines that are empty are none.
    fn next(&mut self) -> Result<Option<Recorded>, Failure> {
        loop {
            let mut line = Vec::new();
            let mut bounded = std::io::Read::take(&mut self.reader, MAX_LINE_BYTES as u64 + 1);
            let read = bounded.read_until(b'\n', &mut line);
            let wrong = |why: &str, number| Failure(format!("{}, line {number}: {why}", self.name));
            self.number += 1;
            if read.map_err(|error| wrong(&error.to_string(), self.number))? == 0 {
                return Ok(None);
            }
            if line.len() > MAX_LINE_BYTES {
                return Err(wrong("it is longer than 64 MiB", self.number));
            }
            if !line.trim_ascii().is_empty() {
                let recorded = recorded(&line).map_err(|why| wrong(&why, self.number))?;
                return Ok(Some(recorded));
            }
        }
    }
}

fn recorded(line: &[u8]) -> Result<Recorded, String> {
    let hint = "write what tidegate tail --json prints";
    let record: Record =
        serde_json::from_slice(line).map_err(|wrong| format!("{wrong}; {hint}"))?;
    let at = match &record.time {
        Some(time) => {
            let at = clock::from_rfc3339(time).ok_or_else(|| {
                format!("{time:?} is no time such as \"2026-11-23T23:57:38.603Z\"")
            })?;
            Some(at)
        }
        None => None,
    };
    match record {
        Record { data: Some(data), .. } => Ok(Recorded { at, data }),
        Record { text: None, base64: None, .. } => Err(format!("it has no \"data\"; {hint}")),
        _ => Err("it is no JSON, which is all that the server API publishes".to_owned()),
    }
}

/// A part of what `channel` keeps, and where the next begins.
async fn kept(
    api: &ServerApi,
    channel: &str,
    since: Option<u64>,
) -> Result<(Vec<Recorded>, Option<u64>), Failure> {
    #[derive(Deserialize)]
    struct Page {
        publications: Vec<Kept>,
        next_since: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Kept {
        offset: Option<u64>,
        data: Option<Box<RawValue>>,
    }
    let channel =
        percent_encoding::utf8_percent_encode(channel, percent_encoding::NON_ALPHANUMERIC);
    let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
    let body = api.get(&format!("/v1/channels/{channel}/history?limit={PAGE}{since}")).await?;
    let page: Page = serde_json::from_slice(&body)?;
    let publications = page.publications.into_iter().map(|Kept { offset, data }| {
        let data = data.ok_or_else(|| Failure("the history holds what is no JSON".to_owned()))?;
        let mut record = Record {
            time: None,
            channel: String::new(),
            offset,
            epoch: None,
            data: None,
            text: None,
            base64: None,
        };
        record.set_text(data.get().to_owned());
        Ok(Recorded { at: None, data: record.data.unwrap_or(data) })
    });
    Ok((publications.collect::<Result<_, Failure>>()?, page.next_since))
}

/// `data` with another `task_id`: that of its task.
fn renamed(
    data: Box<RawValue>,
    tasks: &mut HashMap<String, String>,
) -> Result<Box<RawValue>, Failure> {
    let Ok(Value::Object(mut object)) = serde_json::from_str(data.get()) else { return Ok(data) };
    let Some(Value::String(task)) = object.get_mut("task_id") else { return Ok(data) };
    let new = tasks.entry(task.clone()).or_insert_with(|| random_hex(16));
    task.clone_from(new);
    Ok(serde_json::value::to_raw_value(&object)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(speed: Speed, every: Option<u64>, max_pause: Option<u64>) -> Pace {
        let millis = |millis: Option<u64>| millis.map(Duration::from_millis);
        Pace { speed, every: millis(every), max_pause: millis(max_pause), last: None }
    }

    /// When each is due, in milliseconds after the first.
    fn due(mut pace: Pace, recorded: &[Option<u64>]) -> Vec<u128> {
        let began = Instant::now();
        let times = recorded.iter().map(|at| at.map(Duration::from_millis));
        times.map(|at| pace.due(at, began).duration_since(began).as_millis()).collect()
    }

    #[test]
    fn the_pace_is_that_of_the_record() {
        let recorded = [Some(1000), Some(1100), None, Some(1300), Some(1250), Some(3300)];
        let at = |speed| due(pace(speed, None, None), &recorded);
        assert_eq!(at(Speed::Times(1.0)), [0, 100, 100, 300, 300, 2350]);
        assert_eq!(at(Speed::Times(2.0)), [0, 50, 50, 150, 150, 1175]);
        assert_eq!(at(Speed::Max), [0; 6]);
        let every = due(pace(Speed::Times(1.0), Some(20), None), &recorded);
        assert_eq!(every, [0, 20, 40, 60, 80, 100]);
        let patient = due(pace(Speed::Times(1.0), None, Some(150)), &recorded);
        assert_eq!(patient, [0, 100, 100, 250, 250, 400]);
    }

    #[test]
    fn speeds_are_factors() {
        assert_eq!(speed("2"), Ok(Speed::Times(2.0)));
        assert_eq!(speed("max"), Ok(Speed::Max));
        for wrong in ["0", "-1", "NaN", "inf", "fast", ""] {
            assert!(speed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_is_a_record() {
        let line = br#"{"time":"1970-01-01T00:00:01.5Z","data":{"b":1, "a":2}}"#;
        let read = recorded(line).unwrap();
        assert_eq!(read.at, Some(Duration::from_millis(1500)));
        assert_eq!(read.data.get(), r#"{"b":1, "a":2}"#);
        for (line, told) in [
            ("hello", "tail --json"),
            (r#"{"event":"chunk"}"#, "no \"data\""),
            (r#"{"time":"yesterday","data":1}"#, "yesterday"),
            (r#"{"text":"hello"}"#, "no JSON"),
        ] {
            let wrong = recorded(line.as_bytes()).err().unwrap();
            assert!(wrong.contains(told), "{line}: {wrong}");
        }
    }

    #[test]
    fn tasks_get_one_new_name_each() {
        let mut tasks = HashMap::new();
        let mut of = |json: &str| {
            let raw = RawValue::from_string(json.to_owned()).unwrap();
            let renamed = renamed(raw, &mut tasks).unwrap();
            serde_json::from_str::<Value>(renamed.get()).unwrap()["task_id"].clone()
        };
        let (a, b) = (of(r#"{"task_id":"a","x":1}"#), of(r#"{"task_id":"b"}"#));
        assert!(a != "a" && b != "b" && a != b);
        assert_eq!(of(r#"{"task_id":"a"}"#), a);
        assert_eq!((of("{}"), of("[1]")), (Value::Null, Value::Null));
    }
}
