//! Reads from the kernel what a process has used.

use std::fs;

use super::Result;

/// Linux reports CPU time to user space in this unit on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Returns the anonymous memory in bytes: heap and stacks, without the binary's pages and the kernel's buffers.
pub fn anonymous_memory(pid: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no Anonymous line")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
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
