//! Generates the page of the command line from its definition. A test checks that docs/cli.md is up to date.

use super::command_line;

const INTRODUCTION: &str = include_str!("reference.md");

/// Wide enough for tables in help texts, narrow enough for a page.
const WIDTH: usize = 100;

/// Generates the page: an introduction, then the help of each command.
fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut root = command_line().term_width(WIDTH).disable_help_subcommand(true);
    root.build();
    for command in root.get_subcommands_mut() {
        add_command(&mut page, command);
    }
    page
}

fn add_command(page: &mut String, command: &mut clap::Command) {
    if command.has_subcommands() {
        command.get_subcommands_mut().for_each(|command| add_command(page, command));
        return;
    }
    let name = command.get_bin_name().unwrap_or_default().to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    page.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", lines.join("\n").trim_end()));
}

#[cfg(test)]
mod tests;
