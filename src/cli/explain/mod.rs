//! `tidegate explain`: what the nodes know of a connection, a user or a channel.

mod answer;
mod text;

use std::process::ExitCode;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use self::answer::Answer;
use super::arguments::parse_channel;
use super::server_api::{ServerApi, block_on};
use super::target::Target;
use super::{Failure, print_error, write_stdout};
use crate::clock;
use crate::protocol::ConnectionId;

/// The gateway asks all nodes twice, and its engine, and waits about two seconds for each.
const DEADLINE: Duration = Duration::from_secs(10);

/// Explain a live connection, user or channel: limits, queues, replies, errors
///
/// Asks all nodes. A NAME of 32 hex digits is first looked for among connections; any other, or one that is not found,
/// among users and channels. Exits with 1 if nothing is known of the name. With --json it prints the answer of the
/// server API, one line for each kind of thing that has the name. Without the engine it prints what the node that is
/// asked knows by itself, and says on stderr what is missing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  tidegate explain --config gateway.toml chat_42
  tidegate explain --config gateway.toml --user 7 --json")]
#[group(id = "subject", required = true, multiple = false, args = ["name", "connection", "user", "channel"])]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The id of a connection or a user, or the name of a channel
    #[arg(value_parser = parse_name)]
    name: Option<String>,
    /// The id of a connection, from its connected event or the log
    #[arg(long, value_name = "ID", value_parser = parse_connection)]
    connection: Option<String>,
    /// The id of a user
    #[arg(long, value_name = "ID", value_parser = parse_name)]
    user: Option<String>,
    /// The name of a channel
    #[arg(long, value_name = "NAME", value_parser = parse_channel)]
    channel: Option<String>,
    /// Print the answers of the server API
    #[arg(long)]
    json: bool,
}

/// What a name may be the name of: the parameter of the call, and the value.
type Subject<'a> = (&'static str, &'a str);

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let api = args.target.api_with_key()?;
    block_on(explain(&api, args))?
}

async fn explain(api: &ServerApi, args: &Args) -> Result<ExitCode, Failure> {
    let mut is_known = false;
    for (kind, name) in subjects(args) {
        // An id of a connection is nothing else.
        if is_known && args.name.is_some() && kind != "channel" {
            continue;
        }
        let value = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let body = api.get_within(&format!("/v1/explain?{kind}={value}"), DEADLINE).await?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
            Failure(format!("{} sent an answer that cannot be read: {error}", api.authority()))
        })?;
        if let Some(missing) = missing(&answer) {
            print_error(format_args!("tidegate: {missing}"));
        }
        if !answer.known {
            continue;
        }
        if is_known {
            write_stdout(b"\n")?;
        }
        is_known = true;
        if args.json {
            write_stdout(&[body.trim_ascii(), b"\n"].concat())?;
        } else {
            let text = text::write(kind, name, &answer, clock::unix_seconds());
            write_stdout(text.as_bytes())?;
        }
        if kind == "connection_id" {
            break;
        }
    }
    if is_known {
        return Ok(ExitCode::SUCCESS);
    }
    let [name, connection, user, channel] =
        [&args.name, &args.connection, &args.user, &args.channel].map(Option::as_deref);
    let name = name.or(connection).or(user).or(channel).unwrap_or_default();
    Err(Failure(format!("nothing is known of {name:?}: no connection, reply, error or history")))
}

/// What the answer does not tell; `None` if all nodes have answered.
fn missing(answer: &Answer) -> Option<String> {
    let answer::Nodes { answered, asked } = answer.nodes;
    let others = match &answer.missing_nodes[..] {
        [] => "the others".to_owned(),
        names => format!("node {}", names.join(", node ")),
    };
    match (answer.complete, answer.local) {
        (true, _) => None,
        (false, true) => Some(format!(
            "the engine is unavailable: only the node that was called has answered; what {others} may know, the limits of \
             users and the histories are missing"
        )),
        (false, false) => Some(format!(
            "only {answered} of {asked} nodes answered; what {others} may know is missing"
        )),
    }
}

/// What is asked for, in this order.
fn subjects(args: &Args) -> Vec<Subject<'_>> {
    if let Some(id) = &args.connection {
        return vec![("connection_id", id)];
    }
    if let Some(id) = &args.user {
        return vec![("user_id", id)];
    }
    if let Some(name) = &args.channel {
        return vec![("channel", name)];
    }
    let Some(name) = &args.name else { return Vec::new() };
    let connection = ConnectionId::parse(name).map(|_| ("connection_id", name.as_str()));
    let channel = parse_channel(name).is_ok().then_some(("channel", name.as_str()));
    connection.into_iter().chain([("user_id", name.as_str())]).chain(channel).collect()
}

fn parse_name(text: &str) -> Result<String, String> {
    match text.len() {
        1..=1024 => Ok(text.to_owned()),
        _ => Err("a name has 1 to 1024 bytes".to_owned()),
    }
}

fn parse_connection(text: &str) -> Result<String, String> {
    let id = ConnectionId::parse(text).ok_or("the id of a connection has 32 hex digits")?;
    Ok(id.to_string())
}

#[cfg(test)]
mod tests;
