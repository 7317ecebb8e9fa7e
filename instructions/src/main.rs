//! Counts the instructions of functions and of whole operations with Valgrind's callgrind, and compares them with the
//! limits in `instructions/limits.toml`. Unlike times, counts do not depend on how busy the machine is.
//!
//! The program starts itself under Valgrind: once to call functions ([`functions`]), and once as a gateway
//! ([`gateway`]), to which it connects as clients and for which it is the upstream. `instructions/run` builds and runs it.

mod callgrind;
mod functions;
mod gateway;
mod limits;
#[path = "../../tests/allocations/operations.rs"]
mod operations;
#[path = "../../tests/allocations/peers.rs"]
mod peers;

use std::path::Path;
use std::process::ExitCode;

use callgrind::Callgrind;
use limits::{Limits, Measured};

/// As in the gateway's binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const USAGE: &str = "usage: instructions check | update LIMITS.toml FOLDER";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        // Under Valgrind.
        ["functions"] => {
            functions::run();
            Ok(())
        }
        ["gateway", upstream] => gateway::serve(upstream),
        ["check", limits, folder] => check(Path::new(limits), folder),
        ["update", limits, folder] => {
            least_of_three(folder).and_then(|least| Limits::update(Path::new(limits), &least))
        }
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Counts everything. Valgrind writes its files into `folder`.
fn measure(folder: &str) -> Result<Measured, String> {
    let callgrind = Callgrind::new(Path::new(folder))?;
    let functions = functions::measure(&callgrind)?;
    Ok(Measured { functions, operations: gateway::measure(&callgrind)? })
}

fn least_of_three(folder: &str) -> Result<Measured, String> {
    let mut least = measure(folder)?;
    for _ in 0..2 {
        least.keep_least(measure(folder)?);
    }
    Ok(least)
}

/// Counts again, up to twice, while something is above its limit: what happens in between only ever adds to a count.
fn check(limits: &Path, folder: &str) -> Result<(), String> {
    let limits = Limits::read(limits)?;
    let mut measured = measure(folder)?;
    for _ in 0..2 {
        if limits.are_exceeded_by(&measured) {
            measured.keep_least(measure(folder)?);
        }
    }
    limits.check(&measured)
}
