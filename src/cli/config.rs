//! `tidegate config`: a file to begin with, and what a file comes to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use toml::Value;

use super::{Failure, check, write_out};
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
    /// Print a complete config file with comments: what is commented out shows the defaults
    Default(DefaultArgs),
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct DefaultArgs {
    /// Only the settings that a file needs, without comments
    #[arg(long)]
    minimal: bool,
}

/// Print what a config file and the environment come to, and where each setting was said
///
/// Beside each setting stands its source: "file", "file, with ${NAME}", "environment: TIDEGATE__…",
/// "secret file: PATH" or "default". Secrets are never printed: "<redacted>" stands for them, also for
/// the passwords of Redis URLs. Where a free text holds a ${NAME} it is printed as it was written.
#[derive(Debug, clap::Args)]
#[expect(rustdoc::invalid_html_tags, reason = "the command prints this text as it stands here")]
struct ShowArgs {
    /// The config file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print the defaults as well
    #[arg(long)]
    all: bool,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Toml)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// As a config file, with the sources in comments
    Toml,
    /// One object: {"settings":[{"key","value","source",…}]}
    Json,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Default(args) => {
            let text = if args.minimal { minimal(DEFAULT) } else { DEFAULT.to_owned() };
            write_out(text.as_bytes())?;
        }
        Command::Show(args) => {
            let settings = Config::effective_settings(&args.config, &Environment::from_process())
                .map_err(|mistakes| check::told(&args.config, &mistakes))?;
            let shown: Vec<Setting> = settings
                .into_iter()
                .filter(|setting| args.all || setting.source != Source::Default)
                .collect();
            let text = match args.format {
                Format::Toml => as_toml(&shown),
                Format::Json => as_json(&shown),
            };
            write_out(text.as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The lines of `text` that set something, below their headlines.
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

/// Tables in the order of reading, each with all of its settings, so that it can be read as TOML.
fn as_toml(settings: &[Setting]) -> String {
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
        let of_it = settings.iter().filter(|setting| setting.table == *table);
        let lines: Vec<(String, &Source)> =
            of_it.map(|s| (format!("{} = {}", s.name, s.value), &s.source)).collect();
        // Long ones do not push the comments of the others away.
        let width =
            lines.iter().map(|(line, _)| line.chars().count()).filter(|len| *len <= 48).max();
        let width = width.unwrap_or(0);
        for (line, source) in lines {
            text.push_str(&format!("{line:width$}  # {source}\n"));
        }
    }
    text
}

/// A table before its sub-tables, which follow it; otherwise as they are.
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

/// `[engine.redis]` for `engine.redis`, `[[route]]` for `route[0]`, `[route.limits]` for
/// `route[0].limits`.
fn heading(table: &str) -> String {
    let mut path = String::new();
    let mut parts = table.split('[');
    path.push_str(parts.next().unwrap_or_default());
    for part in parts {
        path.push_str(part.split_once(']').map_or("", |(_, rest)| rest));
    }
    if table.ends_with(']') { format!("[[{path}]]") } else { format!("[{path}]") }
}

fn as_json(settings: &[Setting]) -> String {
    let shown: Vec<serde_json::Value> = settings
        .iter()
        .map(|setting| {
            let mut shown = json!({
                "key": setting.key(),
                "value": json_value(&setting.value),
            });
            shown["source"] = match &setting.source {
                Source::Default => json!("default"),
                Source::File { .. } => json!("file"),
                Source::Variable(_) => json!("environment"),
                Source::SecretFile(_) => json!("secret_file"),
            };
            match &setting.source {
                Source::File { variables } if !variables.is_empty() => {
                    shown["variables"] = json!(variables);
                }
                Source::Variable(name) => shown["variables"] = json!([name]),
                Source::SecretFile(path) => shown["file"] = json!(path),
                Source::Default | Source::File { .. } => {}
            }
            if setting.value.to_string().contains(REDACTED) {
                shown["redacted"] = json!(true);
            }
            shown
        })
        .collect();
    format!("{:#}\n", json!({ "settings": shown }))
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
mod tests {
    use super::*;

    #[test]
    fn the_minimal_file_is_a_config() {
        let text = minimal(DEFAULT);
        assert!(!text.contains('#') && text.lines().count() < 40, "{text}");
        let config = Config::from_toml(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!((config.routes.len(), config.upstreams.len()), (1, 1));
    }

    #[test]
    fn headings_are_those_of_a_file() {
        for (table, written) in [
            ("server", "[server]"),
            ("engine.redis", "[engine.redis]"),
            ("route[12]", "[[route]]"),
            ("route[0].limits", "[route.limits]"),
            ("jwt.keys[1]", "[[jwt.keys]]"),
            ("upstream.a.tasks[0]", "[[upstream.a.tasks]]"),
        ] {
            assert_eq!(heading(table), written);
        }
    }

    #[test]
    fn tables_stand_before_what_is_in_them() {
        let tables = vec!["jwt.keys[0]", "jwt.keys[1]", "jwt", "route[0]", "route[0].limits"];
        let ordered = ["jwt", "jwt.keys[0]", "jwt.keys[1]", "route[0]", "route[0].limits"];
        assert_eq!(in_toml_order(tables), ordered);
    }
}
