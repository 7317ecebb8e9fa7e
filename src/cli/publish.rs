//! `tidegate publish`: publishes through the server API.

use std::io::Read as _;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::arguments::parse_channel;
use super::server_api::{ServerApi, block_on};
use super::target::Target;
use super::{Failure, print_line};

/// The largest standard input.
const MAX_INPUT_BYTES: u64 = 64 << 20;

/// Publish to a channel through the server API of a running gateway
///
/// DATA is JSON, which is delivered to the channel's clients unchanged. Without DATA, or with "-", it is read
/// from standard input, which may hold several JSON values, for example one per line; they are published in
/// order. The responses of the server API are printed, one per line.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  tidegate publish --config gateway.toml chat_42 '{\"event\":\"note\",\"text\":\"back at 9\"}'
  tidegate publish --config gateway.toml chat_42 --event complete
  tidegate publish --config gateway.toml chat_42 --text 'Hello '
  tidegate publish --url http://10.0.0.5:9000 chat_42 - < events.jsonl")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The channel
    #[arg(value_parser = parse_channel)]
    channel: String,
    /// The publication; "-" reads it from standard input
    data: Option<String>,
    /// DATA is text, not JSON, and is published as {"event":"chunk","chunk":"…"}
    #[arg(long)]
    text: bool,
    /// Add this event name to DATA, an object; with --text, publish {"event":"NAME","text":"…"}
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Do not publish again if this key was used within the last 10 minutes
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Serialize)]
struct PublishRequest<'a> {
    channel: &'a str,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let api = args.target.api_with_key()?;
    let input = match args.data.as_deref() {
        // An event without other fields.
        None if args.event.is_some() && !args.text => "{}".to_owned(),
        None | Some("-") => read_input()?,
        Some(data) => data.to_owned(),
    };
    let publications = publications(&input, args.text, args.event.as_deref())?;
    block_on(publish(&api, args, &publications))??;
    Ok(ExitCode::SUCCESS)
}

fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_INPUT_BYTES + 1).read_to_string(&mut text);
    let read = read.map_err(|error| Failure(format!("standard input: {error}")))?;
    if read as u64 > MAX_INPUT_BYTES {
        return Err(Failure("standard input: more than 64 MiB".to_owned()));
    }
    Ok(text)
}

/// Converts the input to publications.
fn publications(
    input: &str,
    is_text: bool,
    event: Option<&str>,
) -> Result<Vec<Box<RawValue>>, Failure> {
    if is_text {
        let field = if event.is_some() { "text" } else { "chunk" };
        let (name, text) = (json(event.unwrap_or("chunk"))?, json(input)?);
        let object = format!("{{\"event\":{name},\"{field}\":{text}}}");
        return Ok(vec![RawValue::from_string(object)?]);
    }
    let values = serde_json::Deserializer::from_str(input).into_iter::<Box<RawValue>>();
    let values: Vec<_> = values.collect::<Result<_, _>>().map_err(|error| {
        Failure(format!("DATA is not valid JSON: {error}; use --text for text"))
    })?;
    if values.is_empty() {
        return Err(Failure("DATA is empty; write JSON, or use --text for text".to_owned()));
    }
    values.into_iter().map(|value| with_event(value, event)).collect()
}

/// Adds the name of the event in front of the other fields.
fn with_event(value: Box<RawValue>, event: Option<&str>) -> Result<Box<RawValue>, Failure> {
    let Some(event) = event else { return Ok(value) };
    let Ok(object) = serde_json::from_str::<Map<String, Value>>(value.get()) else {
        return Err(Failure("--event needs a JSON object as DATA, or --text".to_owned()));
    };
    if object.contains_key("event") {
        return Err(Failure("DATA already has an \"event\"; remove --event".to_owned()));
    }
    // The other fields keep their original text.
    let rest = value.get().trim_start().strip_prefix('{').unwrap_or_default();
    let comma = if object.is_empty() { "" } else { "," };
    Ok(RawValue::from_string(format!("{{\"event\":{}{comma}{rest}", json(event)?))?)
}

fn json(text: &str) -> serde_json::Result<String> {
    serde_json::to_string(text)
}

async fn publish(api: &ServerApi, args: &Args, all: &[Box<RawValue>]) -> Result<(), Failure> {
    for (number, data) in all.iter().enumerate() {
        let key = args.idempotency_key.as_ref();
        // Each publication is a request of its own, with its own key.
        let key =
            key.map(|key| if all.len() == 1 { key.clone() } else { format!("{key}:{number}") });
        let request = PublishRequest { channel: &args.channel, data, idempotency_key: key };
        let response =
            api.post("/v1/publish", &request).await.map_err(|error| match all.len() {
                1 => Failure(error.to_string()),
                _ => Failure(format!("after {number} publications: {error}")),
            })?;
        print_line(String::from_utf8_lossy(&response));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
