//! `tidegate config`: prints a starter config, or the effective one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use toml::Value;

use super::{Failure, check, write_stdout};
use crate::config::{Config, Environment, REDACTED, Setting, Source};

/// The commented file at the repository's root.
const DEFAULT: &str = include_str!("../../gateway.toml");

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a complete config file with comments; commented keys show the defaults
    Default(DefaultArgs),
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct DefaultArgs {
    /// Print only the required settings, without comments
    #[arg(long)]
    minimal: bool,
}

/// Print the effective configuration, and where each setting comes from
///
/// Each setting is followed by its source: "file", "file, with ${NAME}", "environment: TIDEGATE__…",
/// "secret file: PATH" or "default". Secrets, also the passwords of Redis URLs, are printed as "<redacted>".
/// A free text with a ${NAME} is printed as it is written in the file.
#[derive(Debug, clap::Args)]
#[expect(rustdoc::invalid_html_tags, reason = "clap prints this text verbatim")]
struct ShowArgs {
    /// The config file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print the defaults as well
    #[arg(long)]
    all: bool,
    /// The output format
    #[arg(long, value_enum, default_value_t = Format::Toml)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// A config file, with the sources in comments
    Toml,
    /// One object: {"settings":[{"key","value","source",…}]}
    Json,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Default(args) => {
            let text = if args.minimal { minimal(DEFAULT) } else { DEFAULT.to_owned() };
            write_stdout(text.as_bytes())?;
        }
        Command::Show(args) => {
            let settings = Config::effective_settings(&args.config, &Environment::from_process())
                .map_err(|mistakes| check::load_error(&args.config, &mistakes))?;
            let selected: Vec<Setting> = settings
                .into_iter()
                .filter(|setting| args.all || setting.source != Source::Default)
                .collect();
            let text = match args.format {
                Format::Toml => to_toml(&selected),
                Format::Json => to_json(&selected),
            };
            write_stdout(text.as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The lines of `text` that set a key, with the headings of their tables.
fn minimal(text: &str) -> String {
    let (mut lines, mut heading) = (Vec::new(), None);
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        if line.starts_with('[') {
            heading = Some(line);
        } else if !line.is_empty() && !line.starts_with('#') {
            if let Some(heading) = heading.take() {
                if !lines.is_empty() {
                    lines.push("");
                }
                lines.push(heading);
            }
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

/// Formats the settings as TOML, with each table in one piece.
fn to_toml(settings: &[Setting]) -> String {
    let mut tables: Vec<&str> = Vec::new();
    for setting in settings {
        if !tables.contains(&setting.table.as_str()) {
            tables.push(&setting.table);
        }
    }
    let mut text = String::new();
    for (number, table) in in_toml_order(tables).iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        if !table.is_empty() {
            text.push_str(&heading(table));
            text.push('\n');
        }
        let own = settings.iter().filter(|setting| setting.table == *table);
        let lines: Vec<(String, &Source)> =
            own.map(|s| (format!("{} = {}", s.name, s.value), &s.source)).collect();
        // A long line does not move the comments of the other lines.
        let width =
            lines.iter().map(|(line, _)| line.chars().count()).filter(|len| *len <= 48).max();
        let width = width.unwrap_or(0);
        for (line, source) in lines {
            text.push_str(&format!("{line:width$}  # {source}\n"));
        }
    }
    text
}

/// Moves each table before its sub-tables, and keeps the order otherwise.
fn in_toml_order(tables: Vec<&str>) -> Vec<&str> {
    let mut ordered: Vec<&str> = Vec::new();
    for table in tables {
        let is_below = |other: &str| {
            other.strip_prefix(table).is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        let at = ordered.iter().position(|other| is_below(other)).unwrap_or(ordered.len());
        ordered.insert(at, table);
    }
    ordered
}

/// The TOML heading of a table: `[engine.redis]` for `engine.redis`, `[[route]]` for `route[0]`,
/// `[route.limits]` for `route[0].limits`.
fn heading(table: &str) -> String {
    let mut path = String::new();
    let mut parts = table.split('[');
    path.push_str(parts.next().unwrap_or_default());
    for part in parts {
        path.push_str(part.split_once(']').map_or("", |(_, rest)| rest));
    }
    if table.ends_with(']') { format!("[[{path}]]") } else { format!("[{path}]") }
}

fn to_json(settings: &[Setting]) -> String {
    let entries: Vec<serde_json::Value> = settings
        .iter()
        .map(|setting| {
            let mut entry = json!({
                "key": setting.key(),
                "value": json_value(&setting.value),
            });
            entry["source"] = match &setting.source {
                Source::Default => json!("default"),
                Source::File { .. } => json!("file"),
                Source::Variable(_) => json!("environment"),
                Source::SecretFile(_) => json!("secret_file"),
            };
            match &setting.source {
                Source::File { variables } if !variables.is_empty() => {
                    entry["variables"] = json!(variables);
                }
                Source::Variable(name) => entry["variables"] = json!([name]),
                Source::SecretFile(path) => entry["file"] = json!(path),
                Source::Default | Source::File { .. } => {}
            }
            if setting.value.to_string().contains(REDACTED) {
                entry["redacted"] = json!(true);
            }
            entry
        })
        .collect();
    format!("{:#}\n", json!({ "settings": entries }))
}

fn json_value(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => json!(text),
        Value::Integer(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Boolean(flag) => json!(flag),
        Value::Datetime(time) => json!(time.to_string()),
        Value::Array(elements) => elements.iter().map(json_value).collect(),
        Value::Table(table) => {
            table.iter().map(|(name, value)| (name.clone(), json_value(value))).collect()
        }
    }
}

#[cfg(test)]
mod tests;
