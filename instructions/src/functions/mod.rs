//! Functions of the busiest paths, called one after the other in this process.

mod delivery;
mod frames;
mod messages;

use std::process::Stdio;

use super::callgrind::{Callgrind, DUMP, dump_point};

/// callgrind counts only while this runs.
#[inline(never)]
fn counted_section(work: &mut dyn FnMut()) {
    work();
    // So that the call is not the last thing, and this function stays on the stack.
    std::hint::black_box(());
}

/// Counts the instructions of `work`, which does the same thing `times` times, in its second call: the first one
/// prepares what is kept.
fn count(name: &str, times: usize, mut work: impl FnMut()) {
    work();
    counted_section(&mut work);
    dump_point(name);
    println!("{times} {name}");
}

/// Calls each function, in the process that is measured. Prints the names in the order of the dumps.
pub fn run() {
    frames::run();
    delivery::run();
    messages::run();
}

/// The instructions of each function.
pub fn measure(callgrind: &Callgrind) -> Result<Vec<(String, f64)>, String> {
    let options = ["--toggle-collect=*counted_section*", DUMP];
    let (mut command, mut dumps) = callgrind.command("functions", &options, &["functions"])?;
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("the functions under valgrind: {}", output.status));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    let count = |line: &str| {
        let (times, name) = line.split_once(' ').ok_or_else(|| format!("no name: {line}"))?;
        let times: f64 = times.parse().map_err(|_| format!("no number: {line}"))?;
        Ok((name.to_owned(), dumps.next()? as f64 / times))
    };
    names.lines().map(count).collect()
}
