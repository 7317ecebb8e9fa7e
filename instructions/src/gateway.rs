//! Whole operations: a gateway under callgrind, with clients and an upstream that are not.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use tidegate::internals::Config;
use tidegate::internals::gateway::{Addresses, Inherited, Process, log_filter, run};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::callgrind::{Callgrind, DUMP, dump_point};
use super::operations::{Gateway, settings};
use super::peers::Upstream;

/// Runs a gateway that relays to `upstream`, in the process that is measured. Prints its addresses, and dumps at each
/// line that it reads, until the input ends.
pub fn serve(upstream: &str) -> Result<(), String> {
    let upstream = upstream.parse().map_err(|error| format!("{upstream}: {error}"))?;
    let config = Config::from_toml(&settings(upstream)).map_err(|mistakes| mistakes.to_string())?;
    let (log, filter) = log_filter("error", None)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
    let (ready, addresses) = mpsc::channel();
    thread::spawn(move || {
        let process = Process { inherited: Inherited::default(), log, read: None };
        // If it does not start, there are no addresses.
        if let Err(error) = run(config, process, |addresses| {
            // The receiver waits for it.
            let _ = ready.send(addresses);
        }) {
            eprintln!("{error}");
        }
    });
    let Addresses { public, admin, .. } =
        addresses.recv().map_err(|_| "the gateway has not started".to_owned())?;
    println!("{public} {admin}");
    for line in std::io::stdin().lines() {
        let line = line.map_err(|error| format!("the input: {error}"))?;
        dump_point(&line);
        println!("{line}");
    }
    Ok(())
}

/// What one more client costs is too little beside the rest: [`super::functions`] counts it.
const LEFT_OUT: &str = "a delivery of a publication to one more client";

/// The instructions of each operation.
pub fn measure(callgrind: &Callgrind) -> Result<Vec<(String, f64)>, String> {
    let upstream = Upstream::start();
    let address = upstream.address().to_string();
    let (mut command, mut dumps) =
        callgrind.command("operations", &[DUMP], &["gateway", &address])?;
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut process = started.map_err(|error| format!("valgrind: {error}"))?;
    let (Some(mut input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
        return Err("valgrind has no pipes".to_owned());
    };
    let mut lines = BufReader::new(output).lines();
    let mut line = move || match lines.next() {
        Some(Ok(line)) => Ok(line),
        _ => Err("the gateway under valgrind has ended".to_owned()),
    };
    let first = line()?;
    let address = |at: usize| {
        let part = first.split(' ').nth(at).and_then(|part| part.parse().ok());
        part.ok_or_else(|| format!("no addresses: {first}"))
    };
    let gateway = Gateway { public: address(0)?, admin: address(1)? };
    let mut counted = 0;
    let mut total = || {
        let dumped = input.write_all(b"dump\n").map_err(|error| error.to_string());
        let dumped = dumped.and_then(|()| line()).and_then(|_| dumps.next());
        counted += dumped.unwrap_or_else(|why| panic!("{why}"));
        counted
    };
    let counts = gateway.count_operations(&upstream, &mut total);
    gateway.drain();
    drop(input);
    let ended = process.wait().map_err(|error| format!("valgrind: {error}"))?;
    if !ended.success() {
        return Err(format!("the gateway under valgrind: {ended}"));
    }
    let counts = counts.into_iter().filter(|(name, _)| *name != LEFT_OUT);
    Ok(counts.map(|(name, count)| (name.to_owned(), count)).collect())
}
