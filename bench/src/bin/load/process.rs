//! Reads from the kernel what a process has used.

use std::fs;
use std::time::Instant;

use super::{Measured, Result};

/// Linux reports CPU time to user space in this unit on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Returns the anonymous memory in bytes: heap and stacks, without the binary's pages and the kernel's buffers.
pub fn anonymous_memory(pid: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no Anonymous line")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}

/// Returns the anonymous memory in bytes of several processes. What they share is counted once.
pub fn group_memory(pids: &[u32]) -> Result<u64> {
    let mut total = 0;
    for pid in pids {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
        let kib =
            line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no Pss_Anon line")?;
        total += kib.trim().parse::<u64>()? * 1024;
    }
    Ok(total)
}

/// Returns the CPU time so far of several processes, in seconds.
pub fn group_cpu_seconds(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| cpu_seconds(*pid)).sum()
}

/// A measured stretch of time: the CPU time of the server's processes, and of this one and those on its core.
pub struct Stretch {
    pids: Vec<u32>,
    beside: Vec<u32>,
    started: Instant,
    server: f64,
    own: f64,
    others: f64,
}

pub struct Used {
    pub seconds: f64,
    pub server_cpu: f64,
    /// CPU seconds of the processes on the generator's core, without its own: of Redis and of upstreams.
    pub beside_cpu: f64,
    /// The share of one core that the generator and the others on its core have used. Near 1, they limit the
    /// measurement.
    pub generator_share: f64,
}

impl Stretch {
    pub fn begin(measured: &Measured) -> Result<Self> {
        Ok(Self {
            pids: measured.pids.clone(),
            beside: measured.beside.clone(),
            server: group_cpu_seconds(&measured.pids)?,
            own: cpu_seconds(std::process::id())?,
            others: group_cpu_seconds(&measured.beside)?,
            started: Instant::now(),
        })
    }

    pub fn end(self) -> Result<Used> {
        let seconds = self.started.elapsed().as_secs_f64();
        let own = cpu_seconds(std::process::id())? - self.own;
        let beside_cpu = group_cpu_seconds(&self.beside)? - self.others;
        Ok(Used {
            seconds,
            server_cpu: group_cpu_seconds(&self.pids)? - self.server,
            beside_cpu,
            generator_share: (own + beside_cpu) / seconds,
        })
    }
}

/// Returns the most resident memory in bytes that the process has had.
pub fn peak_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmHWM line")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}

/// Returns the CPU time of all threads so far, user and system, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may contain spaces; utime and stime are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    let mut next = || times.next().ok_or("no times in stat");
    Ok((next()?? + next()??) / TICKS_PER_SECOND)
}
