//! `tidegate publish`: publications by hand, through the server API.

use std::io::Read as _;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::server_api::{ServerApi, block_on};
use super::target::Target;
use super::{Failure, say};

/// Of standard input, this much is taken.
const MAX_INPUT_BYTES: u64 = 64 << 20;

/// Publish to a channel through the server API of a gateway that runs
///
/// DATA is JSON, delivered to the channel's clients as it is. From standard input, which "-" or no DATA at
/// all means, it may be several JSON values, such as one a line: they are published one after the other. The
/// answers of the server API are printed, one a line.
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
    #[arg(value_parser = super::channel)]
    channel: String,
    /// What is published; "-" reads it from standard input
    data: Option<String>,
    /// DATA is text, not JSON: published as a chunk, {"event":"chunk","chunk":"…"}
    #[arg(long)]
    text: bool,
    /// Put this event's name into DATA, an object; with --text, {"event":"NAME","text":"…"}
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// A repeat of the call with the same key within 10 minutes publishes nothing
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Serialize)]
struct Call<'a> {
    channel: &'a str,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let api = args.target.api_with_key()?;
    let input = match args.data.as_deref() {
        // An event without anything else.
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
        return Err(Failure("standard input: it has more than 64 MiB".to_owned()));
    }
    Ok(text)
}

/// What `input` says, ready to be published.
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
    let values: Vec<_> = values
        .collect::<Result<_, _>>()
        .map_err(|wrong| Failure(format!("DATA is no JSON: {wrong}; write --text for text")))?;
    if values.is_empty() {
        return Err(Failure("DATA is empty; write JSON, or --text for text".to_owned()));
    }
    values.into_iter().map(|value| named(value, event)).collect()
}

/// `value` with the event's name in front.
fn named(value: Box<RawValue>, event: Option<&str>) -> Result<Box<RawValue>, Failure> {
    let Some(event) = event else { return Ok(value) };
    let Ok(object) = serde_json::from_str::<Map<String, Value>>(value.get()) else {
        return Err(Failure("--event needs an object as DATA, or --text".to_owned()));
    };
    if object.contains_key("event") {
        return Err(Failure("DATA has an \"event\" already; leave --event out".to_owned()));
    }
    // In front of the rest, which stays as it was written.
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
        // Each of several is a call of its own.
        let key =
            key.map(|key| if all.len() == 1 { key.clone() } else { format!("{key}:{number}") });
        let call = Call { channel: &args.channel, data, idempotency_key: key };
        let answer = api.post("/v1/publish", &call).await.map_err(|why| match all.len() {
            1 => Failure(why.to_string()),
            _ => Failure(format!("after {number} publications: {why}")),
        })?;
        say(String::from_utf8_lossy(&answer));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(input: &str, text: bool, event: Option<&str>) -> Vec<String> {
        let made = publications(input, text, event).unwrap_or_else(|wrong| panic!("{}", wrong.0));
        made.iter().map(|raw| raw.get().to_owned()).collect()
    }

    #[test]
    fn json_is_published_as_it_is() {
        assert_eq!(made(r#" {"a" : 1} "#, false, None), [r#"{"a" : 1}"#]);
        assert_eq!(made("{\"a\":1}\n[2]\n\"x\"\n", false, None), [r#"{"a":1}"#, "[2]", "\"x\""]);
    }

    #[test]
    fn text_and_events_are_wrapped() {
        assert_eq!(made("a \"b\"\n", true, None), [r#"{"event":"chunk","chunk":"a \"b\"\n"}"#]);
        assert_eq!(made("hi", true, Some("note")), [r#"{"event":"note","text":"hi"}"#]);
        assert_eq!(made(r#"{"b":1,"a":2}"#, false, Some("n")), [r#"{"event":"n","b":1,"a":2}"#]);
        assert_eq!(made("{}", false, Some("complete")), [r#"{"event":"complete"}"#]);
    }

    #[test]
    fn what_cannot_be_published_is_told() {
        for (input, event, told) in [
            ("hello", None, "--text"),
            ("{\"a\":1} {", None, "no JSON"),
            ("", None, "empty"),
            ("[1]", Some("note"), "needs an object"),
            (r#"{"event":"a"}"#, Some("b"), "already"),
        ] {
            let wrong = publications(input, false, event).unwrap_err().0;
            assert!(wrong.contains(told), "{input}: {wrong}");
        }
    }
}
